"""The errors of values that are no numbers: no score is made of them, wherever they are found."""

from __future__ import annotations

from promptray.runtime.errors import ScoringError


def not_finite(name: str, role: str) -> ScoringError:
    """Return the error of an output that holds NaN or infinity (``score.not-finite``)."""
    return ScoringError(
        "score.not-finite",
        "the model produced a value that is no number, so there is no score",
        artefact=f"{role} graph, output {name}",
        cure="run `promptray verify` on the bundle; report the image's type if it passes",
    )


def pixels_not_finite() -> ScoringError:
    """Return the error of network input that holds NaN or infinity (``score.not-finite``)."""
    return ScoringError(
        "score.not-finite",
        "the network input holds a value that is no number",
        artefact="pixels",
        cure="make it with scorer.prepare, or as the manifest's section `preprocessing` says",
    )
