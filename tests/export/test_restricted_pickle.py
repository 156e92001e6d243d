"""Nothing that a checkpoint names is ever run."""

from __future__ import annotations

import copyreg
import functools
import importlib
import operator
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray.export.checkpoint import load_checkpoint, plain
from promptray.export.restricted_pickle import StandIn
from promptray.runtime.errors import BuildError
from tests.export.pickles import Call, StorageRef, dumps, load_or_code, tensor, write_archive


class WithState:
    """Its state names the file it writes when it is restored."""

    def __setstate__(self, state: str) -> None:
        Path(state).touch()


class Sequence(list):  # type: ignore[type-arg]
    """A list of a class of its own."""


class Table(dict):  # type: ignore[type-arg]
    """A mapping of a class of its own."""


class WithSetter:
    """Brings its own function for restoring it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (object, (), self.path, None, None, _touch)


def _touch(made: object, path: str) -> None:
    Path(path).touch()


def _inner(path: str) -> str:
    """A harmless looking file beside the sentinel, whose pickle is another attack."""
    inner = f"{path}.inner"
    Path(inner).write_bytes(pickle.dumps(Call(open, path, "w")))
    return inner


def _torch_load(path: str) -> Any:
    torch.save({"attack": Call(open, path, "w")}, f"{path}.pt")
    return Call(functools.partial(torch.load, f"{path}.pt", weights_only=False))


ATTACKS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda path: Call(os.system, f'{sys.executable} -c "open({path!r}, chr(119))"'),
    "subprocess": lambda path: Call(subprocess.check_call, [sys.executable, "-c", f"open({path!r}, 'w')"]),
    "open": lambda path: Call(open, path, "w"),
    "eval": lambda path: Call(eval, f"open({path!r}, 'w')"),
    "exec": lambda path: Call(exec, f"open({path!r}, 'w')"),
    "__import__ and getattr": lambda path: Call(
        Call(getattr, Call(__import__, "builtins"), "open"), path, "w"
    ),
    "importlib": lambda path: Call(Call(getattr, Call(importlib.import_module, "io"), "open"), path, "w"),
    "functools.partial": lambda path: Call(functools.partial(open, path, "w")),
    "operator.methodcaller": lambda path: Call(operator.methodcaller("touch"), Path(path)),
    "operator.attrgetter": lambda path: Call(
        Call(operator.attrgetter("open"), Call(__import__, "io")), path, "w"
    ),
    "map and list": lambda path: Call(list, Call(map, open, [path], ["w"])),
    "numpy": lambda path: Call(np.savetxt, path, [1.0]),
    "numpy.load": lambda path: Call(np.load, _inner(path), None, True),
    "torch.load": _torch_load,
    "pickle.loads": lambda path: Call(pickle.loads, pickle.dumps(Call(open, path, "w"))),
    "copyreg": lambda path: Call(copyreg._reconstructor, WithState, object, None, state=path),  # type: ignore[attr-defined]
    "__setstate__": lambda path: Call(object.__new__, WithState, state=path),
    "state setter": WithSetter,
}
PLACES: dict[str, Callable[[Any], Any]] = {
    "value": lambda attack: {"attack": attack},
    "deep inside": lambda attack: {"a": [{"b": ({"c": attack},)}]},
    "state of a foreign object": lambda attack: {"hyper_parameters": Call(WithState, state=attack)},
    "argument of a foreign class": lambda attack: {"callbacks": Call(WithState, attack)},
    "weight": lambda attack: {"state_dict": OrderedDict(weight=attack)},
    "size of a tensor": lambda attack: {"weight": tensor(StorageRef(), size=attack)},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_a_checkpoint_names_is_run(tmp_path: Path, attack: str) -> None:
    sentinel = tmp_path / "sentinel"
    payload = ATTACKS[attack](str(sentinel))
    pickle.loads(dumps(payload))
    assert sentinel.exists(), "the attack must work where it is not resisted"
    sentinel.unlink()

    for place in PLACES.values():
        path = write_archive(tmp_path / "model.ckpt", dumps({**place(payload), "epoch": 3}))
        outcome = load_or_code(path)
        if isinstance(outcome, dict):
            assert outcome["epoch"] == 3
            plain(outcome)
        else:
            assert outcome == "checkpoint.format"
        assert not sentinel.exists()


FUNCTION = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = dumps(StorageRef())[2:-1]
EMPTY_ORDERED = b"ccollections\nOrderedDict\n)R"
#: Opcodes that Python's own pickler never writes: (body, what the refusal says).
OPCODES: dict[str, tuple[bytes, str]] = {
    "state for a builder": (FUNCTION + dumps({"a": 1})[2:-1] + b"b", "a state for something that has none"),
    "attributes for a builder": (
        FUNCTION + dumps((None, {"_function": 1}))[2:-1] + b"b",
        "a state for something that has none",
    ),
    "state for a storage": (STORAGE + dumps({"elements": 1})[2:-1] + b"b", "a state for something"),
    "a call of a storage type": (b"ctorch\nFloatStorage\n)R", "cannot be read"),
    "a call of a stand-in's result": (b"cos\nsystem\n)R)R", "cannot be read"),
    "a memo number for 32 GB": (b"Nr" + struct.pack("<I", 2**31), "a memo number"),
    "a memo number as text": (b"Np9999999999\n", "a memo number"),
    "an extension code": (b"\x82\x01", "cannot be read"),
    "nothing on the stack": (b"0", "cannot be read"),
    "a length of 2**60": (b"\x8e" + struct.pack("<Q", 2**60), "cannot be read"),
    "no STOP": (b"N" * 100 + b"}", ""),
    "tensors without end": (STORAGE + b"\x8d" + struct.pack("<Q", 2**63), "cannot be read"),
    "foreign names without end": (
        b"".join(f"cm\n{n}\n0".encode() for n in range(10_001)) + b"}",
        "more than 10000 foreign names",
    ),
}


@pytest.mark.parametrize("case", OPCODES)
def test_hostile_opcodes_are_refused(tmp_path: Path, case: str) -> None:
    body, message = OPCODES[case]
    path = write_archive(tmp_path / "model.ckpt", b"\x80\x02" + body + b"." * (case != "no STOP"))
    with pytest.raises(BuildError, match=r"\[checkpoint\.format\]") as refusal:
        load_checkpoint(path)
    assert message in refusal.value.message


def test_an_attribute_cannot_hide_a_method_of_a_mapping(tmp_path: Path) -> None:
    mapping = Call(OrderedDict, [("weight", 1)], state={"items": "hidden", "_metadata": {}})
    content = load_checkpoint(write_archive(tmp_path / "model.ckpt", dumps({"state_dict": mapping})))
    assert list(content["state_dict"].items()) == [("weight", 1)]


def test_a_stand_in_shows_what_the_file_gave_it(tmp_path: Path) -> None:
    foreign = Call(WithState, 1, "two", state={"three": 3})
    content = load_checkpoint(write_archive(tmp_path / "model.ckpt", dumps({"callback": foreign})))
    found = content["callback"]
    assert isinstance(found, StandIn)
    assert found.name == f"{WithState.__module__}.WithState"
    assert (found.arguments, found.state) == ((1, "two"), {"three": 3})
    assert repr(found) == f"<stand-in for {found.name}>"


def test_foreign_lists_and_mappings_keep_their_items(tmp_path: Path) -> None:
    structure = dumps({"list": Sequence([5, 6]), "dict": Table(seven=8)})
    content = load_checkpoint(write_archive(tmp_path / "model.ckpt", structure))
    assert content["list"].items == {0: 5, 1: 6}
    assert content["dict"].items == {"seven": 8}
