"""Train the reference model, and measure it on patients it never saw.

    python -m reference.train --data DATA --out reference

DATA holds ``cxr/labels.csv``. First one model per fold is trained without that fold's patients and scores
them; then the final model is trained on all images. OUT gets the checkpoint, ``text_model/config.json``,
``results.json``, ``training.png``, and the results section of ``MODEL_CARD.md``. The same seed, machine type
and thread count give the same files.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from promptray.calibrate.auroc import auroc_interval
from promptray.export.families.base import LoadedModel
from promptray.export.families.carzero import FAMILY
from promptray.export.models.carzero import CARZero
from promptray.runtime.preprocess import preprocess
from promptray.runtime.text import TextEncoder
from reference.card import update_card
from reference.evaluate import Scored, measure
from reference.fit import BATCH, Curve, Schedule, Wordings, fit, normalised
from reference.model import reference_sizes, save_checkpoint, tokenise, write_text_config
from reference.radiographs import ATTRIBUTION, LICENCE, SOURCE, Radiograph, read_radiographs
from reference.wordings import CLASSES, MEANINGS

CHECKPOINT = "carzero_reference.ckpt"


def main() -> None:
    """Cross-validate, train the final model, write everything."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()
    experiment = Experiment(arguments)
    seconds: dict[str, float] = {}
    report = experiment.cross_validate()
    seconds["cross-validation"] = time.perf_counter() - started
    results = {"data": experiment.describe_data(), "results": report}
    before_final = time.perf_counter()
    model, curve = experiment.fit(np.arange(len(experiment.labels)), fold=arguments.folds)
    seconds["final model"] = time.perf_counter() - before_final
    experiment.write(model, curve, {**results, "run": _describe_run(arguments, experiment, seconds)})


class Experiment:
    """The data as the network sees them, and what is done with them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.out: Path = arguments.out
        self.seed: int = arguments.seed
        self.folds: int = arguments.folds
        self.device = torch.device(arguments.device)
        self.schedule = Schedule(epochs=arguments.epochs)
        self.radiographs = read_radiographs(arguments.data)
        self.labels = np.array([CLASSES.index(each.label) for each in self.radiographs])
        self.patients = np.array([each.patient for each in self.radiographs])
        facts = self._declared_facts()
        self.pictures = _pictures(self.radiographs, facts)
        self.kinds, self.texts = _all_wordings()
        self.tokens = tokenise(_text_encoder(facts), self.texts)

    def _declared_facts(self) -> LoadedModel:
        """Let the family describe an untrained model: data are then prepared as its bundle will."""
        vocabulary = (self.out / "text_model" / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.sizes = reference_sizes(len(vocabulary))
        write_text_config(self.out / "text_model", self.sizes)
        with tempfile.TemporaryDirectory() as folder:
            untrained = Path(folder) / CHECKPOINT
            save_checkpoint(CARZero(self.sizes), untrained, epochs=0, steps=0)
            return FAMILY.load(untrained, self.out / "text_model", {})

    def cross_validate(self) -> dict[str, Any]:
        """Score each fold by a model trained on the others, and measure all of it together."""
        splitter = StratifiedGroupKFold(self.folds, shuffle=True, random_state=self.seed)
        scores = np.full((len(self.labels), len(self.texts)), np.nan)
        tested_in = np.zeros(len(self.labels), dtype=np.int64)
        for fold, (train, test) in enumerate(splitter.split(self.labels, self.labels, self.patients)):
            began = time.perf_counter()
            model, curve = self.fit(train, fold=fold)
            scores[test] = self.score(model, test)
            tested_in[test] = fold
            took, loss = time.perf_counter() - began, curve.pairs[-1]
            _say(f"fold {fold + 1} of {self.folds}, {took:.0f} s, loss {loss:.3f}")
        scored = Scored(scores, self.kinds, self.texts, self.labels, self.patients, tested_in)
        return measure(scored, seed=self.seed)

    def fit(self, images: NDArray[np.int64], *, fold: int) -> tuple[CARZero, Curve]:
        """Train on some images; each fold has a seed of its own."""
        trained = torch.tensor([n for n, (_, kind) in enumerate(self.kinds) if kind == "trained"])
        meanings = list(MEANINGS)
        truth = [[float(name in MEANINGS[of].true_of) for name in CLASSES] for of, _ in self.kinds]
        wordings = Wordings(
            tokens={name: values[trained] for name, values in self.tokens.items()},
            truth=torch.tensor(truth)[trained],
            meaning=torch.tensor([meanings.index(of) for of, _ in self.kinds])[trained],
        )
        return fit(
            self.sizes,
            self.pictures[images],
            torch.from_numpy(self.labels[images]),
            wordings,
            seed=1000 * self.seed + fold,
            schedule=self.schedule,
            device=self.device,
        )

    @torch.inference_mode()
    def score(self, model: CARZero, images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Score some images against all wordings."""
        tokens = {name: values.to(self.device) for name, values in self.tokens.items()}
        rows = [
            model(normalised(self.pictures[[image]]).to(self.device), **tokens).scores.cpu()
            for image in images
        ]
        return torch.cat(rows).double().numpy()

    def describe_data(self) -> dict[str, Any]:
        """Count, attribute, and measure what the picture's shape alone would tell."""
        ratio = [each.grey().shape[1] / each.grey().shape[0] for each in self.radiographs]
        return {
            "source": SOURCE,
            "licence": LICENCE,
            "attribution": ATTRIBUTION,
            "images": len(self.labels),
            "patients": len(set(self.patients)),
            "images per class": dict(Counter(each.label for each in self.radiographs)),
            "AUROC of the width-to-height ratio alone": auroc_interval(
                self.labels > 0, ratio, self.patients
            ).as_dict(),
        }

    def write(self, model: CARZero, curve: Curve, results: dict[str, Any]) -> None:
        """Write the checkpoint, the results, the picture of the training, and the card's results section."""
        epochs = self.schedule.epochs
        steps = epochs * -(-len(self.labels) // BATCH)
        save_checkpoint(model, self.out / CHECKPOINT, epochs=epochs, steps=steps)
        text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
        (self.out / "results.json").write_text(text, encoding="utf-8")
        _draw(curve, self.out / "training.png")
        update_card(self.out / "MODEL_CARD.md", results)


def _pictures(radiographs: list[Radiograph], facts: LoadedModel) -> Tensor:
    """Prepare images by the runtime's own steps: float32 (n, 1, H, W) of 0..1."""
    greys = [preprocess(each.grey(), facts.preprocessing).picture for each in radiographs]
    return torch.from_numpy(np.stack(greys))[:, None].float() / 255


def _text_encoder(facts: LoadedModel) -> TextEncoder:
    if facts.text is None:
        raise TypeError("the family describes no text side")
    return TextEncoder(facts.text.rule, facts.text.tokenizer)


def _all_wordings() -> tuple[list[tuple[str, str]], list[str]]:
    """Return (meaning, kind) and text of every wording."""
    rows = [
        ((name, kind), text)
        for name, meaning in MEANINGS.items()
        for kind, texts in (("trained", meaning.training), ("held_out", meaning.held_out))
        for text in texts
    ]
    return [kind for kind, _ in rows], [text for _, text in rows]


def _describe_run(
    arguments: argparse.Namespace, experiment: Experiment, seconds: dict[str, float]
) -> dict[str, Any]:
    return {
        "command": (
            f"python -m reference.train --data DATA --out reference --folds {arguments.folds} "
            f"--seed {arguments.seed} --epochs {arguments.epochs} --device {arguments.device} "
            f"--threads {arguments.threads}"
        ),
        "seed": arguments.seed,
        "folds": arguments.folds,
        "device": arguments.device,
        "machine": platform.machine(),
        "threads": arguments.threads,
        "seconds": {name: round(value) for name, value in seconds.items()},
        "parameters": sum(p.numel() for p in CARZero(experiment.sizes).parameters()),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "timm", "transformers", "numpy", "scikit-learn")},
        },
    }


def _draw(curve: Curve, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.pairs, label="image and wording")
    axes.plot(curve.image_helper, label="helper: class from image", linewidth=0.8)
    axes.plot(curve.text_helper, label="helper: truth from wording", linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds cxr/labels.csv")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="holds text_model/vocab.txt")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=Schedule.epochs)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
