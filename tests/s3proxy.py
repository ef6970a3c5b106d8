"""A proxy in front of moto's S3 that makes the faults which moto cannot make."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """What S3 was asked."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def region(self) -> str:
        """The Region that the request is signed for."""
        return self.headers.get("authorization", "").split("Credential=")[-1].split("/")[2]


@dataclass(frozen=True)
class Answer:
    """An answer instead of S3's."""

    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    more: str = ""
    message: str = "words of S3's"

    @property
    def body(self) -> bytes:
        """S3's document of an error."""
        return (
            f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>{self.message}"
            f"</Message>{self.more}<RequestId>R1</RequestId></Error>"
        ).encode()


@dataclass(frozen=True)
class Cut:
    """Breaks the connection behind so many bytes of the answer's body."""

    after: int


Fault = Callable[[Request], Answer | Cut | None]


@dataclass
class Proxy:
    """A proxy that runs; ``fault`` says of each request what goes wrong with it."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    fault: Fault = lambda _: None

    def asked(self, method: str, part: str = "") -> list[Request]:
        """The requests of a method whose path has a part."""
        return [r for r in self.requests if r.method == method and part in r.path]


def upload(s3: Any, bucket: str, root: Path, prefix: str) -> None:
    """Put all files of a folder into a bucket."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        key = f"{prefix}/{path.relative_to(root)}" if prefix else str(path.relative_to(root))
        s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


@contextlib.contextmanager
def proxy_to(moto: str) -> Iterator[Proxy]:
    """Run a proxy to a server of moto's."""
    proxy = Proxy()
    host = urlsplit(moto).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            headers = {k.lower(): v for k, v in self.headers.items()}
            request = Request(self.command, self.path, headers)
            proxy.requests.append(request)
            fault = proxy.fault(request)
            if isinstance(fault, Answer):
                self._answer(fault.status, fault.headers, fault.body)
                return
            connection = http.client.HTTPConnection(host, timeout=30)
            try:
                connection.request(self.command, self.path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                skip = {"connection", "transfer-encoding", "server", "date"}
                if self.command != "HEAD":
                    skip.add("content-length")
                kept = {k: v for k, v in answer.getheaders() if k.lower() not in skip}
                self._answer(answer.status, kept, body, fault)
            finally:
                connection.close()

        do_GET = do_HEAD = _forward  # noqa: N815 - http.server's names

        def _answer(
            self, status: int, headers: dict[str, str], body: bytes, cut: Cut | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[: cut.after])
            if cut is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
