"""PTX, as much of it as the package's kernels use, executed with NumPy: all threads of a launch at once.

What is not known here raises, when the text is read: a kernel that uses more must teach it to this file, from
NVIDIA's document of the instruction set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Values = np.ndarray
_ENTRY = re.compile(r"\.visible \.entry (\w+)\(([^)]*)\)\s*\{([^}]*)\}")
_PARAMETER = re.compile(r"\.param \.u(32|64) (\w+)")
_REGISTERS = re.compile(r"\.reg \.(pred|b32|b64) %(\w+)<(\d+)>")
_HEADER = re.compile(r"\.version 6\.0\n\.target sm_70\n\.address_size 64\n")
_WIDTHS = {"pred": 1, "b32": 32, "b64": 64}
_SPECIAL = ("%ctaid.x", "%ntid.x", "%tid.x")


class Memory(Protocol):
    """What a kernel reads and writes: values at addresses of the device."""

    def gather(self, addresses: Values, dtype: np.dtype[Any]) -> Values: ...

    def scatter(self, addresses: Values, values: Values) -> None: ...


@dataclass(frozen=True)
class Instruction:
    name: str
    operands: tuple[str, ...]
    guard: str | None  # a register: it is done where that is 1 (@%p)


@dataclass(frozen=True)
class Function:
    """An entry: its parameters with their bits, its registers with theirs, its instructions."""

    parameters: Mapping[str, int]
    registers: Mapping[str, int]
    instructions: Sequence[Instruction]


def parse(text: str) -> dict[str, Function]:
    """Read PTX text.

    Raises
    ------
    NotImplementedError
        For anything that this interpreter does not know.
    """
    body = _HEADER.sub("", text, count=1)
    assert body != text, "another version or target"
    if rest := _ENTRY.sub("", body).strip():
        raise NotImplementedError(rest)
    return {name: _function(given, code) for name, given, code in _ENTRY.findall(body)}


def _function(given: str, code: str) -> Function:
    parameters = {}
    for line in filter(None, map(str.strip, given.split(","))):
        found = _PARAMETER.fullmatch(line)
        if not found:
            raise NotImplementedError(line)
        parameters[found[2]] = int(found[1])
    registers: dict[str, int] = {}
    instructions = []
    for line in filter(None, map(str.strip, code.split(";"))):
        if declared := _REGISTERS.fullmatch(line):
            registers |= {f"%{declared[2]}{place}": _WIDTHS[declared[1]] for place in range(int(declared[3]))}
        else:
            instructions.append(_instruction(line, registers))
    if instructions[-1] != Instruction("ret", (), None):
        raise NotImplementedError("a function that does not end in ret")
    return Function(parameters, registers, instructions)


def _instruction(line: str, registers: Mapping[str, int]) -> Instruction:
    found = re.fullmatch(r"(?:@(%p\d+) )?([\w.]+)(?: (.*))?", line)
    if not found or found[2] not in (*_OPERATIONS, "ret"):
        raise NotImplementedError(line)
    operands = tuple(map(str.strip, (found[3] or "").split(","))) if found[3] else ()
    for each in (found[1], *operands):
        name = (each or "").strip("[]")
        if name.startswith("%") and name not in registers and name not in _SPECIAL:
            raise NotImplementedError(f"{line}: no register {name}")
    return Instruction(found[2], operands, found[1])


class Run:
    """One launch."""

    def __init__(self, function: Function, arguments: Sequence[int], memory: Memory) -> None:
        self.function, self.memory = function, memory
        self.arguments = dict(zip(function.parameters, arguments, strict=True))

    def run(self, blocks: int, threads: int) -> None:
        """Run all threads, each instruction for all that are still there."""
        self.count = blocks * threads
        place = np.arange(self.count, dtype=np.uint64)
        self.registers: dict[str, Values] = {
            "%ctaid.x": place // threads, "%tid.x": place % threads, "%ntid.x": np.full_like(place, threads),
        }  # fmt: skip
        self.there = np.ones(self.count, bool)
        for each in self.function.instructions:
            if not self.there.any():
                return
            taking = self.there & self.registers[each.guard].astype(bool) if each.guard else self.there
            if each.name == "ret":
                self.there = self.there & ~taking
                continue
            assert each.guard is None, "only a return is guarded"
            _OPERATIONS[each.name](self, *each.operands)

    def value(self, operand: str, bits: int) -> Values:
        """A register's or constant's values, of the least bits."""
        if operand.startswith("%"):
            return self.registers[operand] & np.uint64((1 << bits) - 1)
        return np.full(self.count, int(operand, 0), np.uint64)

    def put(self, register: str, values: Values, bits: int) -> None:
        """Set a register; it is as wide as it was declared, or wider than what is put."""
        assert self.function.registers[register] >= bits, f"{register} is too narrow"
        self.registers[register] = values.astype(np.uint64) & np.uint64((1 << bits) - 1)

    def parameter(self, operand: str, bits: int) -> Values:
        name = operand.strip("[]")
        assert self.function.parameters[name] == bits, f"parameter {name} is of another size"
        return np.full(self.count, self.arguments[name], np.uint64)


def _load(bits: int) -> Callable[..., None]:
    def load(run: Run, to: str, place: str) -> None:
        found = np.zeros(run.count, np.uint64)
        addresses = run.value(place.strip("[]"), 64)[run.there]
        found[run.there] = run.memory.gather(addresses, np.dtype(f"u{bits // 8}"))
        run.put(to, found, bits)

    return load


def _store(run: Run, place: str, value: str) -> None:
    addresses = run.value(place.strip("[]"), 64)[run.there]
    run.memory.scatter(addresses, run.value(value, 32)[run.there].astype(np.uint32))


_OPERATIONS: dict[str, Callable[..., None]] = {
    "mov.u32": lambda run, to, one: run.put(to, run.value(one, 32), 32),
    "mad.lo.u32": lambda run, to, one, two, three: run.put(
        to, run.value(one, 32) * run.value(two, 32) + run.value(three, 32), 32
    ),
    "mul.wide.u32": lambda run, to, one, two: run.put(to, run.value(one, 32) * run.value(two, 32), 64),
    "add.u64": lambda run, to, one, two: run.put(to, run.value(one, 64) + run.value(two, 64), 64),
    "and.b32": lambda run, to, one, two: run.put(to, run.value(one, 32) & run.value(two, 32), 32),
    "setp.ge.u32": lambda run, to, one, two: run.put(to, run.value(one, 32) >= run.value(two, 32), 1),
    "setp.ne.u32": lambda run, to, one, two: run.put(to, run.value(one, 32) != run.value(two, 32), 1),
    "cvta.to.global.u64": lambda run, to, one: run.put(to, run.value(one, 64), 64),
    "ld.param.u32": lambda run, to, name: run.put(to, run.parameter(name, 32), 32),
    "ld.param.u64": lambda run, to, name: run.put(to, run.parameter(name, 64), 64),
    "ld.global.u32": _load(32),
    "ld.global.u16": _load(16),
    "st.global.u32": _store,
}
