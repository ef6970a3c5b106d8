"""The engine: blobs, then manifests, then tags; many images at once, every wait bounded."""
