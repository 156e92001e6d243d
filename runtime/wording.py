"""One wording of a finding: what was asked for, and what of it reached the model."""

from __future__ import annotations

import msgspec


class Wording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt as given and as encoded; the bank's file holds it in these words.

    Attributes
    ----------
    text : str
        As given.
    cleaned : str
        What the model's cleaning rule left of it.
    words : int
        Words that reached the model.
    truncated : bool
        True when it was longer than the model's context.
    """

    text: str
    cleaned: str
    words: int
    truncated: bool
