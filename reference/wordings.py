"""What the reference model is told about a radiograph, and what it is tested with.

A wording is true of some of the three classes and false of the others; a negated one is true where its plain
form is false. The test wordings never occur in training: they say the same in other sentences. Every wording
has two words or more, since CARZero's text cleaning drops shorter sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = ("normal", "bacterial", "viral")


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


MEANINGS = {
    "pneumonia": Meaning(
        true_of=("bacterial", "viral"),
        training=(
            "There is pneumonia.",
            "Findings consistent with pneumonia.",
            "The lungs show pneumonia.",
            "Signs of pneumonia are seen.",
            "Chest radiograph with pneumonia.",
            "Pneumonia is seen in the lung.",
            "The child has pneumonia.",
            "There is infection of the lung.",
            "Findings of lung infection are present.",
            "There is an infiltrate in the lungs.",
            "Opacity suspicious for pneumonia.",
            "Evidence of consolidation or infiltrate is present.",
            "Consolidation is seen in the chest.",
            "There is opacity of the lungs.",
        ),
        held_out=(
            "Pneumonia is present.",
            "The chest radiograph shows pneumonia.",
            "There are signs of lung infection.",
            "Findings suspicious for pneumonia.",
            "Evidence of infection in the lungs.",
            "The child has an infiltrate.",
            "There is consolidation of the lung.",
            "Radiograph with opacity of the lung.",
        ),
    ),
    "no pneumonia": Meaning(
        true_of=("normal",),
        training=(
            "There is no pneumonia.",
            "No findings of pneumonia.",
            "The lungs show no pneumonia.",
            "No signs of pneumonia are seen.",
            "Chest radiograph without pneumonia.",
            "Pneumonia is not seen in the lung.",
            "The child has no pneumonia.",
            "There is no infection of the lung.",
            "No findings of lung infection are present.",
            "There is no infiltrate in the lungs.",
            "No opacity suspicious for pneumonia.",
            "No evidence of consolidation or infiltrate.",
            "Consolidation is not seen in the chest.",
            "The lungs are without opacity.",
        ),
        held_out=(
            "Pneumonia is not present.",
            "The chest radiograph shows no pneumonia.",
            "There are no signs of lung infection.",
            "No findings suspicious for pneumonia.",
            "No evidence of infection in the lungs.",
            "The child has no infiltrate.",
            "There is no consolidation of the lung.",
            "Radiograph without opacity of the lung.",
        ),
    ),
    "normal": Meaning(
        true_of=("normal",),
        training=(
            "The lungs are clear.",
            "Normal chest radiograph.",
            "The chest is normal.",
            "There are clear lungs.",
            "The radiograph is normal.",
            "Findings of a healthy chest.",
            "Both lungs are clear and normal.",
            "The child is healthy.",
            "There is no abnormality.",
            "No abnormal findings are seen.",
            "Unremarkable radiograph of the chest.",
        ),
        held_out=(
            "There are normal lungs.",
            "The chest is clear.",
            "Normal radiograph of a healthy child.",
            "Both lungs are healthy.",
            "There are no abnormal findings.",
            "The chest radiograph is unremarkable.",
            "No abnormality is seen in the chest.",
        ),
    ),
    "not normal": Meaning(
        true_of=("bacterial", "viral"),
        training=(
            "The lungs are not clear.",
            "The chest is not normal.",
            "The radiograph is not normal.",
            "This is not a healthy chest.",
            "The child is not healthy.",
            "There is an abnormality.",
            "Abnormal findings are seen.",
            "Abnormal radiograph of the chest.",
        ),
        held_out=(
            "The lungs are not normal.",
            "The chest is not clear.",
            "There are abnormal findings.",
            "This is not a normal chest radiograph.",
            "An abnormality is seen in the chest.",
        ),
    ),
    "bacterial pneumonia": Meaning(
        true_of=("bacterial",),
        training=(
            "There is bacterial pneumonia.",
            "Findings consistent with bacterial pneumonia.",
            "The lungs show bacterial pneumonia.",
            "Signs of bacterial infection are seen.",
            "Chest radiograph with bacterial pneumonia.",
            "The child has bacterial pneumonia.",
            "There is bacterial infection of the lung.",
            "Pneumonia caused by bacteria.",
            "Bacteria are the cause of the pneumonia.",
        ),
        held_out=(
            "Bacterial pneumonia is present.",
            "There are signs of bacterial pneumonia.",
            "Evidence of bacterial infection in the lungs.",
            "The infection is caused by bacteria.",
            "Radiograph with bacterial infection of the lung.",
        ),
    ),
    "viral pneumonia": Meaning(
        true_of=("viral",),
        training=(
            "There is viral pneumonia.",
            "Findings consistent with viral pneumonia.",
            "The lungs show viral pneumonia.",
            "Signs of viral infection are seen.",
            "Chest radiograph with viral pneumonia.",
            "The child has viral pneumonia.",
            "There is viral infection of the lung.",
            "Pneumonia caused by a virus.",
            "A virus is the cause of the pneumonia.",
        ),
        held_out=(
            "Viral pneumonia is present.",
            "There are signs of viral pneumonia.",
            "Evidence of viral infection in the lungs.",
            "The infection is caused by a virus.",
            "Radiograph with viral infection of the lung.",
        ),
    ),
    "no bacterial pneumonia": Meaning(
        true_of=("normal", "viral"),
        training=(
            "There is no bacterial pneumonia.",
            "No signs of bacterial infection are seen.",
            "The child has no bacterial pneumonia.",
            "The lungs show no bacterial infection.",
        ),
        held_out=("No evidence of bacterial pneumonia.", "Bacterial pneumonia is not present."),
    ),
    "no viral pneumonia": Meaning(
        true_of=("normal", "bacterial"),
        training=(
            "There is no viral pneumonia.",
            "No signs of viral infection are seen.",
            "The child has no viral pneumonia.",
            "The lungs show no viral infection.",
        ),
        held_out=("No evidence of viral pneumonia.", "Viral pneumonia is not present."),
    ),
}
