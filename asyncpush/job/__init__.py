"""Job files: what goes where, for many layouts and many registries, in one document."""
