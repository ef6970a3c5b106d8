"""What is kept: repositories, blobs, images, upload sessions, on disk and in one database."""
