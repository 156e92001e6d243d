"""The payload of a set of engines: a safetensors file of bytes, read without a copy, refused when changed."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy

from promptray.runtime.engines.plans import pack, plan_name, unpack

PLANS = {"image": bytes(range(200)), "head.chest": b"\x00" * 33, "head.tags": b"plan"}


def test_what_is_packed_is_unpacked_as_views_of_the_content() -> None:
    content = pack(PLANS)
    plans = unpack(content)
    assert {name: bytes(plan) for name, plan in plans.items()} == PLANS
    assert all(isinstance(plan, memoryview) and plan.obj is content for plan in plans.values())


def test_it_is_a_safetensors_file() -> None:
    read = safetensors.numpy.load(pack(PLANS))
    assert {name: plan.tobytes() for name, plan in read.items()} == PLANS
    tensors = {name: np.frombuffer(plan, np.uint8) for name, plan in PLANS.items()}
    plans = unpack(bytes(safetensors.numpy.save(tensors)))
    assert {name: bytes(plan) for name, plan in plans.items()} == PLANS


def test_a_plan_is_named_by_its_role_and_head() -> None:
    assert plan_name("image", None) == "image"
    assert plan_name("head", "chest") == "head.chest"


def file_of(header: object, body: bytes = b"x" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def plan(first: int, last: int, **changes: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [last - first], "data_offsets": [first, last], **changes}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 20,
        file_of(b"no json"),
        file_of({"image": plan(0, 8)}, b"x" * 7),
        file_of({"image": plan(0, 8)}, b"x" * 9),
        file_of({"image": plan(1, 8)}),
        file_of({"image": plan(0, 5), "head.a": plan(4, 8)}),
        file_of({"image": plan(0, 3), "head.a": plan(4, 8)}),
        file_of({"image": plan(0, 8, shape=[2, 4])}),
        file_of({"image": plan(0, 8, dtype="F32")}),
        file_of({"image": plan(0, 8, more=1)}),
        file_of({"image": plan(8, 0)}),
        file_of(b'{"image": {"dtype":"U8","shape":[8],"data_offsets":[0,8]}, '
                b'"image": {"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'),
        (1 << 40).to_bytes(8, "little") + b"{}",
    ],
    ids=lambda content: repr(content[:40]),
)  # fmt: skip
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(content)


@pytest.mark.parametrize("cut", [lambda raw: raw[:-1], lambda raw: raw + b"\0", lambda raw: raw[1:]])
def test_another_length_is_refused(cut: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(cut(pack(PLANS)))
