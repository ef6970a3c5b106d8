"""OCI distribution, under /v2/."""
