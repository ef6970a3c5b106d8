"""OCI content: digests, descriptors, manifests, layouts. Pure: it knows no network."""
