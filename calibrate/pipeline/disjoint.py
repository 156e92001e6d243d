"""A changed model is gated on pictures, and patients, that did not make it."""

from __future__ import annotations

from collections.abc import Mapping

from promptray.calibrate.adapt.units import units_of
from promptray.calibrate.image_set import ImageSet, numbered
from promptray.runtime.errors import BuildError


def require_disjoint(gate: ImageSet, made_with: Mapping[str, ImageSet], artefact: str) -> list[str]:
    """Refuse a gate that shares a picture or a patient with images that the model was made with.

    Images of one patient resemble each other, so a model agrees better on patients it has met. Copies of a
    picture are of one patient, whatever ids stand beside them and in whichever section.

    Parameters
    ----------
    gate : ImageSet
    made_with : mapping of str to ImageSet
        What was done with them (``"distilled"``) -> the images.
    artefact : str
        Base name of the recipe.

    Returns
    -------
    list of str
        What could not be checked, for the reports.

    Raises
    ------
    BuildError
        ``gate.images``, with counts.
    """
    sets = [gate, *made_with.values()]
    pictures = [picture for each in sets for picture in each.sha256s]
    hashes = [patient for each in sets for patient in each.patient_hashes]
    units = units_of(len(pictures), {"patient": numbered(hashes)}, pictures).tolist()
    own = set(units[: len(gate.rows)])
    notes, first = [], len(gate.rows)
    for verb, other in made_with.items():
        both = own & set(units[first : first + len(other.rows)])
        first += len(other.rows)
        if both:
            raise _shared(gate, other, verb, f"{len(both)} of {len(own)} patients", artefact)
        nameless = [each.section for each in (gate, other) if not each.patients_known]
        if nameless:
            notes.append(
                f"Whether patients of '{other.section}' are among those of the gate was not checked: "
                f"no patients are named for {' and '.join(nameless)}."
            )
    return notes


def _shared(gate: ImageSet, other: ImageSet, verb: str, patients: str, artefact: str) -> BuildError:
    pictures = set(gate.sha256s) & set(other.sha256s)
    what = "images" if pictures else "patients"
    found = f"{len(pictures)} of {len(set(gate.sha256s))} pictures, as the network sees them"
    return BuildError(
        "gate.images",
        f"{what} that the model is {verb} with are among those it is gated on",
        artefact=f"{artefact}, key gate.images",
        expected="no picture and no patient in both sections",
        found=f"{found}; {patients}" if gate.patients_known and other.patients_known else found,
        cure="take images of other patients for the gate",
    )
