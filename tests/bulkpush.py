"""A bulk push as a company may make it: three registries, dozens of repositories, some trouble."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from simulated import MIB, ONE, TWO, SimulatedRegistry, World, push

from asyncpush import Registry
from asyncpush.errors import (
    AsyncpushError,
    RepositoryNotFoundError,
    TagConflictError,
    TransientError,
)
from asyncpush.oci.digest import compute
from asyncpush.report.document import Report

THREE = Registry("444455556666", "eu-central-1")
TEAMS = {
    "payments": ["ledger", "checkout", "invoices", "fraud", "payouts", "webhooks", "refunds"],
    "search": ["indexer", "query", "suggest", "crawler", "ranking"],
    "platform": ["gateway", "auth", "config", "scheduler", "events", "mailer", "audit", "flags"],
    "data": ["etl", "warehouse", "exports", "streams", "legacy-etl", "quality"],
    "web": ["shop", "admin", "docs", "assets", "landing"],
    "ml": ["features", "training", "inference", "labels"],
}
BASES = {"debian": 29, "python": 47, "node": 61, "jvm": 88}


def bulk_push(path: Path, images: int = 5000) -> Report:
    """Push so many images of it; the report. The same number gives the same report."""
    rng = random.Random(20)
    world = World()
    registries = {
        ONE: SimulatedRegistry(link=700 * MIB, connection=70 * MIB, latency=0.018),
        TWO: SimulatedRegistry(link=260 * MIB, connection=28 * MIB, latency=0.11),
        # Its quota of PutImage is shared with others, which the push does not know.
        THREE: SimulatedRegistry(link=700 * MIB, latency=0.02, rates={"PutImage": 7.5}),
    }
    repositories = [f"{team}/{name}" for team, names in TEAMS.items() for name in names]
    bases = {name: rng.choice(list(BASES)) for name in repositories}
    there: set[str] = set()
    model = images >= 1000
    for place in range(images - model):
        number, registry = place // 3, list(registries)[place % 3]
        rng.seed(number)
        repository = repositories[number % len(repositories)]
        tag = f"2026.11.{1 + number // len(repositories) % 30:02}-{rng.getrandbits(28):07x}"
        blobs = _blobs(rng, repository, bases[repository], number)
        image = world.image(registry, repository, tag, blobs)
        if number % 9 == 4:
            there.update(blobs)
            if number % 2:
                registries[registry].there.add(image.root)
    if model:
        world.image(TWO, "ml/inference", "model-70b", {"weights of the model": 3400 * MIB})
    for registry, simulated in registries.items():
        simulated.there.update(compute(name.encode()) for name in there)
        simulated.fault = _Faults(registry)
    report = push(path, world, registries, job="nightly release 2026-11-24")
    document: dict[str, Any] = json.loads(path.read_text())
    document["environment"] = {
        "python": "3.13.1",
        "platform": "Linux-6.12-x86_64",
        "cpus": "8",
        "aiobotocore": "3.10.0",
        "uvloop": "0.23.0",
    }
    document["started"] = "2026-11-24T02:00:00.000+00:00"
    path.write_text(json.dumps(document))
    return report


def _blobs(rng: random.Random, repository: str, base: str, number: int) -> dict[str, int]:
    blobs = {f"base {base}": BASES[base] * MIB, f"runtime of {repository}": 18 * MIB}
    for layer in range(rng.choice((1, 1, 2, 3))):
        blobs[f"layer {layer} of {number}"] = int(min(90, rng.lognormvariate(0.8, 1.4)) * MIB)
    blobs[f"config of {number}"] = rng.randrange(3_000, 12_000)
    return blobs


class _Faults:
    """What goes wrong at a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self, call: str, repository: str, tried: int) -> AsyncpushError | None:
        where = {"registry": self._registry.host, "repository": repository, "call": call}
        if repository == "data/legacy-etl" and self._registry == TWO and call != "PutImage":
            return RepositoryNotFoundError(
                f"the repository {repository} does not exist",
                advice="create it, or push with --create-repositories",
                **where,
                request_id="4f1c7d0e-61b2-4d38-9a55-0c6f8f2f7a11",
            )
        if call == "PutImage" and repository == "payments/ledger" and tried % 9 == 0:
            return TagConflictError(
                "the tag is immutable and points to another image",
                advice="push under another tag, or delete the image that has it",
                **where,
            )
        if call == "UploadLayerPart" and tried % 97 == 5:
            return TransientError("the connection was lost", **where)
        if call == "CompleteLayerUpload" and tried % 211 == 7:
            return TransientError("the service answered with HTTP 503", **where)
        return None
