"""What the reader of the documentation has: layouts, archives, a job, AWS accounts with roles."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import re
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

from forked import write_program

from asyncpush import AwsOptions
from asyncpush.oci.writer import LayoutWriter
from asyncpush.testing import Key, LocalEcr, LocalEcrSettings

ACCOUNTS = ("111122223333", "444455556666", "777788889999")
REGIONS = ("eu-central-1", "us-east-1")
REPOSITORIES = ("team/app", "team/db", "team/web", "mirror/alpine")
SECRET = "secret-of-the-documentation"
WEB_IDENTITY = "token-of-a-pipeline"
_TOKEN = "token-of-an-assumed-role"


class World:
    """The reader's folder, and the environment of the reader's shell."""

    def __init__(self, folder: Path, ecr: LocalEcr, sts: str) -> None:
        self.folder = folder / "work"
        self.ecr = ecr
        self._write_content()
        home = folder / "home"
        (home / ".aws").mkdir(parents=True)
        (home / ".aws" / "config").write_text(
            f"[profile release]\naws_access_key_id = {ecr.key.access_key_id}\n"
            f"aws_secret_access_key = {ecr.key.secret_access_key}\n"
        )
        write_program(folder / "bin")
        folders = (folder / "bin", Path(sys.executable).parent, os.environ["PATH"])
        foreign = re.compile("AWS_|XDG_|ASYNCPUSH_|PYTEST_")
        self.environment = {k: v for k, v in os.environ.items() if not foreign.match(k)} | {
            "PATH": os.pathsep.join(map(str, folders)),
            "HOME": str(home),
            "AWS_ACCESS_KEY_ID": ecr.key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": ecr.key.secret_access_key,
            "AWS_REGION": ecr.region,
            "AWS_DEFAULT_REGION": ecr.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_ECR": ecr.url,
            # Whatever else AWS has is nowhere: no page may reach the real one.
            "AWS_ENDPOINT_URL": sts,
            "EXTERNAL_ID": "partner",
        }

    def role(self, account: str) -> AwsOptions:
        """What assuming a role of an account gives."""
        return AwsOptions(
            access_key_id=f"ASIAROLE{account}",
            secret_access_key=SECRET,
            session_token=_TOKEN,
            endpoint_url=self.ecr.url,
        )

    def _write_content(self) -> None:
        for name, tags in (("app", ("v1", "v1.2", "v2")), ("db", ("v3",)), ("web", ("v1",))):
            write_layout(self.folder / "layouts" / name, tags)
        write_layout(self.folder / "base" / "alpine", ("3.22",))
        with tarfile.open(self.folder / "app.tar", "w") as archive:
            layout = self.folder / "layouts" / "app"
            for part in sorted(layout.rglob("*")):
                archive.add(part, part.relative_to(layout), recursive=False)
        write_docker_archive(self.folder / "saved.tar", "web:v1")


def write_layout(root: Path, names: tuple[str, ...]) -> None:
    """An index of two platforms under each name; one layer is in all of them."""
    writer = LayoutWriter(root)
    base = writer.layer({"etc/os-release": b"NAME=base" * 5000})
    for name in names:
        platforms = []
        for architecture in ("amd64", "arm64"):
            own = writer.layer({"srv/program": f"{root.name} {name} {architecture}".encode()})
            image = writer.image([base, own], architecture=architecture)
            platform = {"os": "linux", "architecture": architecture}
            platforms.append({**image, "platform": platform})
        writer.entry(writer.index(platforms), name)
    writer.close()


def write_docker_archive(path: Path, name: str) -> None:
    """What ``docker save`` wrote before Docker 25."""
    layer = io.BytesIO()
    tarfile.open(fileobj=layer, mode="w").close()
    diff_id = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    listed = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(listed).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for member, data in files.items():
            header = tarfile.TarInfo(member)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Accounts with repositories, and the reader's folder."""
    roles = [
        Key(f"ASIAROLE{account}", SECRET, account, session_token=_TOKEN) for account in ACCOUNTS
    ]
    settings = LocalEcrSettings(account=ACCOUNTS[0], region=REGIONS[0], keys=roles)
    with LocalEcr.running(folder / "ecr", settings) as ecr, _sts() as sts:
        for account in ACCOUNTS:
            for region in REGIONS:
                for repository in REPOSITORIES:
                    ecr.create(repository, account=account, region=region)
        yield World(folder, ecr, sts)


@contextmanager
def _sts() -> Iterator[str]:
    """An STS that gives every role the keys of its account, which the local registry knows."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sts) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Sts(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        (action,) = form["Action"]
        if action not in ("AssumeRole", "AssumeRoleWithWebIdentity"):
            self.send_error(501)
            return
        if action == "AssumeRoleWithWebIdentity" and form["WebIdentityToken"] != [WEB_IDENTITY]:
            self.send_error(403)
            return
        account = form["RoleArn"][0].split(":")[4]
        body = (
            f"<{action}Response><{action}Result><Credentials>"
            f"<AccessKeyId>ASIAROLE{account}</AccessKeyId>"
            f"<SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{_TOKEN}</SessionToken>"
            "<Expiration>2099-01-01T00:00:00Z</Expiration>"
            f"</Credentials></{action}Result></{action}Response>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""
