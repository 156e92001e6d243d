"""What changed graphs answer to the golden pictures, and how much of it is noise on one machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptray.calibrate.pipeline.other_rounding import with_other_rounding
from promptray.calibrate.pipeline.scores import Call, Model, run
from promptray.runtime.answers import Answers, spreads_of
from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE
from promptray.runtime.errors import BuildError
from promptray.runtime.gated_answers import LARGEST_SHARE, widest
from promptray.runtime.golden import GoldenSet
from promptray.runtime.preprocess import normalise
from promptray.runtime.text_check import TOLERANCE as TEXT_TOLERANCE

#: Tolerance over measured noise: noise is seen on a few pictures, and a limit must hold for every machine of
#: the class.
FACTOR = 4.0
_MACHINES = 5  # that `other_rounding` stands for
_SEED = 0


class SelfTest:
    """Answers of a changed model to the golden pictures, with their noise.

    Noise is what changes with the shape of the call, with threads, and with float32 sums that end otherwise
    in their last bits (`other_rounding`), as another processor's do.

    Parameters
    ----------
    model : Model
    golden : GoldenSet
    """

    def __init__(self, model: Model, golden: GoldenSet) -> None:
        draft = model.draft
        pixels = normalise(golden.pictures, draft.manifest.preprocessing)
        one = Call(threads=1)
        self._golden, self._manifest = golden, draft.manifest
        self._found = run(model, pixels, one)
        varied = [run(model, pixels, Call(batch=4, threads=1)), run(model, pixels, Call(threads=2))]
        random = np.random.default_rng(_SEED)
        for _ in range(_MACHINES):
            other = Model(with_other_rounding(draft, random), backend=model.backend)
            varied.append(run(other, pixels, one))
        self._noise = {
            name: float(np.max([np.abs(other[name] - values).max() for other in varied]))
            for name, values in self._found.items()
        }

    def answers(self, heads: Sequence[str]) -> dict[str, Answers]:
        """Return the answers, one image at a time on one thread, of some heads."""
        return {
            name: Answers(self._found[f"logits.{name}"], self._found.get(f"maps.{name}")) for name in heads
        }

    def tolerances(self, head: Head) -> tuple[float, float | None]:
        """Return how near a machine must come to the scores and maps of a head.

        Raises
        ------
        BuildError
            ``gate.failed`` where the noise alone is beyond what a tolerance may be; where golden scores are
            alike.
        """
        own = self.answers([head.name])[head.name]
        require_spread(self._manifest, head, own, "the changed graphs")
        most = widest(self._golden.answers[head.name], own)
        score = _tolerance(self._noise[f"logits.{head.name}"], head.score_tolerance, most, head, "scores")
        if head.map is None:
            return score, None
        noise = self._noise[f"maps.{head.name}"]
        return score, _tolerance(noise, head.map.tolerance, LARGEST_TOLERANCE, head, "maps")


def require_spread(manifest: Manifest, head: Head, answers: Answers, model: str) -> None:
    """Refuse a finding whose golden scores are alike: no tolerance could tell a machine that is wrong of it.

    Parameters
    ----------
    manifest : Manifest
    head : Head
    answers : Answers
        To the golden pictures.
    model : str
        Who gave the answers, for the message.

    Raises
    ------
    BuildError
        ``gate.failed``, naming the findings.
    """
    least = head.score_tolerance / LARGEST_SHARE
    findings = zip(manifest.findings_of(head.name), spreads_of(answers.logits), strict=True)
    alike = [f"{finding.key} ({spread:.2g})" for finding, spread in findings if spread < least]
    if alike:
        raise BuildError(
            "gate.failed",
            "findings get the same score on every golden image, so no self-test of a changed model could "
            "fail for them",
            artefact=f"head {head.name}, golden scores of {model}",
            expected=f"scores that deviate by at least {least:.2g} over the golden images",
            found=", ".join(alike[:5]) + (f" and {len(alike) - 5} more" if len(alike) > 5 else ""),
            cure="leave these findings out, or name golden images of your own that differ in them (recipe "
            "key `golden`)",
        )


def text_tolerance(noise: float) -> float:
    """Return how near a machine must come to an encoded finding, as a share of its largest number."""
    return min(max(TEXT_TOLERANCE, FACTOR * noise), LARGEST_TOLERANCE)


def _tolerance(noise: float, floor: float, most: float, head: Head, what: str) -> float:
    if not noise <= most:
        raise BuildError(
            "gate.failed",
            f"the changed graphs give other {what} with the shape of the call alone",
            artefact=f"head {head.name}",
            expected=f"within {most:.3g}, {LARGEST_SHARE:.0%} of the least spread of a finding's golden "
            "scores"
            if what == "scores"
            else f"within {most:.3g}",
            found=f"{noise:.3g}",
            cure="keep more layers high; a scheme that takes ranges at run time depends on the batch",
        )
    return min(max(floor, FACTOR * noise), most)
