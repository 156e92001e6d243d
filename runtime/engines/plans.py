"""The payload of a set of engines: their plans in one safetensors file, read without a second copy.

A plan is a tensor of bytes named ``image`` or ``head.<name>``. Plans are large beside the memory of a small
device, so unpacking gives views of the content that was hashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.parse import strict_json

_LENGTH = 8  # bytes of the header's length, little-endian
_LARGEST_HEADER = 1 << 16


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Literal["U8"]
    shape: Annotated[list[int], Meta(min_length=1, max_length=1)]
    data_offsets: tuple[int, int]


def plan_name(role: str, head: str | None) -> str:
    """Return the name of a graph's plan."""
    return role if head is None else f"{role}.{head}"


def pack(plans: Mapping[str, bytes | memoryview]) -> bytes:
    """Return plans as the bytes of their file."""
    header, end = {}, 0
    for name, plan in plans.items():
        header[name] = _Tensor("U8", [len(plan)], (end, end + len(plan)))
        end += len(plan)
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % _LENGTH)
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *plans.values()])


def unpack(content: bytes) -> dict[str, memoryview]:
    """Return views of the plans in their file.

    Raises
    ------
    ValueError
        When it is not what :func:`pack` writes: another type, a hole, or bytes that belong to no plan.
    """
    length = int.from_bytes(content[:_LENGTH], "little")
    if not 0 < length <= min(_LARGEST_HEADER, len(content) - _LENGTH):
        raise ValueError("its header is longer than the file")
    body = memoryview(content)[_LENGTH + length :]
    header = msgspec.convert(strict_json(content[_LENGTH : _LENGTH + length]), dict[str, _Tensor])
    end = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1].data_offsets):
        first, last = tensor.data_offsets
        if first != end or last <= first or tensor.shape != [last - first]:
            raise ValueError(f"plan {name!r} is not where the one before it ends")
        end = last
    if end != len(body):
        raise ValueError(f"{len(body)} bytes of plans, and the header says {end}")
    return {name: body[slice(*tensor.data_offsets)] for name, tensor in header.items()}
