"""Findings of which one is true must differ: a softmax over two alike halves what it should tell."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from promptray.runtime.errors import PromptError
from promptray.runtime.prompts import BankEntry


def require_alternatives(entries: Iterable[BankEntry]) -> None:
    """Refuse alternatives that the model cannot tell apart.

    Alike are wordings that are the same after cleaning, in whatever order, and those that became the same
    tensors: of an uncased vocabulary "Edema" and "edema" are one word, and a long text may differ only
    behind the context.

    Raises
    ------
    PromptError
        ``prompt.invalid``, naming the two findings.
    """
    known: dict[Hashable, str] = {}
    for entry in entries:
        cleaned = tuple(sorted(each.cleaned for each in entry.prompts))
        tensors = tuple((name, entry.tensors[name].tobytes()) for name in sorted(entry.tensors))
        for seen in filter(None, (cleaned, tensors)):  # a class has no wording
            other = known.setdefault(seen, entry.key)
            if other != entry.key:
                raise PromptError(
                    "prompt.invalid",
                    "two alternatives are the same to the model, so it cannot choose between them",
                    artefact=f"{other!r} and {entry.key!r}",
                    expected="different wordings after the model's text cleaning",
                    found="the same",
                    cure="word one of them differently, or leave it out",
                )
