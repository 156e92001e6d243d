"""What quantising each block of a model does to its scores: not to its weights, which nobody asks about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.evaluation_table import Section
from promptray.calibrate.quantise.observe import Feeds
from promptray.calibrate.quantise.prepare import Prepared
from promptray.calibrate.quantise.session import Optimisation, open_session
from promptray.runtime.graphs import BoundHead

#: From the bytes of a graph to the scores of fixed images, (images, findings).
Score = Callable[[bytes], NDArray[np.float32]]


class GroupEffect(msgspec.Struct, frozen=True, kw_only=True):
    """Scores with one group of layers quantised, against the fp32 scores.

    Attributes
    ----------
    group : str
    products : int
        Its multiplications for one input: what quantising it makes cheaper.
    mean, greatest : float
        Absolute difference of scores, in logits.
    spread : float
        The mean difference as a share of how far images differ: of the standard deviation of the fp32 scores
        over the images, averaged over findings.
    """

    group: str
    products: int
    mean: float
    greatest: float
    spread: float


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """Groups by their effect on the scores, greatest first.

    Attributes
    ----------
    images, findings : int
    everything : GroupEffect
        All groups quantised at once.
    groups : list of GroupEffect
    """

    images: int
    findings: int
    everything: GroupEffect
    groups: list[GroupEffect]

    def table(self) -> Section:
        """Return the ranking as rows for people."""
        total = sum(each.products for each in self.groups) or 1
        rows = [
            [
                each.group,
                f"{each.products / total:.1%}",
                f"{each.mean:.3g}",
                f"{each.greatest:.3g}",
                f"{each.spread:.2%}",
            ]
            for each in (*self.groups, self.everything)
        ]
        title = f"Effect of quantising each group alone on {self.images} images x {self.findings} findings"
        columns = ["group", "multiplications", "mean |Δ|", "max |Δ|", "mean |Δ| / spread of images"]
        return Section(title, columns, rows)


def sensitivity(
    prepared: Prepared, score: Score, original: bytes, *, progress: Callable[[float], None] = lambda _: None
) -> Sensitivity:
    """Quantise one group of layers at a time and score.

    Parameters
    ----------
    prepared : Prepared
    score : callable
        Graph -> scores of images, at least two; for an image graph see :class:`ImageScores`.
    original : bytes
        The fp32 graph.
    progress : callable
        Called with the fraction done.
    """
    expected = score(original)
    names = list(prepared.groups)
    effects = []
    for number, group in enumerate(names, 1):
        content = prepared.make(keep=set(names) - {group}).content
        effects.append(_effect(group, prepared.groups[group], score(content), expected))
        progress(number / (len(names) + 1))
    everything = _effect(
        "everything", sum(prepared.groups.values()), score(prepared.make().content), expected
    )
    progress(1.0)
    return Sensitivity(
        images=expected.shape[0],
        findings=expected.shape[1],
        everything=everything,
        groups=sorted(effects, key=lambda each: (-each.mean, each.group)),
    )


def _effect(
    group: str, products: int, scores: NDArray[np.float32], expected: NDArray[np.float32]
) -> GroupEffect:
    difference = np.abs(scores - expected)
    spread = float(expected.std(axis=0).mean())
    mean = float(difference.mean())
    return GroupEffect(
        group=group,
        products=products,
        mean=mean,
        greatest=float(difference.max()),
        spread=mean / spread if spread else float("inf"),
    )


class ImageScores:
    """Scores of images through a changed image graph and an unchanged head.

    Parameters
    ----------
    head : BoundHead
        With the bank resident.
    images : sequence of mapping
        Inputs of the image graph.
    optimisation : {'none', 'basic', 'extended', 'all'}
        Of the image graph: how the graph will run. ``none`` is what it means, ``all`` what this CPU makes of
        it.
    """

    def __init__(self, head: BoundHead, images: Feeds, optimisation: Optimisation) -> None:
        self.head, self.images, self.optimisation = head, images, optimisation

    def __call__(self, content: bytes) -> NDArray[np.float32]:
        """Return logits float32 (images, findings)."""
        session = open_session(content, self.optimisation)
        names = [output.name for output in session.get_outputs()]

        def logits(image: Any) -> NDArray[np.float32]:
            return self.head.run(dict(zip(names, session.run(names, dict(image)), strict=True)))[0]

        return np.concatenate([logits(image) for image in self.images])
