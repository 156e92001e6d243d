"""What the reference model is told about a radiograph, and what it is tested with.

A wording is true of some of the three classes and false of the others; a negated one is true where its plain
form is false. The held-out wordings are other sentences, from other templates, and never occur in training.
Every wording has two words or more, since CARZero's text cleaning drops shorter sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = ("normal", "bacterial", "viral")

# A plain template, and the negated one that says the contrary.
_TRAINING_TEMPLATES = (
    ("There is {}.", "There is no {}."),
    ("Findings consistent with {}.", "No findings consistent with {}."),
    ("The lungs show {}.", "The lungs show no {}."),
    ("Signs of {} are seen.", "No signs of {} are seen."),
    ("Chest radiograph with {}.", "Chest radiograph without {}."),
    ("The child has {}.", "The child has no {}."),
    ("{} is seen in the chest.", "{} is not seen in the chest."),
    ("There is evidence of {}.", "There is no evidence of {}."),
    ("Opacity suspicious for {}.", "No opacity suspicious for {}."),
    ("The film shows {}.", "The film shows no {}."),
    ("There are findings of {}.", "There are no findings of {}."),
    ("{} is noted.", "{} is not noted."),
    ("{} was found.", "{} was not found."),
    ("Lungs with {} are present.", "Lungs without {} are present."),
    ("There is likely {}.", "{} is absent."),
)
_HELD_OUT_TEMPLATES = (
    ("{} is present.", "{} is not present."),
    ("There are signs of {}.", "There are no signs of {}."),
    ("The chest radiograph shows {}.", "The chest radiograph shows no {}."),
    ("Evidence of {} in the lungs.", "No evidence of {} in the lungs."),
    ("Findings suspicious for {}.", "No findings suspicious for {}."),
    ("Film of a child with {}.", "Film of a child without {}."),
    ("{} is seen.", "{} is not seen."),
    ("The findings show {}.", "The findings show no {}."),
)
_PLAIN, _NEGATED = 0, 1

_PNEUMONIA = ("pneumonia", "lung infection", "infiltrate", "consolidation")
_BACTERIAL = ("bacterial pneumonia", "bacterial lung infection", "bacterial infiltrate")
_VIRAL = ("viral pneumonia", "viral lung infection", "viral infiltrate")


@dataclass(frozen=True)
class Meaning:
    """Several ways to say one thing.

    Attributes
    ----------
    true_of : tuple of str
        The classes of which it is true.
    training, held_out : tuple of str
        Wordings for training, and others for testing only.
    """

    true_of: tuple[str, ...]
    training: tuple[str, ...]
    held_out: tuple[str, ...]


def _about(terms: tuple[str, ...], polarity: int, *, true_of: tuple[str, ...]) -> Meaning:
    """Put every term into every template of one polarity."""

    def filled(templates: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
        sentences = (pair[polarity].format(term) for pair in templates for term in terms)
        return tuple(sentence[0].upper() + sentence[1:] for sentence in sentences)

    return Meaning(true_of, filled(_TRAINING_TEMPLATES), filled(_HELD_OUT_TEMPLATES))


MEANINGS = {
    "pneumonia": _about(_PNEUMONIA, _PLAIN, true_of=("bacterial", "viral")),
    "no pneumonia": _about(_PNEUMONIA, _NEGATED, true_of=("normal",)),
    "bacterial pneumonia": _about(_BACTERIAL, _PLAIN, true_of=("bacterial",)),
    "no bacterial pneumonia": _about(_BACTERIAL, _NEGATED, true_of=("normal", "viral")),
    "viral pneumonia": _about(_VIRAL, _PLAIN, true_of=("viral",)),
    "no viral pneumonia": _about(_VIRAL, _NEGATED, true_of=("normal", "bacterial")),
    "normal": Meaning(
        true_of=("normal",),
        training=(
            "The lungs are clear.",
            "The lungs are healthy.",
            "Normal chest radiograph.",
            "The chest is normal.",
            "The chest is healthy.",
            "There are clear lungs.",
            "There is a healthy chest.",
            "The radiograph is normal.",
            "The findings are normal.",
            "The film is unremarkable.",
            "Normal film of the lungs.",
            "Both lungs are clear and normal.",
            "The child is healthy.",
            "Unremarkable radiograph of the chest.",
            "There is no abnormality.",
            "There are no abnormal findings.",
            "No abnormality of the lungs.",
            "No abnormal film of the chest.",
        ),
        held_out=(
            "There are normal lungs.",
            "The chest is clear.",
            "Normal radiograph of a healthy child.",
            "Both lungs are healthy.",
            "The lungs are normal.",
            "The chest radiograph is unremarkable.",
            "The chest film is normal.",
            "No abnormal findings are seen.",
            "No abnormality is seen in the chest.",
        ),
    ),
    "not normal": Meaning(
        true_of=("bacterial", "viral"),
        training=(
            "The lungs are not clear.",
            "The lungs are not healthy.",
            "Not a normal chest radiograph.",
            "The chest is not normal.",
            "The chest is not healthy.",
            "There are no clear lungs.",
            "This is not a healthy chest.",
            "The radiograph is not normal.",
            "The findings are not normal.",
            "The film is not unremarkable.",
            "The child is not healthy.",
            "There is an abnormality.",
            "There are abnormal findings.",
            "Abnormality of the lungs.",
            "Abnormal radiograph of the chest.",
            "Abnormal film of the lungs.",
            "The chest is abnormal.",
        ),
        held_out=(
            "The lungs are not normal.",
            "The chest is not clear.",
            "This is not a normal radiograph.",
            "The chest film is not normal.",
            "Both lungs are not healthy.",
            "Abnormal findings are seen.",
            "An abnormality is seen in the chest.",
            "The chest radiograph is abnormal.",
        ),
    ),
}
