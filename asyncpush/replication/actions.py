"""The IAM actions that replication takes, without ``ecr:``; none of them is one of a push's six."""

from __future__ import annotations

# Service authorization reference, Amazon ECR: the calls on a registry have no resource, so that a
# policy names them with "*"; the status of an image is an action on its repository.

WAIT_ON_REGISTRY = ("DescribeRegistry",)
"""What ``--wait-for-replication`` needs beside a push, with ``Resource: "*"``."""

WAIT_ON_REPOSITORY = ("DescribeImageReplicationStatus",)
"""What ``--wait-for-replication`` needs on each repository that is pushed to."""

APPLY_ON_REGISTRY = ("DescribeRegistry", "PutReplicationConfiguration")
"""What ``replication apply`` needs, with ``Resource: "*"``. The first rules of an account also take
``iam:CreateServiceLinkedRole`` for ``replication.ecr.amazonaws.com``."""

GRANTED_BY_DESTINATION = ("CreateRepository", "ReplicateImage")
"""What the registry policy of another account must allow the source account."""
