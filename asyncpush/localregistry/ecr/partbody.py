"""Reads the body of UploadLayerPart as it arrives: the blob decoded at once, the rest kept."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

import pybase64

from asyncpush.localregistry.errors import constraint, serialization
from asyncpush.localregistry.params import load_object

_BLOB = "layerPartBlob"
_MAX_REST = 64 * 1024
"""Bytes that the other members of the body may take; they need a few hundred."""

_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_OPEN_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")


class PartBody:
    """An incremental reader of one JSON object that has a large base64 text in ``layerPartBlob``.

    It finds that text whatever the order of the members and the white space, hands out its bytes
    decoded as they come, and keeps the rest of the document, which is small, to be parsed as
    ordinary JSON. It holds no more than the piece that it is fed.

    :param max_blob: bytes that the blob may have once decoded.
    """

    def __init__(self, max_blob: int) -> None:
        self.decoded = 0
        self.blob_started = False
        self._max_blob = max_blob
        self._rest = bytearray()
        self._finder = _BlobFinder()
        self._in_blob = False
        self._escape = b""
        self._quantum = b""
        self._padded = False
        self._placeholder = secrets.token_hex(16)

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next piece of the body.

        :return: bytes of the layer that it holds, in order.
        :raises ApiError: it cannot be a call of UploadLayerPart.
        """
        if not self.blob_started:
            start = self._finder.find(piece[: _MAX_REST + 1])
            if start is None:
                self._keep(piece)
                return []
            self._keep(piece[:start])
            self._keep(self._placeholder.encode())
            self.blob_started = self._in_blob = True
            piece = piece[start:]
        if not self._in_blob:
            self._keep(piece)
            return []
        end = piece.find(b'"')
        if end < 0:
            return self._decode(piece)
        # A quote behind a backslash would go on, but no base64 text has one: decoding refuses it.
        decoded = self._decode(piece[:end])
        if self._escape or self._quantum:
            raise _no_base64()
        self._in_blob = False
        self._keep(piece[end:])
        return decoded

    def members_so_far(self) -> dict[str, Any]:
        """The members that came before the blob; only sensible once ``blob_started``.

        :raises ApiError: SerializationException.
        """
        end = self._rest.index(self._placeholder.encode()) + len(self._placeholder)
        return self._parse(bytes(self._rest[:end]) + b'"}')

    def finish(self) -> dict[str, Any]:
        """All members of the body but the blob, once it has ended.

        :raises ApiError: SerializationException; InvalidParameterException if there is no blob.
        """
        if self._in_blob:
            raise serialization("Unexpected end-of-input in a String value")
        return self._parse(bytes(self._rest))

    def _parse(self, text: bytes) -> dict[str, Any]:
        members = load_object(text)
        blob = members.pop(_BLOB, None)
        if blob is None:
            raise constraint(_BLOB, "Member must not be null")
        if blob != self._placeholder:
            raise serialization(f"{_BLOB} is no String")
        return members

    def _keep(self, piece: bytes) -> None:
        if len(self._rest) + len(piece) > _MAX_REST:
            raise serialization(f"The members beside {_BLOB} are too large")
        self._rest += piece

    def _decode(self, text: bytes) -> list[bytes]:
        if self._escape or b"\\" in text:
            text = self._unescape(text)
        decoded = []
        begin = 0
        if self._quantum:
            begin = 4 - len(self._quantum)
            self._quantum += text[:begin]
            if len(self._quantum) < 4:
                return []
            decoded.append(self._decode_whole(self._quantum))
        end = len(text) - (len(text) - begin) % 4
        if end > begin:
            decoded.append(self._decode_whole(memoryview(text)[begin:end]))
        self._quantum = text[end:]
        return decoded

    def _decode_whole(self, text: bytes | memoryview) -> bytes:
        if self._padded:
            raise _no_base64()
        try:
            data = pybase64.b64decode(text, validate=True)
        except ValueError as exc:
            raise _no_base64() from exc
        self._padded = len(data) != len(text) // 4 * 3
        self.decoded += len(data)
        if self.decoded > self._max_blob:
            raise constraint(_BLOB, f"must have length less than or equal to {self._max_blob}")
        return data

    def _unescape(self, text: bytes) -> bytes:
        text = self._escape + text
        open_escape = _OPEN_ESCAPE.search(_paired(text))
        self._escape = b""
        if open_escape:
            self._escape = text[open_escape.start() :]
            text = text[: open_escape.start()]
        return _ESCAPE.sub(_unescaped, text)


class _BlobFinder:
    """Finds where the text of the member ``layerPartBlob`` begins, following JSON's structure."""

    def __init__(self) -> None:
        self._depth = 0
        self._text: bytearray | None = None
        self._escaped = False
        self._key = ""
        self._at_value = False

    def find(self, piece: bytes) -> int | None:
        """The offset in this piece of the blob's first character, if it begins here."""
        for offset, byte in enumerate(piece):
            if self._text is not None:
                self._read_text(byte)
            elif byte == 0x22:
                if self._at_value and self._depth == 1 and self._key == _BLOB:
                    return offset + 1
                self._text = bytearray()
            else:
                self._read_structure(byte)
        return None

    def _read_text(self, byte: int) -> None:
        assert self._text is not None
        if self._escaped:
            self._escaped = False
        elif byte == 0x5C:
            self._escaped = True
        elif byte == 0x22:
            if self._depth == 1 and not self._at_value:
                self._key = _load_text(bytes(self._text))
            self._text = None
            return
        self._text.append(byte)
        if len(self._text) > _MAX_REST:
            raise serialization(f"The members beside {_BLOB} are too large")

    def _read_structure(self, byte: int) -> None:
        if byte in b"{[":
            self._depth += 1
        elif byte in b"}]":
            self._depth -= 1
        elif self._depth == 1 and byte in b":,":
            self._at_value = byte == 0x3A


def _load_text(text: bytes) -> str:
    try:
        return str(json.loads(b'"' + text + b'"'))
    except ValueError as exc:
        raise serialization("Could not parse a member name of the request body") from exc


def _paired(text: bytes) -> bytes:
    # Two backslashes are one, escaped; they must not be taken for the start of an escape.
    return text.replace(b"\\\\", b"  ")


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        code = int(found[1], 16)
        return bytes([code]) if code < 0x80 else b"\xff"
    # Of JSON's short escapes only the solidus stands for a character of base64.
    return b"/" if found[2] == b"/" else b"\xff"


def _no_base64() -> Exception:
    return serialization(f"{_BLOB} is no base64 text")
