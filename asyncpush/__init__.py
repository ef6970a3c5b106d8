"""asyncpush: many container images into Amazon ECR, at once."""
