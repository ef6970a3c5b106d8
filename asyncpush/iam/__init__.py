"""IAM policies for what asyncpush does: documents made of names alone, without asking AWS."""
