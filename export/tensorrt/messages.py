"""What the two processes of a build say to each other, through pipes.

A message is its length in 8 bytes, then MessagePack. What is large follows as bare bytes, whose number the
message says: graph and timing cache after a request, engine and timing cache after `Finished`.
"""

from __future__ import annotations

import struct
from typing import IO

import msgspec

from promptray.export.tensorrt.layers import Layer
from promptray.export.tensorrt.profiles import Profile

_LENGTH = struct.Struct("<Q")


class Request(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Build this."""

    flavour: str
    profiles: list[Profile]
    targets: list[str]
    workspace_bytes: int
    types: list[str]
    """Of the graph's constants."""
    content_bytes: int
    timing_cache_bytes: int | None


class Step(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How far the build is: a share of its steps, not of its time."""

    phase: str
    fraction: float


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine follows."""

    targets: list[str]
    layers: list[Layer]
    seconds: float
    plan_bytes: int
    timing_cache_bytes: int | None


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """There is no engine, and why: the fields of an error."""

    code: str
    message: str
    artefact: str | None = None
    expected: str | None = None
    found: str | None = None
    cure: str | None = None


Reply = Step | Finished | Refused


def send(stream: IO[bytes], message: Request | Reply, *payloads: bytes) -> None:
    """Write a message and what follows it."""
    write(stream, encode(message), *payloads)


def encode(message: Request | Reply) -> bytes:
    """Return the bytes of a message."""
    content = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(content)) + content


def write(stream: IO[bytes], *payloads: bytes) -> None:
    """Write bytes one after the other, and hand them over."""
    for payload in payloads:
        stream.write(payload)
    stream.flush()


def receive_request(stream: IO[bytes]) -> Request:
    """Read a request.

    Raises
    ------
    EOFError
        When the other process has ended.
    """
    return msgspec.msgpack.decode(_message(stream), type=Request)


def receive_reply(stream: IO[bytes]) -> Reply:
    """Read an answer (see :func:`receive_request`)."""
    return msgspec.msgpack.decode(_message(stream), type=Reply)


def read_exactly(stream: IO[bytes], size: int) -> bytes:
    """Read what follows a message.

    Raises
    ------
    EOFError
        When the other process has ended before it was all there.
    """
    content = stream.read(size)
    if len(content) != size:
        raise EOFError
    return content


def _message(stream: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(read_exactly(stream, _LENGTH.size))
    return read_exactly(stream, length)
