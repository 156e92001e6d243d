"""Read a published PyTorch checkpoint without running any code that is in it.

A ``.ckpt`` or ``.bin`` is a zip archive with one pickle (the structure) and raw storages (the numbers).
Unpickling normally lets the file call any importable function. Here the pickle may build tensors and plain
containers and nothing else: every other class or function it names becomes an inert :class:`StandIn` that
records what it was given and executes nothing. So a Lightning checkpoint full of foreign classes
(callbacks, OmegaConf configuration, optimizer state) loads without those packages and without risk.
"""

from __future__ import annotations

import collections
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from promptray.runtime.errors import BuildError

#: Storage classes a pickle may name, with the dtype of their elements.
_STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_PLAIN = {"dict": dict, "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "int": int,
          "long": int, "float": float, "bool": bool, "str": str, "complex": complex}  # fmt: skip
_LIMIT_PICKLE = 64 * 2**20


class StandIn:
    """Inert place-holder for a class or function named by a checkpoint.

    Attributes
    ----------
    name : str
        ``module.qualname`` as the pickle wrote it.
    state : object
        What the pickle would have handed to ``__setstate__``.
    """

    name = "?"
    state: Any = None

    # Arguments are taken by both, since a pickle may call the class or only its __new__; they are dropped.
    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:  # noqa: D102 - not called by people
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    # A pickle may fill list-like and dict-like objects item by item; what they held is of no use here.
    def append(self, value: Any) -> None:
        """Drop an item."""

    def extend(self, values: Any) -> None:
        """Drop items."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<stand-in for {self.name}>"


class _Storage:
    """One raw storage of the archive as a flat tensor."""

    def __init__(self, elements: torch.Tensor) -> None:
        self.elements = elements


def _stand_in(module: str, name: str) -> type[StandIn]:
    return type(name.rpartition(".")[2] or "StandIn", (StandIn,), {"name": f"{module}.{name}"})


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> torch.Tensor:
    """Rebuild a strided tensor, refusing one that reaches outside its storage."""
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise _broken("a tensor without a storage")
    if any(not isinstance(n, int) or n < 0 for n in (offset, *size, *stride)):
        raise _broken("a tensor with a negative size, stride or offset")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.elements.numel():
        raise _broken(f"a tensor of shape {tuple(size)} that is larger than its storage")
    return torch.as_strided(storage.elements, tuple(size), tuple(stride), offset)


def _rebuild_parameter(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    return tensor


_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; anything else becomes a stand-in."""

    def __init__(self, data: bytes, storage: Callable[[str, torch.dtype], _Storage]) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._storage = storage
        self._types: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _BUILDERS:
            return _BUILDERS[module, name]
        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return _PLAIN[name]
        if module in ("torch", "torch.storage") and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        return self._types.setdefault((module, name), _stand_in(module, name))

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == "storage"):
            raise _broken("an unknown kind of persistent object")
        _, dtype, key = pid[:3]
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise _broken(f"a storage of an unknown type ({dtype!r})")
        return self._storage(key, dtype)


def _broken(what: str) -> BuildError:
    return BuildError(
        "checkpoint.format",
        f"the checkpoint holds {what}",
        cure="get the file again from its publisher and compare its sha256",
    )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, read in blocks (checkpoints reach several GB)."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a zip-format PyTorch checkpoint with the restricted unpickler.

    Parameters
    ----------
    path : Path
        A file written by ``torch.save`` (torch >= 1.6).

    Returns
    -------
    dict
        The top-level mapping. Tensors are torch tensors on the CPU; objects of classes outside torch and
        the plain containers are :class:`StandIn`.

    Raises
    ------
    BuildError
        ``checkpoint.not-found``, or ``checkpoint.format`` when the file is no such archive, is damaged,
        or its top level is not a mapping.
    """
    if not path.is_file():
        raise BuildError(
            "checkpoint.not-found",
            "no such checkpoint file",
            artefact=path.name,
            cure="check the recipe's path",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            content = _unpickle(archive)
    except BuildError as error:
        raise BuildError(error.code, error.message, artefact=path.name, cure=error.cure) from None
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, OSError, *_PICKLE_FAULTS) as error:
        raise BuildError(
            "checkpoint.format",
            f"not a readable PyTorch checkpoint: {type(error).__name__}",
            artefact=path.name,
            expected="a zip archive written by torch.save (torch 1.6 or later)",
            cure="a file of an older torch must be saved again with a newer one",
        ) from error
    if not isinstance(content, dict):
        raise BuildError(
            "checkpoint.format",
            "the checkpoint's top level is not a mapping",
            artefact=path.name,
            expected="dict",
            found=type(content).__name__,
        )
    return content


# A hostile pickle reaches these through malformed opcodes; none of them means anything but "broken file".
_PICKLE_FAULTS = (AttributeError, ImportError, IndexError, KeyError, MemoryError, OverflowError,
                  RecursionError, TypeError, UnicodeDecodeError, ValueError)  # fmt: skip


def _unpickle(archive: zipfile.ZipFile) -> Any:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise _broken("no single data.pkl")
    root = names[0].removesuffix("data.pkl")
    if archive.getinfo(names[0]).file_size > _LIMIT_PICKLE:
        raise _broken(f"a pickle larger than {_LIMIT_PICKLE >> 20} MiB")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise _broken("big-endian storages")
    seen: dict[str, _Storage] = {}

    def storage(key: str, dtype: torch.dtype) -> _Storage:
        if key not in seen:
            info = archive.getinfo(f"{root}data/{key}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise _broken("a compressed storage")
            data = bytearray(archive.read(info))
            seen[key] = _Storage(torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype))
        return seen[key]

    return _RestrictedUnpickler(archive.read(names[0]), storage).load()


def plain(value: Any) -> Any:
    """Return configuration stand-ins (OmegaConf nodes) as plain containers, best effort.

    An OmegaConf node is pickled as a state dict with ``_content`` (containers) or ``_val`` (leaves).
    Anything unknown becomes None.
    """
    if isinstance(value, StandIn):
        state = value.state
        if isinstance(state, Mapping):
            if "_content" in state:
                return plain(state["_content"])
            return plain(state.get("_val"))
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else None


def tensors(mapping: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the (key, tensor) pairs of a state dict, leaving everything else out."""
    for key, value in mapping.items():
        if isinstance(key, str) and isinstance(value, torch.Tensor):
            yield key, value
