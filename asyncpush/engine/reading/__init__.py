"""Reading blobs from elsewhere: one connection for all who want the same bytes at the same time."""
