"""Write the text form of protocol buffers, as far as Triton's ``config.pbtxt`` needs it.

A message is a mapping of field names to values; a list repeats its field. Triton's own classes would need its
client library, which nothing else here does; a test parses what is written with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias


class Word(str):
    """The name of an enumeration's value, which is written without quotes."""

    __slots__ = ()


Value: TypeAlias = "str | int | bool | Sequence[Value] | Mapping[str, Value]"
Message = Mapping[str, Value]


def to_pbtxt(message: Message) -> str:
    """Return a message as text, one field a line.

    Parameters
    ----------
    message : mapping of str to value
        Text, a :class:`Word`, a whole number, a truth value, another message, or a sequence of them.

    Examples
    --------
    >>> print(to_pbtxt({"name": "a", "input": [{"data_type": Word("TYPE_FP32"), "dims": [3, 224]}]}), end="")
    name: "a"
    input {
      data_type: TYPE_FP32
      dims: 3
      dims: 224
    }
    """
    return "".join(f"{line}\n" for line in _lines(message, ""))


def mapping(entries: Mapping[str, Value]) -> list[Message]:
    """Return the value of a field of type ``map``: a message of key and value for each entry."""
    return [{"key": key, "value": value} for key, value in entries.items()]


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, str)
        for each in value if repeated else [value]:  # type: ignore[union-attr]
            if isinstance(each, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(each, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(each)}"


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Word | int):
        return str(value)
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value.encode()))}"'
    raise TypeError(f"{type(value).__name__} is no value of a field")


def _escaped(byte: int) -> str:
    """Write a byte of UTF-8 so that every reader of C's escapes gets it back."""
    return chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}"
