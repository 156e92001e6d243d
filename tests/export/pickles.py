"""Write checkpoints as torch.save does, and checkpoints as an attacker would."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from promptray.export.checkpoint import load_checkpoint
from promptray.runtime.errors import BuildError


class Call:
    """Pickles as "call this with these arguments, then hand the result this state"."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced

    def __call__(self) -> None:
        """The pickler wants every function it writes to be callable."""


class StorageRef:
    """Pickles as a reference to a storage of the archive."""

    def __init__(self, key: str = "0", count: int = 4, kind: Any = torch.FloatStorage) -> None:
        self.id = ("storage", kind, key, "cpu", count)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, StorageRef) else None


def dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def tensor(storage: Any, offset: Any = 0, size: Any = (4,), stride: Any = (1,), state: Any = None) -> Call:
    """A tensor of a storage, with whatever geometry."""
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage, offset, size, stride, False, {}, state=state)


FOUR = {"0": torch.arange(4.0).numpy().tobytes()}


def load_or_code(path: Path) -> dict[str, Any] | str:
    """Load a checkpoint, or return the code by which it was refused."""
    try:
        return load_checkpoint(path)
    except BuildError as error:
        return error.code


def write_archive(
    path: Path,
    structure: bytes,
    storages: Mapping[str, bytes] = FOUR,
    *,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a checkpoint with this pickle and these storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", structure)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path
