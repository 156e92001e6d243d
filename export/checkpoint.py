"""Read a published PyTorch checkpoint without running any code that is in it.

A ``.ckpt`` or ``.bin`` is a zip archive with one pickle (the structure, see `restricted_pickle`) and raw
storages (the numbers). The file is mapped into memory, not copied: optimizer state, two thirds of many a
checkpoint, costs nothing. A safetensors file holds no code to begin with (see `safetensors_checkpoint`).
"""

from __future__ import annotations

import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from promptray.export.restricted_pickle import FAULTS, BrokenPickle, StandIn, Storage, load_pickle
from promptray.export.safetensors_checkpoint import is_safetensors, read_safetensors
from promptray.runtime.errors import BuildError

_LIMIT_PICKLE = 16 * 2**20
_LIMIT_DEPTH = 64
_AGAIN = "get the file again from its publisher and compare its sha256"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a zip-format PyTorch checkpoint with the restricted unpickler, or a safetensors file.

    Parameters
    ----------
    path : Path
        A file written by ``torch.save`` (torch >= 1.6), or in the safetensors format.

    Returns
    -------
    dict
        The top-level mapping. Tensors are torch tensors on the CPU, mapped from the file; objects of classes
        outside torch and the plain containers are `StandIn`. The texts of a safetensors file are a mapping
        of their own, under ``__metadata__``.

    Raises
    ------
    BuildError
        ``checkpoint.not-found``, or ``checkpoint.format`` when the file is neither, is damaged,
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
        if is_safetensors(path):
            return read_safetensors(path)
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            # A private mapping: torch wants memory it may write, and the file must stay as it is.
            content = _Archive(archive, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)).load()
    except BrokenPickle as error:
        raise BuildError(
            "checkpoint.format", f"the checkpoint holds {error}", artefact=path.name, cure=_AGAIN
        ) from None
    except (zipfile.BadZipFile, struct.error, OSError) as error:
        raise BuildError(
            "checkpoint.format",
            "not a readable PyTorch checkpoint",
            artefact=path.name,
            expected="a zip archive written by torch.save (torch 1.6 or later), or a safetensors file",
            found=_kind(path),
            cure=f"{_AGAIN}; a file of an older torch must be loaded and saved again with a newer one",
        ) from error
    except FAULTS as error:
        raise BuildError(
            "checkpoint.format",
            f"the checkpoint's structure cannot be read ({type(error).__name__})",
            artefact=path.name,
            cure=_AGAIN,
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BuildError(
            "checkpoint.format",
            "the checkpoint's top level is not a mapping of names",
            artefact=path.name,
            expected="dict",
            found=type(content).__name__,
            cure="save the model's state dict, or a dict that holds it, with torch.save",
        )
    return content


class _Archive:
    """The zip archive and its bytes; every entry is stored, not compressed, and its CRC is checked."""

    def __init__(self, archive: zipfile.ZipFile, data: mmap.mmap) -> None:
        self._entries = {info.filename: info for info in archive.infolist()}
        self._data = memoryview(data)
        self._storages: dict[str, tuple[Storage, torch.dtype]] = {}
        pickles = [info.filename for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise BrokenPickle("no single data.pkl, as torch.save writes it")
        self._pickle = pickles[0]
        self._root = self._pickle.removesuffix("data.pkl")

    def load(self) -> Any:
        """Return the top-level object."""
        if self._entries[self._pickle].file_size > _LIMIT_PICKLE:
            raise BrokenPickle(f"a pickle larger than {_LIMIT_PICKLE >> 20} MiB")
        order = f"{self._root}byteorder"
        if order in self._entries and bytes(self._bytes(order)) != b"little":
            raise BrokenPickle("big-endian storages")
        return load_pickle(bytes(self._bytes(self._pickle)), self._storage)

    def _storage(self, key: str, dtype: torch.dtype, elements: int) -> Storage:
        if key not in self._storages:
            data = self._bytes(f"{self._root}data/{key}")
            if len(data) != elements * dtype.itemsize:
                raise BrokenPickle(f"a storage of another length than it says ({key})")
            flat = torch.frombuffer(data, dtype=dtype) if elements else torch.empty(0, dtype=dtype)
            self._storages[key] = (Storage(flat), dtype)
        storage, known = self._storages[key]
        if dtype != known:
            raise BrokenPickle(f"a storage of two types ({key})")
        return storage

    def _bytes(self, name: str) -> memoryview:
        info = self._entries.get(name)
        if info is None:
            raise BrokenPickle(f"no entry {name.removeprefix(self._root)}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise BrokenPickle(f"a compressed or encrypted entry {name.removeprefix(self._root)}")
        # The local header repeats the name, and has an extra field of its own by which torch aligns the data.
        name_length, extra_length = struct.unpack_from("<26xHH", self._data, info.header_offset)
        start = info.header_offset + 30 + name_length + extra_length
        data = self._data[start : start + info.file_size]
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise BrokenPickle(f"a damaged entry {name.removeprefix(self._root)}")
        return data


def _kind(path: Path) -> str:
    """Name what the file seems to be instead."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        return "an empty file"
    if head[:1] == b"\x80":
        return "a bare pickle, as torch before 1.6 or pickle.dump writes it"
    return "a damaged or truncated zip archive" if head[:2] == b"PK" else "another kind of file"


def plain(value: Any) -> Any:
    """Return configuration stand-ins (OmegaConf nodes) as plain containers, best effort.

    An OmegaConf node is pickled as a state dict with ``_content`` (containers) or ``_val`` (leaves).
    Anything unknown becomes None, and so does what contains itself.
    """
    return _plain(value, {}, 0)


def _plain(value: Any, done: dict[int, Any], depth: int) -> Any:
    if isinstance(value, str | int | float | None):
        return value
    if id(value) in done or depth > _LIMIT_DEPTH:
        return done.get(id(value))
    done[id(value)] = None
    made: Any = None
    if isinstance(value, StandIn):
        state = value.state
        if isinstance(state, Mapping):
            made = _plain(state["_content"] if "_content" in state else state.get("_val"), done, depth + 1)
    elif isinstance(value, Mapping):
        made = {key: _plain(item, done, depth + 1) for key, item in value.items() if isinstance(key, str)}
    elif isinstance(value, list | tuple):
        made = [_plain(item, done, depth + 1) for item in value]
    done[id(value)] = made
    return made


def tensors(mapping: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the (key, tensor) pairs of a state dict, leaving everything else out; floats become float32."""
    for key, value in mapping.items():
        if isinstance(key, str) and isinstance(value, torch.Tensor):
            yield key, value.float() if value.is_floating_point() else value
