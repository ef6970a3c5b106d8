"""A token service for docker-registry: what its configuration wants, and the tokens that it trusts.

Written after distribution's "Token Authentication Implementation", with a key of its own, so that
it is another opinion on the client than the local registry's token service.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

ISSUER, SERVICE = "the tests", "registry of the tests"


@dataclass
class TokenService:
    """A token service that runs; ``scopes`` are those that were asked for, in order."""

    config: str
    scopes: list[str] = field(default_factory=list)
    refused: int = 0


@contextlib.contextmanager
def token_service(folder: Path, login: str, lifetime: int = 60) -> Iterator[TokenService]:
    """Run a token service; ``config`` makes docker-registry want its tokens.

    :param login: ``user:password``, the only credentials that get one.
    :param lifetime: seconds that a token is good for.
    """
    signer = _Signer(folder / "root.pem")
    expected = f"Basic {base64.b64encode(login.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != expected:
                service.refused += 1
                self.send_response(401)
                self.end_headers()
                return
            asked = parse_qs(urlsplit(self.path).query)
            assert asked["service"] == [SERVICE]
            service.scopes += asked.get("scope", [])
            token = signer.token(login.partition(":")[0], asked.get("scope", []), lifetime)
            body = json.dumps({"token": token, "expires_in": lifetime}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        realm = f"http://127.0.0.1:{server.server_address[1]}/token"
        service = TokenService(
            f"auth: {{token: {{realm: '{realm}', service: '{SERVICE}', issuer: '{ISSUER}',"
            f" rootcertbundle: '{folder / 'root.pem'}'}}}}\n"
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


class _Signer:
    """Signs JSON Web Tokens (RS256) that carry the certificate of their key."""

    def __init__(self, certificate: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._key, hashes.SHA256())
        )
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        der = made.public_bytes(serialization.Encoding.DER)
        self._header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}

    def token(self, subject: str, scopes: list[str], lifetime: int) -> str:
        now = int(time.time())
        access = []
        for scope in (part for text in scopes for part in text.split()):
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + lifetime,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        signed = ".".join(_encode(json.dumps(part).encode()) for part in (self._header, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encode(signature)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
