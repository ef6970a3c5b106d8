"""AWS Signature Version 4, the verifying side, written from AWS's description of the algorithm."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from asyncpush.localregistry.access.keys import Key, Keyring
from asyncpush.localregistry.access.policy import Policy
from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.identity import REGION

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

ALGORITHM = "AWS4-HMAC-SHA256"
_TERMINATOR = "aws4_request"
_DATE = "%Y%m%dT%H%M%SZ"
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS "
    "Secret Access Key and signing method. Consult the service documentation for details."
)


@dataclass(frozen=True, slots=True)
class Claim:
    """The Authorization header, taken apart."""

    access_key_id: str
    date: str
    region: str
    service: str
    terminator: str
    signed_headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        """The credential scope."""
        return f"{self.date}/{self.region}/{self.service}/{self.terminator}"


@dataclass(frozen=True, slots=True)
class Signed:
    """A request whose signature can be proven once the hash of its body is known.

    ``claimed`` is the X-Amz-Content-SHA256 header, if there is one.
    """

    key: Key
    policy: Policy | None
    region: str
    claimed: str | None
    _prefix: str
    _string_to_sign: str
    _signature: str
    _signing_key: bytes

    def prove(self, payload_hash: str) -> None:
        """Prove the signature for a body of this SHA-256.

        :raises ApiError: InvalidSignatureException.
        """
        if self.claimed is not None and self.claimed != payload_hash:
            raise _invalid(_MISMATCH)
        request = hashlib.sha256(_raw(f"{self._prefix}\n{payload_hash}")).hexdigest()
        expected = _hmac(self._signing_key, f"{self._string_to_sign}\n{request}").hex()
        if not hmac.compare_digest(_raw(expected), _raw(self._signature)):
            raise _invalid(_MISMATCH)


class Verifier:
    """Verifies signed requests for one service.

    :param clock: gives the time in seconds since 1970.
    :param max_skew: seconds that a signature's date may be off, either way.
    """

    def __init__(
        self, keyring: Keyring, clock: Callable[[], float], max_skew: float, service: str = "ecr"
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._max_skew = timedelta(seconds=max_skew)
        self._service = service
        self._signing_keys: dict[tuple[str, str, str], bytes] = {}

    def open(self, method: str, raw_path: str, headers: CIMultiDictProxy[str]) -> Signed:
        """Check whatever can be checked before the body is there.

        :param raw_path: path and query as they stand in the request line.
        :raises ApiError: the request is not signed, not completely, or not by a known key.
        """
        claim = parse_authorization(headers)
        known = self._keyring.get(claim.access_key_id)
        if known is None:
            raise _unrecognized()
        key, policy = known
        self._check_scope(claim)
        amz_date = headers.get("X-Amz-Date", "")
        self._check_date(claim, amz_date)
        self._check_token(key, headers.get("X-Amz-Security-Token"))
        _check_signed_headers(claim, headers)
        claimed = headers.get("X-Amz-Content-SHA256")
        if claimed is not None and not _SHA256_HEX.fullmatch(claimed):
            raise _invalid("The value of X-Amz-Content-SHA256 is no SHA-256 of the payload.")
        return Signed(
            key=key,
            policy=policy,
            region=claim.region,
            claimed=claimed,
            _prefix=canonical_prefix(method, raw_path, headers, claim.signed_headers),
            _string_to_sign=f"{ALGORITHM}\n{amz_date}\n{claim.scope}",
            _signature=claim.signature,
            _signing_key=self._signing_key(key, claim),
        )

    def _check_scope(self, claim: Claim) -> None:
        if claim.service != self._service:
            raise _invalid(f"Credential should be scoped to correct service: '{self._service}'. ")
        if claim.terminator != _TERMINATOR:
            raise _invalid(
                f"Credential should be scoped with a valid terminator: '{_TERMINATOR}', not "
                f"'{claim.terminator}'."
            )
        if not REGION.fullmatch(claim.region):
            raise _invalid("Credential should be scoped to a valid region. ")

    def _check_date(self, claim: Claim, amz_date: str) -> None:
        try:
            date = datetime.strptime(amz_date, _DATE).replace(tzinfo=UTC)
        except ValueError as exc:
            raise _incomplete(
                f"Date must be in ISO-8601 'basic format'. Got '{amz_date}'. See "
                "http://en.wikipedia.org/wiki/ISO_8601"
            ) from exc
        if claim.date != amz_date[:8]:
            raise _invalid(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date "
                f"from HTTP: '{claim.date}' != '{amz_date[:8]}', from '{amz_date}'."
            )
        now = datetime.fromtimestamp(self._clock(), UTC)
        minutes = f"{self._max_skew.total_seconds() / 60:g} min."
        bound = now - self._max_skew
        if date < bound:
            raise _invalid(
                f"Signature expired: {amz_date} is now earlier than {bound.strftime(_DATE)} "
                f"({now.strftime(_DATE)} - {minutes})"
            )
        bound = now + self._max_skew
        if date > bound:
            raise _invalid(
                f"Signature not yet current: {amz_date} is still later than "
                f"{bound.strftime(_DATE)} ({now.strftime(_DATE)} + {minutes})"
            )

    def _check_token(self, key: Key, token: str | None) -> None:
        given, expected = _raw(token or ""), _raw(key.session_token or "")
        if not hmac.compare_digest(given, expected):
            raise _unrecognized()
        if key.expires is not None and self._clock() >= key.expires.timestamp():
            raise ApiError(
                "ExpiredTokenException", "The security token included in the request is expired"
            )

    def _signing_key(self, key: Key, claim: Claim) -> bytes:
        cached = (key.access_key_id, claim.date, claim.region)
        if cached not in self._signing_keys:
            # A key lives for a day and the Region is the caller's word: neither may pile up.
            if len(self._signing_keys) > 1000:
                self._signing_keys.clear()
            derived = f"AWS4{key.secret_access_key}".encode()
            for text in (claim.date, claim.region, claim.service, claim.terminator):
                derived = _hmac(derived, text)
            self._signing_keys[cached] = derived
        return self._signing_keys[cached]


def parse_authorization(headers: CIMultiDictProxy[str]) -> Claim:
    """Take the Authorization header apart.

    :raises ApiError: MissingAuthenticationTokenException or IncompleteSignatureException.
    """
    values = headers.getall("Authorization", [])
    if len(values) != 1 or not values[0].startswith("AWS4-"):
        raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token")
    algorithm, _, rest = values[0].partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{algorithm}'.")
    pairs = [part.strip().partition("=") for part in rest.split(",")]
    parts = {name: value for name, _, value in pairs if value}
    lacking = [n for n in ("Credential", "Signature", "SignedHeaders") if n not in parts]
    if lacking or len(pairs) != len(parts):
        raise _incomplete(
            " ".join(f"Authorization header requires '{name}' parameter." for name in lacking)
            or "Authorization header has an unknown or a repeated parameter."
        )
    scope = parts["Credential"].split("/")
    if len(scope) != 5:
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. "
            "keyid/date/region/service/term"
        )
    access_key_id, date, region, service, terminator = scope
    return Claim(
        access_key_id,
        date,
        region,
        service,
        terminator,
        signed_headers=tuple(parts["SignedHeaders"].split(";")),
        signature=parts["Signature"],
    )


def canonical_prefix(
    method: str, raw_path: str, headers: CIMultiDictProxy[str], signed: tuple[str, ...]
) -> str:
    """The canonical request up to, and without, the hash of the payload."""
    path, _, query = raw_path.partition("?")
    lines = [method, _canonical_path(path), _canonical_query(query)]
    for name in signed:
        values = (" ".join(value.split()) for value in headers.getall(name, []))
        lines.append(f"{name}:{','.join(values)}")
    return "\n".join([*lines, "", ";".join(signed)])


def _check_signed_headers(claim: Claim, headers: CIMultiDictProxy[str]) -> None:
    signed = claim.signed_headers
    if list(signed) != sorted({name.lower() for name in signed}):
        raise _incomplete("SignedHeaders must be sorted, in lower case and without repetition.")
    # Whatever is not signed could be exchanged on the way, so AWS wants all of its own headers in.
    required = {"host"} | {n.lower() for n in headers if n.lower().startswith("x-amz-")}
    for name in sorted(required - set(signed)):
        raise _invalid(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    for name in signed:
        if name not in headers:
            raise _invalid(_MISMATCH)


def _canonical_path(path: str) -> str:
    # Services other than S3 encode the path, which is encoded already, once more.
    return quote(path or "/", safe="/-_.~")


def _canonical_query(query: str) -> str:
    pairs = []
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        pairs.append(tuple(quote(unquote_to_bytes(x), safe="-_.~") for x in (name, value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, _raw(text), "sha256")


def _raw(text: str) -> bytes:
    # What was no UTF-8 on the wire stands in the header's text as surrogates.
    return text.encode("utf-8", "surrogateescape")


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidSignatureException", message)


def _incomplete(message: str) -> ApiError:
    return ApiError("IncompleteSignatureException", message)


def _unrecognized() -> ApiError:
    return ApiError(
        "UnrecognizedClientException", "The security token included in the request is invalid."
    )
