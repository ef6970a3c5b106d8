"""The options that all commands share that push, and the PushOptions that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from asyncpush.cli.logs import HANDLER
from asyncpush.engine.options import PushOptions
from asyncpush.engine.replication_wait import DEFAULT_TIMEOUT
from asyncpush.errors import UsageError
from asyncpush.plan.limits import MIB
from asyncpush.registries.ecr.options import AwsOptions, TransportName

_DEFAULTS = PushOptions()

_BOUNDS = (
    ("images", "images in flight to each registry"),
    ("layers", "layers in flight to each registry, over all images"),
    ("parts", "part uploads in flight to each registry, over all layers"),
    ("connections", "open connections to each registry"),
    ("attempts", "how often a call is tried"),
)


temp_space_option = click.option(
    "--temp-space",
    type=click.IntRange(min=0),
    metavar="MIB",
    help="MiB of $TMPDIR for archives that are compressed and layers that get compressed."
    f" [default: {_DEFAULTS.temp_space // MIB}]",
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the engine; :func:`push_options` reads them."""
    options = [
        click.option(
            f"--{name}",
            type=click.IntRange(min=1),
            metavar="N",
            help=f"{text[0].upper()}{text[1:]}. [default: {getattr(_DEFAULTS, name)}]",
        )
        for name, text in _BOUNDS
    ]
    options += [
        click.option(
            "--memory",
            type=click.IntRange(min=1),
            metavar="MIB",
            help=f"MiB of buffers for all that is in flight. [default: {_DEFAULTS.memory // MIB}]",
        ),
        click.option(
            "--part-size",
            type=click.FloatRange(min=5, max=20),
            metavar="MIB",
            help="MiB of a part, 5 to 20; default: what the registry asks for.",
        ),
        click.option(
            "--quota",
            "quotas",
            multiple=True,
            metavar="CALL=RATE",
            help="Calls a second, such as PutImage=50; default: ECR's published quotas."
            " Repeatable.",
        ),
        click.option(
            "--compress-layers",
            is_flag=True,
            help="Compress the layers of archives of docker save's older form, always to the same"
            " bytes.",
        ),
        temp_space_option,
        click.option(
            "--include-foreign",
            is_flag=True,
            help="Upload foreign (non-distributable) layers, too.",
        ),
        click.option(
            "--on-refused",
            type=click.Choice(["fail", "warn"]),
            help="When the registry does not take an artifact or an empty blob. [default: fail]",
        ),
        click.option(
            "--transport",
            type=click.Choice(get_args(TransportName)),
            help="How to speak to ECR: by its own API, OCI distribution, or both: hybrid and auto"
            " mount layers that another repository has. [default: native]",
        ),
        click.option(
            "--plain-http",
            is_flag=True,
            help="Ask docker:// registries, sources and targets, without TLS, also those that are"
            " not on this machine.",
        ),
        click.option(
            "--atomic",
            is_flag=True,
            help="Push everything by digest first; move the tags when all of it is there.",
        ),
        click.option(
            "--rollback",
            is_flag=True,
            help="With --atomic: if a tag cannot be moved, return those that moved"
            " (takes ecr:BatchGetImage).",
        ),
        click.option(
            "--create-repositories",
            is_flag=True,
            help="Create repositories that are missing (takes ecr:CreateRepository).",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def referrers_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say whether referrers come along; :func:`referrers_of` reads them."""
    for option in (
        click.option(
            "--referrers-type",
            "referrers_types",
            multiple=True,
            metavar="TYPE",
            help="As --referrers, for those of an artifact type, such as application/spdx+json or"
            " a pattern. Repeatable.",
        ),
        click.option(
            "--referrers",
            is_flag=True,
            help="Also push what refers to the images: signatures, SBOMs, attestations, by the"
            " referrers API and cosign's tags.",
        ),
    ):
        command = option(command)
    return command


def referrers_of(flags: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Artifact types of the referrers that come along; empty means all, None none."""
    types: tuple[str, ...] = flags["referrers_types"]
    return types if flags["referrers"] or types else None


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that says how standard error is written; it acts by itself."""

    def choose(_context: click.Context, _option: click.Parameter, chosen: str) -> None:
        HANDLER.as_json = chosen == "json"

    return click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        is_eager=True,
        expose_value=False,
        callback=choose,
        help="Standard error as text for people, or as one JSON object a line. [default: text]",
    )(command)


def aws_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how AWS is asked; :func:`aws_of` reads them."""
    for option in (
        click.option("--endpoint-url", metavar="URL", help="Address of the ECR API."),
        click.option("--profile", metavar="NAME", help="Profile of the shared AWS configuration."),
    ):
        command = option(command)
    return command


def aws_of(flags: Mapping[str, Any]) -> AwsOptions:
    """What :func:`aws_options` were given."""
    return AwsOptions(profile=flags["profile"], endpoint_url=flags["endpoint_url"])


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say whose credentials sources in ECR and S3 are read with;
    :func:`source_aws_of` reads them."""
    for option in (
        click.option(
            "--source-role-arn",
            metavar="ARN",
            help="Role to read sources in ECR and S3 with.",
        ),
        click.option(
            "--source-profile",
            metavar="NAME",
            help="AWS profile to read sources in ECR and S3 with; default: as for the target.",
        ),
    ):
        command = option(command)
    return command


def source_aws_of(flags: Mapping[str, Any]) -> AwsOptions | None:
    """What :func:`source_options` were given; None is as for the target."""
    profile, role = flags["source_profile"], flags["source_role_arn"]
    if profile is None and role is None:
        return None
    return AwsOptions(
        profile=profile or flags["profile"], role_arn=role, endpoint_url=flags["endpoint_url"]
    )


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is noted and shown; :class:`Output` holds them."""
    options = [
        click.option(
            "--journal",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Where to note what is needed to go on after a kill; default: one for each job,"
            " in $XDG_STATE_HOME/asyncpush. It goes when all is pushed.",
        ),
        click.option(
            "--no-journal", is_flag=True, help="Note nothing; half-sent layers begin again."
        ),
        click.option(
            "--verify",
            is_flag=True,
            help="Prove afterwards that the registries hold it (see asyncpush verify).",
        ),
        click.option(
            "--wait-for-replication",
            is_flag=True,
            help="Wait until the registries' replication rules have copied everything"
            " (takes ecr:DescribeRegistry and ecr:DescribeImageReplicationStatus).",
        ),
        click.option(
            "--replication-timeout",
            type=click.FloatRange(min=1),
            metavar="SECONDS",
            help=f"How long to wait for it at most. [default: {DEFAULT_TIMEOUT:g}]",
        ),
        click.option(
            "--report",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.json",
            help="Write what became of every image and blob there.",
        ),
        click.option(
            "--image-refs",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write HOST/REPOSITORY@DIGEST of every image that is there, one a line.",
        ),
        click.option(
            "--lock",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.json",
            help="When all is there, write where each image came from, its digest and where it"
            " went; asyncpush run FILE.json pushes exactly that again.",
        ),
        click.option(
            "--heartbeat",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            default=30.0,
            help="Where no terminal is watched, tell every so often how the push stands; 0: never."
            " [default: 30]",
        ),
        click.option(
            "--metrics",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.prom",
            help="Keep metrics in Prometheus' text format there, as the node exporter reads them.",
        ),
        click.option(
            "--metrics-listen",
            metavar="HOST:PORT",
            help="Serve metrics at http://HOST:PORT/metrics while it runs; loopback alone, such as"
            " 127.0.0.1:9464; port 0 takes a free one.",
        ),
        click.option(
            "--otel",
            is_flag=True,
            help="Tell OpenTelemetry of the push in spans (needs asyncpush[otel] and a provider).",
        ),
        click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
        click.option(
            "-v", "--verbose", is_flag=True, help="Also show layers, manifests and retries."
        ),
        click.option("-q", "--quiet", is_flag=True, help="Show nothing but errors."),
    ]
    for option in reversed(options):
        command = option(command)
    return log_options(command)


@dataclass(frozen=True, slots=True)
class Output:
    """What :func:`output_options` were given."""

    journal: Path | None = None
    no_journal: bool = False
    verify: bool = False
    wait_for_replication: bool = False
    replication_timeout: float | None = None
    report: Path | None = None
    image_refs: Path | None = None
    lock: Path | None = None
    heartbeat: float = 30.0
    metrics: Path | None = None
    metrics_listen: str | None = None
    otel: bool = False
    dry_run: bool = False
    as_json: bool = False
    verbose: bool = False
    quiet: bool = False

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> Output:
        """Read them from a command's parameters.

        :raises UsageError: two of them exclude each other.
        """
        output = cls(**{name: flags[name] for name in cls.__dataclass_fields__})
        if output.quiet and output.verbose:
            raise UsageError("--quiet and --verbose exclude each other")
        if output.journal and output.no_journal:
            raise UsageError("--journal and --no-journal exclude each other")
        if output.replication_timeout and not output.wait_for_replication:
            raise UsageError("--replication-timeout goes with --wait-for-replication")
        return output


def push_options(flags: Mapping[str, Any], **base: Any) -> PushOptions:
    """The engine's options as a command line gives them.

    :param flags: the command's parameters; those that were not given change nothing.
    :param base: fields of PushOptions that come from elsewhere.
    :raises UsageError: one of them cannot be meant.
    """
    given = {name: flags[name] for name, _ in _BOUNDS}
    given["on_refused"] = flags["on_refused"]
    given["transport"] = flags["transport"]
    if flags["memory"] is not None:
        given["memory"] = flags["memory"] * MIB
    if flags["temp_space"] is not None:
        given["temp_space"] = flags["temp_space"] * MIB
    if flags["part_size"] is not None:
        given["part_size"] = round(flags["part_size"] * MIB)
    for name in ("compress_layers", "include_foreign", "plain_http", "atomic", "rollback"):
        given[name] = flags[name] or None
    if flags["quotas"]:
        given["quotas"] = dict(map(_parse_quota, flags["quotas"]))
    return PushOptions(**{**base, **{k: v for k, v in given.items() if v is not None}})


def parse_setting(text: str) -> tuple[str, str]:
    """Read one ``--set KEY=VALUE``.

    :raises UsageError: it sets nothing.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{text!r} sets nothing", advice="write --set KEY=VALUE")
    return key, value


def _parse_quota(text: str) -> tuple[str, float]:
    call, _, rate = text.partition("=")
    try:
        return call, float(rate)
    except ValueError:
        raise UsageError(f"{text!r} is no quota", advice="write PutImage=50") from None
