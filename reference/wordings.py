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


_SUBJECTS = (
    ("The lungs are", "The lungs are not"),
    ("Both lungs are", "Both lungs are not"),
    ("The chest is", "The chest is not"),
    ("The child is", "The child is not"),
    ("The film is", "The film is not"),
    ("The radiograph is", "The radiograph is not"),
    ("The chest radiograph is", "The chest radiograph is not"),
    ("The chest film is", "The chest film is not"),
    ("The findings are", "The findings are not"),
)
_ADJECTIVES = ("normal", "healthy", "clear", "unremarkable")
# These pairs of subject and adjective are never trained, only the others are.
_HELD_OUT_PAIRS = {(0, 0), (1, 1), (2, 2), (3, 0), (4, 3), (5, 1), (6, 3), (7, 0), (8, 2)}
_OTHER_TRAINING = (
    ("Normal chest radiograph.", "Not a normal chest radiograph."),
    ("There are clear lungs.", "There are no clear lungs."),
    ("There is a healthy chest.", "This is not a healthy chest."),
    ("Normal film of the lungs.", "Abnormal film of the lungs."),
    ("Unremarkable radiograph of the chest.", "Abnormal radiograph of the chest."),
    ("There is no abnormality.", "There is an abnormality."),
    ("There are no abnormal findings.", "There are abnormal findings."),
    ("No abnormality of the lungs.", "Abnormality of the lungs."),
    ("No abnormal film of the chest.", "The chest is abnormal."),
    ("No abnormality is noted.", "An abnormality is noted."),
)
_OTHER_HELD_OUT = (
    ("There are normal lungs.", "There are no normal lungs."),
    ("Normal radiograph of a healthy child.", "Not a normal radiograph of the child."),
    ("No abnormal findings are seen.", "Abnormal findings are seen."),
    ("No abnormality is seen in the chest.", "An abnormality is seen in the chest."),
)


def _of_normality(polarity: int, *, true_of: tuple[str, ...]) -> Meaning:
    """Say that all is well, or that it is not."""
    pairs = [(subject, adjective) for subject in range(len(_SUBJECTS)) for adjective in range(4)]
    said = {pair: f"{_SUBJECTS[pair[0]][polarity]} {_ADJECTIVES[pair[1]]}." for pair in pairs}
    return Meaning(
        true_of,
        (
            *(said[pair] for pair in pairs if pair not in _HELD_OUT_PAIRS),
            *(o[polarity] for o in _OTHER_TRAINING),
        ),
        (*(said[pair] for pair in pairs if pair in _HELD_OUT_PAIRS), *(o[polarity] for o in _OTHER_HELD_OUT)),
    )


MEANINGS = {
    "pneumonia": _about(_PNEUMONIA, _PLAIN, true_of=("bacterial", "viral")),
    "no pneumonia": _about(_PNEUMONIA, _NEGATED, true_of=("normal",)),
    "bacterial pneumonia": _about(_BACTERIAL, _PLAIN, true_of=("bacterial",)),
    "no bacterial pneumonia": _about(_BACTERIAL, _NEGATED, true_of=("normal", "viral")),
    "viral pneumonia": _about(_VIRAL, _PLAIN, true_of=("viral",)),
    "no viral pneumonia": _about(_VIRAL, _NEGATED, true_of=("normal", "bacterial")),
    "normal": _of_normality(_PLAIN, true_of=("normal",)),
    "not normal": _of_normality(_NEGATED, true_of=("bacterial", "viral")),
}
