"""The native transport: ECR's own API, through aiobotocore."""
