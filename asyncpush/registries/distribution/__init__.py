"""Any registry that speaks the OCI distribution specification 1.1."""
