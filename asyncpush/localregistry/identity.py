"""Whose registry is meant: account and Region, and the ARNs that follow from them."""

from __future__ import annotations

import re
from typing import NamedTuple

ACCOUNT = re.compile(r"[0-9]{12}")
REGION = re.compile(r"[a-z]{2,}[a-z0-9-]{0,60}")
_HOST = re.compile(r"([0-9]{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.")


class Registry(NamedTuple):
    """One registry of ECR: an account in a Region. Everything stored belongs to one."""

    account: str
    region: str

    @property
    def partition(self) -> str:
        """The first part of an ARN behind ``arn``, told by the Region."""
        if self.region.startswith("cn-"):
            return "aws-cn"
        return "aws-us-gov" if self.region.startswith("us-gov-") else "aws"

    def repository_arn(self, name: str) -> str:
        """The ARN of a repository, or with ``*`` as name of all."""
        return f"arn:{self.partition}:ecr:{self.region}:{self.account}:repository/{name}"


DEFAULT_REGISTRY = Registry("000000000000", "us-east-1")


def registry_of_host(host: str) -> Registry | None:
    """The registry that a host name of ECR's form names, as in the Host header."""
    found = _HOST.match(host)
    return Registry(found[1], found[2]) if found else None
