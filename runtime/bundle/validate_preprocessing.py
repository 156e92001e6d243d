"""Rules of preprocessing that span its steps: it ends at the network's size, whatever the image."""

from __future__ import annotations

import math

from promptray.runtime.bundle.image_rules import (
    WHOLE_LEVELS,
    CentreCrop,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    ResizeShorterSide,
    Squash,
)
from promptray.runtime.bundle.refusal import refuse

RESIZES = (ResizeLongerSide, ResizeShorterSide, Squash)
#: Pixels a side: beyond what any network of radiographs reads, and its float32 picture is 200 MB.
LARGEST_NETWORK = 4096


def check_preprocessing(rule: Preprocessing) -> None:
    """Refuse (``bundle.format``) steps that do not make the network's input of every image."""
    side: int | None = None  # known once the picture is square whatever the image
    shortest: int | None = None  # no side is smaller, once that is sure
    longest: int | None = None  # no side is larger, once that is sure
    for index, step in enumerate(rule.steps):
        where = f"$.preprocessing.steps[{index}]"
        if step.size > LARGEST_NETWORK:
            refuse(where, f"makes a picture larger than {LARGEST_NETWORK} a side", str(step.size))
        match step:
            case ResizeLongerSide():
                side, shortest, longest = None, None, step.size
            case ResizeShorterSide():
                side, shortest, longest = None, step.size, None
            case Squash():
                side = shortest = longest = step.size
            case PadSquare():
                if longest is None or longest > step.size:
                    refuse(where, "pads a picture that may be larger than the result")
                side = shortest = longest = step.size
            case CentreCrop():
                if shortest is None or shortest < step.size:
                    refuse(where, "does not cut a square out of a picture that is surely as large")
                side = shortest = longest = step.size
    if rule.colour == "rgb" and rule.channels != 3:
        refuse("$.preprocessing.colour", "keeps three channels, and the network takes another number")
    _check_levels(rule)
    if side is None or (rule.height, rule.width) != (side, side):
        refuse("$.preprocessing", "the steps do not end at height x width", f"{side} x {side}")
    for name, values in (("mean", rule.normalise.mean), ("std", rule.normalise.std)):
        where = f"$.preprocessing.normalise.{name}"
        if len(values) != rule.channels:
            refuse(where, f"needs one number for each of {rule.channels} channels", str(len(values)))
        if not all(math.isfinite(value) for value in values) or (name == "std" and min(values) <= 0):
            refuse(where, "holds a number that cannot normalise", str(values))


def _check_levels(rule: Preprocessing) -> None:
    filters = [step.interpolation for step in rule.steps if not isinstance(step, PadSquare | CentreCrop)]
    whole = [name in WHOLE_LEVELS for name in filters]
    if rule.levels == "float32" and all(whole):
        refuse("$.preprocessing.levels", "keeps fractions, and no filter gives any", str(filters))
    if rule.levels == "float32" and whole != sorted(whole, reverse=True):
        refuse("$.preprocessing.steps", "give fractions to a filter of whole levels", str(filters))
    if rule.levels == "uint8" and "cubic" in filters:
        refuse("$.preprocessing.levels", "rounds to 8 bits, and cubic is a filter of fractions", "uint8")


def prepare_fault(spec: Preprocessing) -> str | None:
    """Return why a graph cannot prepare images by these steps, or None.

    >>> from promptray.runtime.bundle.image_rules import Greyscale, Normalise
    >>> steps = [ResizeLongerSide(size=320, interpolation="lanczos"), PadSquare(size=320), Squash(size=224)]
    >>> rest = {"channels": 1, "height": 224, "width": 224, "normalise": Normalise(mean=[0.5], std=[0.5])}
    >>> prepare_fault(Preprocessing(greyscale=Greyscale(), steps=steps, **rest))
    'it resizes 2 times, and the graph does so once'
    """
    resizes = [step for step in spec.steps if isinstance(step, RESIZES)]
    if len(resizes) != 1:
        return f"it resizes {len(resizes)} times, and the graph does so once"
    if spec.steps[0] is not resizes[0]:
        return "it pads or crops before it resizes, and the graph does so after"
    return None
