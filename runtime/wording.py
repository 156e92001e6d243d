"""The wordings of a finding: what was asked for, what of it reached the model, and which a head can score."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from promptray.runtime.errors import PromptError


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


def require_wordings(
    ensemble: str, relation: str, key: str, prompts: Sequence[str], negative_prompts: Sequence[str]
) -> None:
    """Refuse wordings that a head cannot score.

    Raises
    ------
    PromptError
        ``prompt.invalid``: none, several where the model takes one, a negative one where findings have
        none or none where they need it, or the same on both sides.
    """
    if not prompts:
        raise invalid_wordings(key, "a finding needs a prompt", "at least one wording", "none")
    if ensemble == "none" and len(prompts) + len(negative_prompts) != 1:
        raise invalid_wordings(
            key, "this model scores one wording for each finding", "one prompt", str(len(prompts))
        )
    if (relation == "pair") != bool(negative_prompts):
        if relation == "pair":
            raise invalid_wordings(
                key, "this head asks each finding against its negative", "a negative prompt", "none"
            )
        raise invalid_wordings(
            key, "only a head of pairs takes negative prompts", "none", str(len(negative_prompts))
        )
    if negative_prompts and set(prompts) == set(negative_prompts):
        raise invalid_wordings(
            key, "the prompt and its negative are the same", "different wordings", "the same"
        )


def invalid_wordings(key: str, message: str, expected: str, found: str) -> PromptError:
    """Return the refusal of a finding's wordings."""
    return PromptError("prompt.invalid", message, artefact=key, expected=expected, found=found)
