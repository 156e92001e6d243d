"""The losses of a distillation as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptray.calibrate.distil.fit import Epoch
from promptray.calibrate.svg import Plot, span

_COLOURS = ("#1b6ca8", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#334155")


def loss_curve(history: Sequence[Epoch]) -> str:
    """Return an SVG: training (dashed) and validation loss of each epoch, and the parts of the latter.

    The axis is logarithmic; what a colour stands for is written on its last point's height in the title.
    """
    epochs = np.arange(len(history))
    lines = {"validation": [epoch.val_loss for epoch in history]}
    lines |= {name: [epoch.val_terms[name] for epoch in history] for name in history[0].val_terms}
    taught = [(n, epoch.train_loss) for n, epoch in enumerate(history) if epoch.train_loss is not None]
    heights = {name: np.log10(np.maximum(values, 1e-9)) for name, values in lines.items()}
    trained = np.log10(np.maximum([value for _, value in taught], 1e-9))
    words = ", ".join(f"{name} {_WORDS[n % len(_WORDS)]}" for n, name in enumerate(lines))
    plot = Plot(words, "epoch", "log10 of the loss", span(epochs), span(*heights.values(), trained))
    for number, height in enumerate(heights.values()):
        plot.line(epochs, height, _COLOURS[number % len(_COLOURS)])
    if taught:
        plot.line([n for n, _ in taught], trained, _COLOURS[0], dashed=True)
    return plot.svg(standalone=True)


_WORDS = ("blue", "orange", "green", "purple", "ochre", "grey")
