"""The kinds of fields a manifest is made of."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Text = Annotated[str, Meta(min_length=1)]
# A lone "$" also matches before a final line feed, hence (?!\n) and the length.
Key = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f/\\][^\x00-\x1f/\\]*(?!\n)$")]
#: In names of files and of golden tensors, so of the plainest characters.
HeadName = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
Sha256 = Annotated[str, Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}$")]
#: A backend, ``onnxruntime-cpu``, or a backend on a class of machines, ``onnxruntime-cpu@x86_64-avx512vnni``.
Consumer = Annotated[
    str, Meta(min_length=1, max_length=80, pattern=r"^[a-z0-9][a-z0-9_-]*(@[a-z0-9][a-z0-9_-]*)?(?!\n)$")
]
Count = Annotated[int, Meta(ge=0)]
Side = Annotated[int, Meta(ge=1, le=16384)]
