"""What tests of several folders share: servers as processes, the command line, real programs."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from forked import Forked, run_forked

from asyncpush.cli.logs import HANDLER
from asyncpush.cli.main import main

ACCOUNT = "111122223333"
REGION = "eu-central-1"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
KEY_ID = "AKIDTESTSALLOWEDALL0"
SECRET = "secret-of-the-tests"
# Journals of the commands that tests run: not in the home folder of whoever runs the tests.
STATE = tempfile.mkdtemp(prefix="asyncpush-tests-")
atexit.register(shutil.rmtree, STATE, ignore_errors=True)
PUSH_ACTIONS = {
    "GetAuthorizationToken",
    "BatchCheckLayerAvailability",
    "InitiateLayerUpload",
    "UploadLayerPart",
    "CompleteLayerUpload",
    "PutImage",
}


# bcrypt of "secret", made once with htpasswd -nbB.
HTPASSWD = "user:$2b$05$TxQSCyfLv/vIHhkc46jFyOxhqoO6y0ZREKJpvMzZNISHIeOJ6ITgG\n"


def require_program(name: str) -> str:
    """A program from Debian's packages: in CI it must be there, elsewhere its test is skipped."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed (apt-get install {name})"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@contextlib.contextmanager
def docker_registry_at(folder: Path, config: str = "") -> Iterator[str]:
    """Debian's docker-registry (distribution); its address.

    :param config: further lines of its configuration.
    """
    program = require_program("docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder / 'data'}'}}}}\n{config}"
    )
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        ) as process,
    ):
        try:
            _wait_for(f"http://{address}/v2/")
            yield address
        finally:
            process.terminate()


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(f"nobody listens on {url}")


def moto_client(moto: str, key_id: str = "a", secret: str = "b") -> Any:
    """A client of moto's server, which takes any key."""
    return boto3.client(
        "ecr",
        region_name=REGION,
        endpoint_url=moto,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
    )


@dataclass
class Served:
    """A local registry in a process of its own."""

    url: str
    process: Forked
    log: Path

    def client(self, key_id: str = KEY_ID, secret: str = SECRET) -> Any:
        """A botocore client: another opinion than that of the code under test."""
        return boto3.client(
            "ecr",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def calls(self) -> list[dict[str, Any]]:
        """What the server logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def create(self, name: str, *, immutable: bool = False) -> str:
        """Create a repository; the reference to it."""
        mutability = "IMMUTABLE" if immutable else "MUTABLE"
        self.client().create_repository(repositoryName=name, imageTagMutability=mutability)
        return f"{HOST}/{name}"

    def digests(self, repository: str) -> dict[str, str]:
        """Digest by tag."""
        pages = self.client().get_paginator("list_images").paginate(repositoryName=repository)
        return {
            image["imageTag"]: image["imageDigest"]
            for page in pages
            for image in page["imageIds"]
            if "imageTag" in image
        }


@contextlib.contextmanager
def serve(folder: Path, keys: Sequence[dict[str, Any]] = (), *extra: str) -> Iterator[Served]:
    """Run ``asyncpush serve`` with a key that may do everything, and further keys."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = {"access_key_id": KEY_ID, "secret_access_key": SECRET, "account": ACCOUNT}
    (folder / "keys.json").write_text(json.dumps({"keys": [everything, *keys]}))
    log = folder / "calls.jsonl"
    command = ["serve", "--port", "0", "--root", folder / "store", "--log", log, *extra]
    command += ["--keys", folder / "keys.json"]
    with (
        (folder / "errors").open("w") as errors,
        Forked(*command, env=os.environ, stderr=errors.fileno()) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "listens on" in line, line + (folder / "errors").read_text()
            yield Served(line.split()[-1], process, log)
        finally:
            process.terminate()
            process.wait(10)


def environment(url: str | None, key_id: str = KEY_ID, secret: str = SECRET) -> dict[str, str]:
    """The environment of a command that must find these credentials and no others."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    variables |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_STATE_HOME": STATE,
    }
    if url is not None:
        variables["AWS_ENDPOINT_URL_ECR"] = url
    if key_id:
        variables |= {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}
    return variables


def asyncpush(
    *arguments: str | Path, env: dict[str, str], timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return run_forked(*arguments, env=env, timeout=timeout)


def asyncpush_here(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str | Path,
) -> subprocess.CompletedProcess[str]:
    """Run a command that asks nobody anything within this process, where that takes no second."""
    command = ["asyncpush", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", command)
    logger = logging.getLogger("asyncpush")
    level = logger.level
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        logger.removeHandler(HANDLER)
        logger.setLevel(level)
    return subprocess.CompletedProcess(command, int(ended.value.code or 0), *capsys.readouterr())


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The errors on standard error; a traceback fails the test at once."""
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]
