"""How the breast density study prepared its images, for BiomedCLIP and ConvNeXt alike.

Source: Molina-Roman et al., CBMS 2025, arXiv 2506.13964, and its published code: OpenCV's 8 bits as three
channels, 0 to 1, a bilinear antialiased resize straight to the square, on fractions, and no normalisation.
"""

from __future__ import annotations

from promptray.runtime.bundle.image_rules import Greyscale, Normalise, Preprocessing, Squash


def study_preprocessing(side: int) -> Preprocessing:
    """Return it for a network that takes `side` x `side` pixels."""
    return Preprocessing(
        greyscale=Greyscale(),
        steps=[Squash(size=side, interpolation="bilinear")],
        normalise=Normalise(mean=[0.0] * 3, std=[1.0] * 3),
        channels=3,
        height=side,
        width=side,
        colour="rgb",
        levels="float32",
    )
