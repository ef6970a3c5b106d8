"""Where images come from that are not on this machine: registries and object stores."""
