"""Where to push: ECR references and repository ARNs, read and written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asyncpush.errors import InvalidReferenceError, UnsupportedDigestError
from asyncpush.oci.digest import Digest, parse_digest

# Account, FIPS mark, Region and domain of the registry hosts that AWS documents ("Private
# registries", "FIPS endpoints", "IPv6"). Dual-stack hosts write dkr-ecr where others write dkr.ecr.
_HOST = re.compile(
    r"(?P<account>[0-9]{12})\.dkr(?:\.|(?P<dash>-))ecr(?P<fips>-fips)?\."
    r"(?P<region>[a-z0-9][a-z0-9-]*)\."
    r"(?P<domain>amazonaws\.com(?:\.cn)?|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)"
)
_ANY_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_USER = re.compile(r"^((?:[\w+.-]+://)?)[^/]*@(?!sha(?:256|512):)")
_DUAL_STACK_DOMAINS = frozenset({"on.aws", "on.amazonwebservices.com.cn"})
_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z0-9-]*):ecr:(?P<region>[a-z0-9][a-z0-9-]*):(?P<account>[0-9]{12})"
    r":repository/(?P<rest>.+)"
)
_PARTITION_DOMAINS = {
    "aws": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
    "aws-us-gov": "amazonaws.com",
    "aws-eusc": "amazonaws.eu",
    "aws-iso": "c2s.ic.gov",
    "aws-iso-b": "sc2s.sgov.gov",
    "aws-iso-e": "cloud.adc-e.uk",
    "aws-iso-f": "csp.hci.ic.gov",
}
_DOMAIN_PARTITIONS = {
    **{domain: partition for partition, domain in _PARTITION_DOMAINS.items()},
    "amazonaws.com": "aws",
    "on.aws": "aws",
    "on.amazonwebservices.com.cn": "aws-cn",
}
# botocore's ecr model: RepositoryName.pattern, min and max; ImageTag.min and max.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
# distribution-spec's grammar of a tag, with the length that ECR takes.
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,299}")
_FORM = (
    "write ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY[:TAG][@DIGEST], a repository's ARN, or"
    " docker://HOST/REPOSITORY[:TAG] for another registry"
)


@dataclass(frozen=True, slots=True)
class Registry:
    """One private ECR registry: an account in a Region, reached through one kind of endpoint."""

    account: str
    region: str
    domain: str = "amazonaws.com"
    fips: bool = False

    @property
    def dual_stack(self) -> bool:
        """Whether it is reached by the hosts that answer IPv4 and IPv6."""
        return self.domain in _DUAL_STACK_DOMAINS

    @property
    def partition(self) -> str:
        """The AWS partition, as ARNs write it."""
        if self.region.startswith("us-gov-"):
            return "aws-us-gov"
        return _DOMAIN_PARTITIONS[self.domain]

    @property
    def host(self) -> str:
        """The registry's host name in references."""
        dash = "-" if self.dual_stack else "."
        fips = "-fips" if self.fips else ""
        return f"{self.account}.dkr{dash}ecr{fips}.{self.region}.{self.domain}"

    def __str__(self) -> str:
        return self.host


@dataclass(frozen=True, slots=True)
class DistributionRegistry:
    """A registry that is no ECR, reached through OCI distribution; ``host`` with its port."""

    host: str

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine, where plain HTTP is safe."""
        name = self.host.rpartition(":")[0] or self.host
        return name == "localhost" or name.startswith("127.") or self.host.startswith("[::1]")

    def __str__(self) -> str:
        return self.host


AnyRegistry = Registry | DistributionRegistry


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of one registry."""

    registry: AnyRegistry
    name: str

    @property
    def arn(self) -> str | None:
        """The repository's ARN, as policies name it; None for one that is not ECR's."""
        registry = self.registry
        if not isinstance(registry, Registry):
            return None
        return (
            f"arn:{registry.partition}:ecr:{registry.region}:{registry.account}"
            f":repository/{self.name}"
        )

    def __str__(self) -> str:
        return f"{self.registry.host}/{self.name}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository with a tag, a digest, both or neither."""

    repository: Repository
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Read a reference or a repository ARN, either with a tag, a digest, both or neither.

    ``docker://HOST[:PORT]/REPO`` with a host that is not ECR's is any registry that speaks OCI
    distribution.

    :param text: ``ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPO[:TAG][@DIGEST]``, its China, FIPS and
        dual-stack forms, or ``arn:aws:ecr:REGION:ACCOUNT:repository/REPO[:TAG][@DIGEST]``.
    :raises InvalidReferenceError: it is neither, or ECR does not take the repository or tag name.
    """
    if arn := _ARN.fullmatch(text):
        domain = _PARTITION_DOMAINS.get(arn["partition"])
        if domain is None:
            raise InvalidReferenceError(
                f"the partition {arn['partition']} is unknown", reference=text
            )
        return _parse_rest(Registry(arn["account"], arn["region"], domain), arn["rest"], text)
    host, slash, rest = text.removeprefix("docker://").partition("/")
    match = _HOST.fullmatch(host)
    if match is None and slash and text.startswith("docker://"):
        return _parse_rest(DistributionRegistry(_distribution_host(host, text)), rest, text)
    if match is None or not slash:
        raise InvalidReferenceError(
            "this is no ECR reference", advice=_FORM, reference=without_password(text)
        )
    registry = Registry(match["account"], match["region"], match["domain"], bool(match["fips"]))
    if registry.dual_stack != bool(match["dash"]):
        raise InvalidReferenceError(
            f"{host} is no ECR host; did you mean {registry.host}?", reference=text
        )
    return _parse_rest(registry, rest, text)


def is_ecr(text: str) -> bool:
    """Whether a text begins as a reference to ECR does, or as a repository's ARN."""
    host, slash, _ = text.partition("/")
    return bool((slash and _HOST.fullmatch(host)) or _ARN.fullmatch(text))


def parse_registry(text: str) -> AnyRegistry:
    """Read the host of a registry: ECR's, or behind ``docker://`` any other.

    :raises InvalidReferenceError: it is none, or more than one.
    """
    reference = parse_reference(f"{text}/any")
    if reference.repository.name != "any":
        raise InvalidReferenceError(
            f"{text} is more than a host", advice="leave the repository out here"
        )
    return reference.repository.registry


def without_password(text: str) -> str:
    """A target as it may be shown: whatever somebody has put before its host is left out."""
    return _USER.sub(r"\1***@", text)


def is_tag(text: str) -> bool:
    """Whether ECR takes this text as a tag."""
    return _TAG.fullmatch(text) is not None


def _distribution_host(host: str, text: str) -> str:
    if not _ANY_HOST.fullmatch(host):
        if "@" in host:
            raise InvalidReferenceError(
                "a registry's host is written without name and password",
                advice="credentials come from where docker login keeps them",
                reference=without_password(text),
            )
        raise InvalidReferenceError(f"{host!r} is no host of a registry", reference=text)
    return host.lower()


def _parse_rest(registry: AnyRegistry, rest: str, text: str) -> Reference:
    name_and_tag, at, digest_text = rest.partition("@")
    digest = None
    if at:
        try:
            digest = parse_digest(digest_text)
        except UnsupportedDigestError as exc:
            raise InvalidReferenceError(exc.message, advice=exc.advice, reference=text) from exc
    name, colon, tag = name_and_tag.partition(":")
    # A name of one letter is one by the specification, and too short for ECR.
    who, least = ("ECR", 2) if isinstance(registry, Registry) else ("a registry", 1)
    if not least <= len(name) <= 256 or not _REPOSITORY.fullmatch(name):
        raise InvalidReferenceError(
            f"{who} takes no repository named {name!r}",
            advice=f"{least} to 256 characters: lower-case letters, digits, and . _ - / between"
            " them",
            reference=text,
        )
    if colon and not is_tag(tag):
        raise InvalidReferenceError(
            f"ECR takes no tag {tag!r}",
            advice="1 to 300 letters, digits, and . _ - behind the first",
            reference=text,
        )
    return Reference(Repository(registry, name), tag or None, digest)
