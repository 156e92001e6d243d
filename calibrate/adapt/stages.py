"""The stages: each ends as a checkpoint, the recipe that builds it, and a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from promptray.calibrate.adapt.data import Data
from promptray.calibrate.adapt.features import FeatureStore, compute_features
from promptray.calibrate.adapt.pictures import PictureReader
from promptray.calibrate.adapt.probe import ClassWeights, fit_probe
from promptray.calibrate.adapt.progress import Progress, each_percent
from promptray.calibrate.adapt.report import EpochFacts, FileRef, FineTuneFacts, ProbeFacts, StageName
from promptray.calibrate.adapt.run_folder import FEATURES
from promptray.calibrate.adapt.source import Source
from promptray.calibrate.adapt.whole import whole_folder
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.export.build import build
from promptray.runtime.bundle import Bundle
from promptray.runtime.disk import hash_file
from promptray.runtime.errors import PromptRayError

if TYPE_CHECKING:
    from torch import Tensor

    from promptray.calibrate.adapt.fine_tune import Examples, FineTuning
    from promptray.export.tunable import Tunable

Start = Literal["probe", "zero"]
Facts = TypeVar("Facts", ProbeFacts, FineTuneFacts)

CHECKPOINT, RECIPE, FACTS, GOLDEN = "tuned.safetensors", "recipe.yaml", "facts.json", "golden"
_STATE = "fine-tune.state.safetensors"


@dataclass
class Workshop:
    """Where the stages are made.

    Attributes
    ----------
    source : Source
    out : Path
        The run's folder.
    images : ImageFolder
    modality : str or None
    cache : Path or None
        Of builds.
    column : str
        The column of the classes: for the statement of training data.
    progress : callable
        Called with (stage, message, fraction).
    """

    source: Source
    out: Path
    images: ImageFolder
    modality: str | None
    cache: Path | None
    column: str
    progress: Progress

    @cached_property
    def tunable(self) -> Tunable:
        """The image tower, as the checkpoint has it until fine-tuning changes it."""
        self.progress("load", f"loading {self.source.checkpoint.name}", 0.0)
        from promptray.export.tunable import load_tunable

        options = dict(self.source.recipe.model_options)
        return load_tunable(self.source.family, self.source.checkpoint, self.source.text_model, options)

    @property
    def reader(self) -> PictureReader:
        """Reads images as the bundles will."""
        rule = self.tunable.preprocessing
        return PictureReader(self.images, self.source.recipe.door, rule, self.modality)

    def bundle(self, stage: StageName) -> Path:
        """Return the path of a stage's bundle."""
        return self.out / f"{stage}.bundle"

    def features(self, data: Data) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Return the image vectors of the untouched tower, and the rows of images that were refused."""
        import torch

        tower = self.tunable.tower

        def embed(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                made: NDArray[np.float32] = tower(torch.from_numpy(pixels)).numpy()
            return made

        return compute_features(
            embed,
            self.tunable.width,
            tower_sha256(self.tunable),
            self.reader,
            data.cases.images,
            data.files,
            FeatureStore(self.out / FEATURES),
            self.progress,
        )

    def unreadable(self, data: Data) -> dict[int, str]:
        """Read every image, and return the rows of those that were refused: a run without vectors asks so."""
        reader, refused = self.reader, {}
        for row, image in enumerate(data.cases.images):
            each_percent(self.progress, "read", "read", row + 1, len(data.cases.images))
            try:
                reader.picture(image)
            except PromptRayError as error:
                refused[row] = error.code
        return refused

    def zero_shot(self) -> None:
        """Build the recipe as it is."""
        self._build("zero-shot", self.source.path)

    def probe(
        self, data: Data, vectors: NDArray[np.float32], class_weights: ClassWeights, seed: int
    ) -> ProbeFacts:
        """Fit the probe on the train part, and build its bundle."""
        import torch

        if not (self.out / "probe").exists():
            rows = data.rows("train")
            made = fit_probe(
                vectors[rows],
                data.cases.classes[rows],
                data.units[rows],
                len(data.cases.keys),
                class_weights=class_weights,
                seed=seed,
                progress=self.progress,
            )
            facts = ProbeFacts(
                c=made.c,
                folds=made.folds,
                losses=made.losses,
                class_weights=class_weights,
                width=self.tunable.width,
                converged=made.converged,
            )
            self._save("probe", data, torch.from_numpy(made.weight), torch.from_numpy(made.bias), facts)
        self._build("probe", self.out / "probe" / RECIPE)
        return self._facts("probe", ProbeFacts)

    def fine_tune(self, data: Data, settings: FineTuning) -> FineTuneFacts:
        """Train on the train part until the val part says stop, and build the bundle."""
        import torch

        from promptray.calibrate.adapt.fine_tune import Network, fine_tune

        if not (self.out / "fine-tune").exists():
            weight, bias, start = self._first_layer(len(data.cases.keys))
            network = Network(self.tunable.tower, torch.from_numpy(weight), torch.from_numpy(bias))
            train, val = (self._examples(data, part) for part in ("train", "val"))
            state = self.out / _STATE
            made = fine_tune(network, train, val, settings, state, self.progress)
            facts = FineTuneFacts(
                started_from=start,
                best=made.best,
                history=[EpochFacts(**vars(epoch)) for epoch in made.history],
                **asdict(settings),
            )
            layer = network.classifier
            self._save("fine-tune", data, layer.weight.detach(), layer.bias.detach(), facts)
        (self.out / _STATE).unlink(missing_ok=True)
        self._build("fine-tune", self.out / "fine-tune" / RECIPE)
        return self._facts("fine-tune", FineTuneFacts)

    def _first_layer(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32], Start]:
        """Return the probe's layer, or one of zeros where there is no probe."""
        file = self.out / "probe" / CHECKPOINT
        if not file.exists():
            return np.zeros((count, self.tunable.width), np.float32), np.zeros(count, np.float32), "zero"
        tensors = safetensors.numpy.load(file.read_bytes())
        weight, bias = (tensors[name] for name in self.tunable.classifier)
        return weight, bias, "probe"

    def _examples(self, data: Data, part: str) -> Examples:
        """Read the pictures of a part into memory."""
        from promptray.calibrate.adapt.fine_tune import Examples

        rows, reader, pictures = data.rows(part), self.reader, []
        for number, row in enumerate(rows, 1):
            each_percent(self.progress, "fine-tune", f"read {part}", number, len(rows))
            pictures.append(reader.picture(data.cases.images[row]))
        marks = data.pictures
        return Examples(pictures, data.cases.classes[rows], [marks[row] for row in rows], reader.pixels)

    def _save(
        self, stage: StageName, data: Data, weight: Tensor, bias: Tensor, facts: msgspec.Struct
    ) -> None:
        """Write checkpoint, recipe and facts of a stage, all or nothing."""
        import yaml

        tunable = self.tunable
        self._copy_golden()
        count = len(data.rows("train"))
        training = f"Adapted ({stage}) to {count} labelled images of this site, column {self.column}"
        recipe = self.source.tuned_recipe(
            stage, CHECKPOINT, tunable.family, tunable.options, f"../{GOLDEN}", training
        )
        with whole_folder(self.out / stage) as folder:
            tunable.save(folder / CHECKPOINT, weight, bias, data.cases.keys)
            text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
            (folder / RECIPE).write_text(text, encoding="utf-8", newline="\n")
            (folder / FACTS).write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")

    def _facts(self, stage: StageName, kind: type[Facts]) -> Facts:
        try:
            return msgspec.json.decode((self.out / stage / FACTS).read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError):
            raise self._other(f"{stage}/{FACTS}", "it cannot be read") from None

    def _copy_golden(self) -> None:
        """Put the recipe's own golden images beside the stages, so that their recipes build on their own."""
        own, copy = self.source.golden, self.out / GOLDEN
        if own and not copy.exists():
            with whole_folder(copy) as folder:
                for file in own:
                    shutil.copyfile(file, folder / file.name)

    def _build(self, stage: StageName, recipe: Path) -> None:
        """Build a stage's bundle; one that is there must be of this recipe and checkpoint."""
        path = self.bundle(stage)
        if not path.exists():

            def report(_: str, what: str, part: float) -> None:
                self.progress(stage, what, part)

            build(recipe, path, cache=self.cache, progress=report)
        checkpoint = self.source.checkpoint if stage == "zero-shot" else recipe.parent / CHECKPOINT
        origin = Bundle.open(path).manifest.provenance
        if [origin.recipe.sha256, origin.checkpoint.sha256] != [
            hash_file(f)[0] for f in (recipe, checkpoint)
        ]:
            raise self._other(path.name, "it was built of something else")

    def _other(self, name: str, why: str) -> PromptRayError:
        return PromptRayError(
            "adapt.state",
            f"what an earlier run left cannot be used: {why}",
            artefact=name,
            cure="delete it; it is made again",
        )


def tower_sha256(tunable: Tunable) -> str:
    """Return a hash of all that makes an image vector of pixels: weights, options, and files beside them.

    Attention heads, for one, change every vector and no weight.
    """
    from promptray.export.families.base import weights_sha256

    beside = [hash_file(path)[0] for path in tunable.beside]
    facts = [tunable.family, weights_sha256(tunable.tower.state_dict()), dict(tunable.options), beside]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def origin_of(bundle: Bundle, name: str) -> tuple[FileRef, FileRef]:
    """Return a bundle and its checkpoint as the report names them."""
    made = bundle.manifest.provenance.checkpoint
    return FileRef(name=name, sha256=bundle.hash), FileRef(name=made.name, sha256=made.sha256)


def choose_stages(asked: Sequence[StageName] | None, source: Source) -> tuple[list[StageName], list[str]]:
    """Return the stages to make, in order, and what is to be said of those left out.

    Raises
    ------
    PromptRayError
        ``adapt.recipe`` where a zero-shot stage is asked for and the checkpoint reads no text.
    """
    order: tuple[StageName, ...] = ("zero-shot", "probe", "fine-tune")
    chosen = [stage for stage in order if asked is None or stage in asked]
    if "zero-shot" not in chosen or source.has_text:
        return chosen, []
    if asked is not None:
        raise PromptRayError(
            "adapt.recipe",
            "there is no zero-shot stage: this checkpoint is a classifier and reads no text",
            artefact=source.path.name,
            expected="stages probe, fine-tune",
            found=", ".join(chosen),
            cure="leave zero-shot out of --stages",
        )
    return chosen[1:], ["There is no zero-shot stage: this checkpoint is a classifier and reads no text."]
