"""What quantising each block of a model does to its scores: not to its weights, which nobody asks about."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.evaluation_table import Section
from promptray.calibrate.quantise.observe import Feeds
from promptray.calibrate.quantise.session import Optimisation, open_session
from promptray.runtime.bound_heads import BoundHead

#: From the groups that are quantised, all others high, to the scores of fixed images, (images, findings).
Score = Callable[[Collection[str]], NDArray[np.float32]]


class GroupEffect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
        over the images, finding by finding, averaged. It is the unit of the gates, and what ranks.
    worst : float
        The same of the finding that it moves most.
    worst_finding : int
        Which one that is, counted from 0.
    """

    group: str
    products: int
    mean: float
    greatest: float
    spread: float
    worst: float
    worst_finding: int


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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

    @property
    def most_sensitive(self) -> list[str]:
        """The groups' names, in their order."""
        return [each.group for each in self.groups]

    def table(self) -> Section:
        """Return the ranking as rows for people."""
        total = sum(each.products for each in self.groups) or 1
        rows = [
            [
                each.group,
                f"{each.products / total:.1%}",
                f"{each.spread:.2%}",
                f"{each.worst:.2%}",
                f"{each.mean:.3g}",
                f"{each.greatest:.3g}",
            ]
            for each in (*self.groups, self.everything)
        ]
        title = f"Effect of quantising each group alone on {self.images} images x {self.findings} findings"
        columns = ["group", "multiplications", "mean |Δ| / spread", "worst finding", "mean |Δ|", "max |Δ|"]
        return Section(title, columns, rows)


def sensitivity(
    groups: Mapping[str, int], score: Score, *, progress: Callable[[float], None] = lambda _: None
) -> Sensitivity:
    """Quantise one group of layers at a time and score.

    Parameters
    ----------
    groups : mapping of str to int
        Every group with its multiplications (:attr:`Prepared.groups`).
    score : callable
        Quantised groups -> scores float32 (images, findings), of at least two images.
    progress : callable
        Called with the fraction done.

    Examples
    --------
    >>> fp32, noise = np.array([[0.0], [2.0]], np.float32), {"a": 0.1, "b": 0.4}
    >>> found = sensitivity({"a": 9, "b": 1}, lambda on: fp32 + np.float32(sum(noise[each] for each in on)))
    >>> found.most_sensitive, round(found.everything.spread, 3)
    (['b', 'a'], 0.5)
    """
    expected = score(())
    effects = []
    for number, (group, products) in enumerate(groups.items(), 1):
        effects.append(_effect(group, products, score([group]), expected))
        progress(number / (len(groups) + 1))
    everything = _effect("everything", sum(groups.values()), score(list(groups)), expected)
    progress(1.0)
    return Sensitivity(
        images=expected.shape[0],
        findings=expected.shape[1],
        everything=everything,
        groups=sorted(effects, key=lambda each: (-each.spread, each.group)),
    )


def _effect(
    group: str, products: int, scores: NDArray[np.float32], expected: NDArray[np.float32]
) -> GroupEffect:
    difference = np.abs(scores.astype(np.float64) - expected)
    spreads = expected.std(axis=0, dtype=np.float64)
    # A finding that the original scores alike everywhere has no spread, and no gate could be passed for it.
    shares = difference.mean(axis=0) / np.where(spreads > 0, spreads, 1.0)
    worst = int(shares.argmax())
    return GroupEffect(
        group=group,
        products=products,
        mean=float(difference.mean()),
        greatest=float(difference.max()),
        spread=float(shares.mean()),
        worst=float(shares[worst]),
        worst_finding=worst,
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
