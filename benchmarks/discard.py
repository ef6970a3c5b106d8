"""A server that answers ECR's upload calls and throws everything away, to measure clients against.

It answers both APIs, and reads only what it must to frame a request, so that it is not what a
benchmark measures. Run as a program it prints its port and serves until its standard input closes;
given a certificate and its key, it serves under TLS.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import sys
import uuid

import uvloop

PART_SIZE = 10 * 1024 * 1024
TOKEN = {
    "authorizationToken": base64.b64encode(b"AWS:secret").decode(),
    "expiresAt": 4_102_444_800,
}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TARGET = re.compile(rb"\r\nx-amz-target: *[^.\r]*\.(\w+)", re.IGNORECASE)
_LAST_BYTE = re.compile(rb'"partLastByte": *(\d+)')
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


class Discard(asyncio.BufferedProtocol):
    """One connection: a head is parsed, a body is counted off."""

    def __init__(self) -> None:
        self._buffer = bytearray(1 << 20)
        self._head = b""
        self._start = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)

    def buffer_updated(self, size: int) -> None:
        if self._left:
            if b".PutImage" in self._head:
                self._start += bytes(self._buffer[:size])
            elif len(self._start) < 4096:
                self._start += bytes(self._buffer[: min(size, 4096)])
            self._left -= size
        else:
            self._head += bytes(self._buffer[:size])
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._head[: end + 2])
            self._start = self._head[end + 4 :]
            self._left = (int(length[1]) if length else 0) - len(self._start)
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        method, path, _ = self._head.split(b" ", 2)
        if path.startswith(b"/v2/"):
            self._answer_distribution(method.decode(), path.decode())
        else:
            self._answer_native()
        self._head = b""

    def _answer_distribution(self, method: str, path: str) -> None:
        status = {"HEAD": 404, "POST": 202, "PATCH": 202, "PUT": 201}.get(method, 200)
        session = f"/v2/any/blobs/uploads/{uuid.uuid4()}" if method == "POST" else path
        self._write(status, f"Location: {session}\r\n" if status == 202 else "", b"")

    def _answer_native(self) -> None:
        target = _TARGET.search(self._head)
        call = target[1].decode() if target else ""
        answer: dict[str, object] = {}
        if call == "GetAuthorizationToken":
            answer = {"authorizationData": [TOKEN]}
        elif call == "BatchCheckLayerAvailability":
            answer = {"layers": [], "failures": []}
        elif call == "InitiateLayerUpload":
            answer = {"uploadId": str(uuid.uuid4()), "partSize": PART_SIZE}
        elif call == "UploadLayerPart":
            last = _LAST_BYTE.search(self._start)
            answer = {"lastByteReceived": int(last[1]) if last else 0}
        elif call == "CompleteLayerUpload":
            digest = _DIGEST.search(self._start)
            answer = {"layerDigest": digest[0].decode() if digest else ""}
        elif call == "PutImage":
            asked = json.loads(self._start)
            answer = {"image": {"imageId": {k: asked.get(k) for k in ("imageDigest", "imageTag")}}}
        body = json.dumps(answer).encode()
        self._write(200, "Content-Type: application/x-amz-json-1.1\r\n", body)

    def _write(self, status: int, headers: str, body: bytes) -> None:
        head = f"HTTP/1.1 {status} Any\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)  # type: ignore[attr-defined]


async def main() -> None:
    loop = asyncio.get_running_loop()
    tls = None
    if len(sys.argv) > 1:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*sys.argv[1:])
    server = await loop.create_server(Discard, "127.0.0.1", 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
