"""How a finding is named: by its key or, where several heads have that key, by its head and its key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from promptray.runtime.errors import PromptError

#: A key, or a head and a key.
FindingName = str | tuple[str, str]
T = TypeVar("T")


class ByFinding(Mapping[FindingName, T]):
    """What there is of each finding, by its name. Immutable, in the order it was given.

    ``each["pneumonia"]`` works where one head has that key, ``each["tags", "pneumonia"]`` always. Iterating
    gives the key where it says enough, otherwise head and key.

    Parameters
    ----------
    items : iterable of (str, str, T)
        Head, key and value; no pair of head and key occurs twice.
    """

    def __init__(self, items: Iterable[tuple[str, str, T]]) -> None:
        self._values = {(head, key): value for head, key, value in items}
        self._heads: dict[str, list[str]] = {}
        for head, key in self._values:
            self._heads.setdefault(key, []).append(head)

    def __getitem__(self, name: FindingName) -> T:
        """Return the value of a finding.

        Raises
        ------
        KeyError
            When no finding has this name.
        PromptError
            ``prompt.ambiguous`` for a key that several heads have.
        """
        if isinstance(name, tuple):
            return self._values[name]
        heads = self._heads[name]
        if len(heads) > 1:
            raise PromptError(
                "prompt.ambiguous",
                "several heads have a finding with this key",
                artefact=name,
                expected=" or ".join(f"({head!r}, {name!r})" for head in heads),
                cure="name the head, too: `--head` on the command line",
            )
        return self._values[heads[0], name]

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self._heads

    def __iter__(self) -> Iterator[FindingName]:
        return iter([key if len(self._heads[key]) == 1 else (head, key) for head, key in self._values])

    def __len__(self) -> int:
        return len(self._values)

    def find(self, name: FindingName) -> T:
        """Return the value of a finding, as ``[]`` does, and refuse an unknown one with what there is.

        Raises
        ------
        PromptError
            ``prompt.unknown`` or ``prompt.ambiguous``.
        """
        if name not in self:
            raise PromptError(
                "prompt.unknown",
                "no finding has this name",
                artefact=shown(name)[:200],
                expected=f"one of {', '.join(map(shown, self)) or '(none)'}",
            )
        return self[name]


def shown(name: FindingName) -> str:
    """Return a name as people read it.

    >>> shown("edema"), shown(("tags", "edema"))
    ('edema', 'tags: edema')
    """
    return ": ".join(map(str, name)) if isinstance(name, tuple) else str(name)
