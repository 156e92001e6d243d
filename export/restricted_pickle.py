"""Unpickle the structure of a PyTorch checkpoint without running anything that it names.

Unpickling normally lets a file call any importable function. Here the pickle may build tensors and plain
containers and nothing else: every other class or function it names becomes an inert :class:`StandIn` that
records what it was given and executes nothing. So a Lightning checkpoint full of foreign classes
(callbacks, OmegaConf configuration, optimizer state) loads without those packages and without risk.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import torch

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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_PLAIN = {"dict": dict, "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "int": int,
          "long": int, "float": float, "bool": bool, "str": str, "complex": complex}  # fmt: skip
_FOREIGN_NAMES = 10_000
#: A tensor may repeat its storage (stride 0) up to this many elements; no published weight does.
_REPEATED = 1 << 20

#: What malformed or hostile opcodes reach; none of these means anything but "broken file".
FAULTS = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, MemoryError,
          OverflowError, RecursionError, RuntimeError, TypeError, ValueError)  # fmt: skip


class BrokenPickle(pickle.UnpicklingError):
    """What is wrong with the pickle, in words that complete "the checkpoint holds ..."."""


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
    arguments: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        """Take any arguments, for whichever way the pickle makes its objects."""
        self = super().__new__(cls)
        self.arguments, self.state, self.items = args, None, {}
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, value: Any) -> None:
        """Be filled as a list is."""
        self.items[len(self.items)] = value

    def extend(self, values: Any) -> None:
        """Be filled as a list is."""
        for value in values:
            self.append(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<stand-in for {self.name}>"


class _Fixed:
    """Base of what a pickle may use and not change."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise BrokenPickle("a state for something that has none")


class Storage(_Fixed):
    """One raw storage of the archive as a flat tensor."""

    __slots__ = ("elements",)

    def __init__(self, elements: torch.Tensor) -> None:
        self.elements = elements


class _Builder(_Fixed):
    """A function that the pickle may call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


def _refuse_state(state: Any) -> None:
    raise BrokenPickle("a tensor with a state of its own")


class _RestrictedUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; anything else becomes a stand-in."""

    def __init__(self, data: bytes, storage: Callable[[str, torch.dtype, int], Storage]) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._storage = storage
        self._types: dict[tuple[str, str], type[StandIn]] = {}
        self._tensors: list[torch.Tensor] = []
        self._ordered: list[collections.OrderedDict[Any, Any]] = []
        self._builders = {
            ("torch._utils", "_rebuild_tensor_v2"): _Builder(self._tensor),
            ("torch._utils", "_rebuild_tensor"): _Builder(self._tensor),
            ("torch._utils", "_rebuild_parameter"): _Builder(_parameter),
            ("torch._utils", "_rebuild_parameter_with_state"): _Builder(_parameter),
            ("collections", "OrderedDict"): _Builder(self._ordered_dict),
            ("torch", "Size"): _Builder(tuple),
        }

    def load(self) -> Any:
        content = super().load()
        for tensor in self._tensors:
            del tensor.__setstate__
        for mapping in self._ordered:  # torch attaches `_metadata`; a pickle could hide `items` behind one
            vars(mapping).clear()
        return content

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._builders:
            return self._builders[module, name]
        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return _PLAIN[name]
        if module in ("torch", "torch.storage") and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if (module, name) not in self._types:
            if len(self._types) == _FOREIGN_NAMES:
                raise BrokenPickle(f"more than {_FOREIGN_NAMES} foreign names")
            self._types[module, name] = _stand_in(module, name)
        return self._types[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise BrokenPickle("an unknown kind of persistent object")
        _, dtype, key, _, count = pid[:5]
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or not isinstance(count, int):
            raise BrokenPickle("a storage of an unknown type")
        return self._storage(key, dtype, count)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
        tensor = _strided(storage, offset, size, stride)
        # The pickle could replace the numbers through Tensor.__setstate__; this hides it until the end.
        tensor.__setstate__ = _refuse_state  # type: ignore[method-assign]
        self._tensors.append(tensor)
        return tensor

    def _ordered_dict(self, *items: Any) -> collections.OrderedDict[Any, Any]:
        mapping = collections.OrderedDict(*items)
        self._ordered.append(mapping)
        return mapping


def _strided(storage: Any, offset: Any, size: Any, stride: Any) -> torch.Tensor:
    """Rebuild a strided tensor, refusing one that reaches outside its storage."""
    if not isinstance(storage, Storage) or len(size) != len(stride):
        raise BrokenPickle("a tensor without a storage")
    if any(not isinstance(n, int) or n < 0 for n in (offset, *size, *stride)):
        raise BrokenPickle("a tensor with a negative size, stride or offset")
    there = storage.elements.numel()
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= there:
        raise BrokenPickle(f"a tensor of shape {tuple(size)} that is larger than its storage")
    if math.prod(size) > max(there, _REPEATED):
        raise BrokenPickle(f"a tensor of shape {tuple(size)} that repeats its storage without end")
    return torch.as_strided(storage.elements, tuple(size), tuple(stride), offset)


def _parameter(tensor: Any, *_: Any) -> torch.Tensor:
    if not isinstance(tensor, torch.Tensor):
        raise BrokenPickle("a parameter that is no tensor")
    return tensor


def _stand_in(module: str, name: str) -> type[StandIn]:
    return type(name.rpartition(".")[2] or "StandIn", (StandIn,), {"name": f"{module}.{name}"})


def _require_sane(data: bytes) -> None:
    """Refuse memo numbers beyond what the pickle could use: the unpickler would allocate that many slots."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise BrokenPickle("a memo number out of all proportion")


def load_pickle(data: bytes, storage: Callable[[str, torch.dtype, int], Storage]) -> Any:
    """Load a pickle into tensors, plain containers and stand-ins.

    Parameters
    ----------
    data : bytes
        The pickle.
    storage : callable
        ``storage(key, dtype, elements)`` returns a storage of the archive.

    Raises
    ------
    Exception
        One of :data:`FAULTS`; :class:`BrokenPickle` says what is wrong in words.
    """
    _require_sane(data)
    return _RestrictedUnpickler(data, storage).load()
