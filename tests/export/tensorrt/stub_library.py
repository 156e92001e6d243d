"""A shared library of a few functions that return 0, written byte by byte: no compiler is needed for it.

The real Python bindings of TensorRT load where such libraries stand for TensorRT's own, which cannot be
had everywhere. Source: System V ABI, edition 4.1, chapters 4 and 5 (ELF).
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence
from pathlib import Path

#: Machine number of ELF, and the code of a function that returns 0, padded to 16 bytes.
_MACHINES = {
    "x86_64": (62, b"\x31\xc0\xc3".ljust(16, b"\xcc")),  # xor eax, eax; ret
    "aarch64": (183, struct.pack("<II", 0xD2800000, 0xD65F03C0).ljust(16, b"\0")),  # mov x0, #0; ret
}
_PAGE = 0x10000  # the largest page of either
_HEADER, _PROGRAM_HEADER, _SYMBOL = 64, 56, 24
_LOAD, _DYNAMIC, _GNU_STACK = 1, 2, 0x6474E551
_HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME = 4, 5, 6, 10, 11, 14
_GLOBAL_FUNCTION = 0x12
_EXECUTE, _WRITE, _READ = 1, 2, 4


def write_stub_library(path: Path, functions: Sequence[str]) -> None:
    """Write a library for this machine that has these functions and the file's name as its own."""
    machine, code = _MACHINES[platform.machine()]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in (*functions, path.name))
    offset_of = {name: strings.index(b"\0" + name.encode() + b"\0") + 1 for name in (*functions, path.name)}
    text = _HEADER + 4 * _PROGRAM_HEADER
    symbols = text + len(code)
    table = bytes(_SYMBOL) + b"".join(
        struct.pack("<IBBHQQ", offset_of[name], _GLOBAL_FUNCTION, 0, 1, text, len(code)) for name in functions
    )
    # One bucket, whose chain runs through all symbols from the first to the last.
    count = len(functions) + 1
    chain = [0, *range(2, count), 0]
    hashes = symbols + len(table)
    lookup = struct.pack(f"<{3 + count}I", 1, count, 1, *chain)
    names = hashes + len(lookup)
    entries = {
        _HASH: hashes,
        _STRTAB: names,
        _SYMTAB: symbols,
        _STRSZ: len(strings),
        _SYMENT: _SYMBOL,
        _SONAME: offset_of[path.name],
    }
    dynamic = b"".join(struct.pack("<QQ", tag, value) for tag, value in entries.items()) + bytes(16)
    end = names + len(strings)
    at = -(-end // _PAGE) * _PAGE  # the loader writes into this part, so it has pages of its own
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, _HEADER, 0, 0, _HEADER, _PROGRAM_HEADER, 4, 64, 0, 0
    )
    segments = [
        (_LOAD, _READ | _EXECUTE, 0, end, _PAGE),
        (_LOAD, _READ | _WRITE, at, len(dynamic), _PAGE),
        (_DYNAMIC, _READ | _WRITE, at, len(dynamic), 8),
        (_GNU_STACK, _READ | _WRITE, 0, 0, 16),
    ]
    programs = b"".join(
        struct.pack("<IIQQQQQQ", kind, rights, place, place, place, size, size, align)
        for kind, rights, place, size, align in segments
    )
    content = header + programs + code + table + lookup + strings
    path.write_bytes(content.ljust(at, b"\0") + dynamic)
