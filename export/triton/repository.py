"""A bundle -> a model repository of NVIDIA Triton: image side, heads with their banks, one ensemble."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from promptray.export.triton.baked_head import bake
from promptray.export.triton.config import LABELS, VERSION, Serving, Step, ensemble, onnx_model, tensor
from promptray.export.triton.pbtxt import Message, to_pbtxt
from promptray.export.triton.served import Model, Served, ServedHead, check_served
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.disk import write_new
from promptray.runtime.errors import BundleError, PromptRayError
from promptray.runtime.graph_choice import graph_for_every_machine
from promptray.runtime.graphs import own_bank
from promptray.runtime.version import VERSION as SOFTWARE

#: What Triton takes as a model's name and every file system as a folder's.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Progress = Callable[[str, str, float], None]


@dataclass(frozen=True)
class TritonRepository:
    """What was written.

    Attributes
    ----------
    ensemble : str
        The model that clients ask.
    models : tuple of str
        All of them.
    bundle : Bundle
    serving : Serving
    heads : tuple of ServedHead
        How near the models came to the golden answers.
    """

    ensemble: str
    models: tuple[str, ...]
    bundle: Bundle
    serving: Serving
    heads: tuple[ServedHead, ...]


def export_triton(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str | None = None,
    serving: Serving | None = None,
    progress: Progress = lambda stage, message, fraction: None,
) -> TritonRepository:
    """Write a Triton model repository of a bundle, whole or not at all.

    Its findings are the bundle's. What a site added goes into a bundle first (``promptray repack``).

    Parameters
    ----------
    path : path
        The bundle. Its graphs must be gated on every machine: fp32.
    output : path
        The repository's folder; it must not exist.
    name : str, optional
        Of the ensemble; by default made of the bundle's name. Those of the models begin with it.
    serving : Serving, optional
    progress : callable
        Called with (stage, message, fraction).

    Raises
    ------
    BundleError
        ``bundle.*``; ``bundle.exists`` for the output.
    ScoringError
        ``backend.unavailable`` for a bundle of graphs that were gated on a class of machines only.
    BuildError
        ``gate.failed``, ``export.failed``.
    PromptRayError
        ``output.unwritable``, ``output.in-bundle``.
    """
    target, serving = Path(os.path.abspath(output)), serving or Serving()
    require_outside(target)
    if os.path.lexists(target):
        raise BundleError(
            "bundle.exists", "the output exists already", artefact=target.name,
            cure="remove it or choose another output",
        )  # fmt: skip
    progress("read", "graphs and banks", 0.0)
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    read_parity(bundle)  # what did not pass its gates is not served
    own = name or default_name(manifest.name)
    image_facts = graph_for_every_machine(manifest, "image", None)
    facts = [graph_for_every_machine(manifest, "head", head.name) for head in manifest.heads]
    image: Model = bundle.read(image_facts.file), image_facts
    heads = [
        bake(bundle.read(each.file), each, own_bank(bundle, head))
        for head, each in zip(manifest.heads, facts, strict=True)
    ]
    progress("check", "every golden picture, alone and in batches", 0.3)
    served = check_served(bundle, image, heads, max_batch=serving.max_batch)
    progress("write", target.name, 0.8)
    models = _Models(bundle, own, serving, served)
    _write(target, models.files(image, heads))
    return TritonRepository(own, models.names, bundle, serving, served.heads)


def default_name(bundle: str) -> str:
    """Return a bundle's name as Triton and file systems can have it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", bundle).strip("_-")[:64] or "promptray"


class _Models:
    """The files of all models."""

    def __init__(self, bundle: Bundle, name: str, serving: Serving, served: Served) -> None:
        self._bundle, self._name, self._serving, self._served = bundle, name, serving, served
        self._image = f"{name}_image"
        self._heads = [f"{name}_head_{head.name}" for head in bundle.manifest.heads]
        self.names = (name, self._image, *self._heads)

    def files(self, image: Model, heads: Sequence[Model]) -> dict[str, bytes]:
        """Return the content of the repository by path."""
        manifest = self._bundle.manifest
        facts = _bundle_facts(self._bundle)
        files = self._model(self._image, image, facts, {"pixels": self._served.pixels.tobytes()})
        for name, model, head, found in zip(
            self._heads, heads, manifest.heads, self._served.heads, strict=True
        ):
            features = {each.name: self._served.features[each.name].tobytes() for each in model[1].inputs}
            files |= self._model(name, model, facts | _head_facts(head, found), features)
            files[f"{name}/{LABELS}"] = _labels(manifest, head)
        config = self._ensemble(image, heads, facts)
        files[f"{self._name}/config.pbtxt"] = to_pbtxt(config).encode()
        for head in manifest.heads:
            files[f"{self._name}/{_labels_of(head)}"] = _labels(manifest, head)
        files[f"{self._name}/{VERSION}/README"] = _VERSION_FOLDER
        return files

    def _model(
        self, name: str, model: Model, parameters: Mapping[str, str], warm_up: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        content, facts = model
        named = {each: f"input-{number}" for number, each in enumerate(warm_up)}
        own = {"promptray.graph": f"{facts.file} {facts.precision}, opset {facts.opset}"}
        config = onnx_model(name, facts.inputs, facts.outputs, self._serving, {**parameters, **own}, named)
        return {
            f"{name}/config.pbtxt": to_pbtxt(config).encode(),
            f"{name}/{VERSION}/model.onnx": content,
            **{f"{name}/warmup/{named[each]}": sample for each, sample in warm_up.items()},
        }

    def _ensemble(self, image: Model, heads: Sequence[Model], parameters: Mapping[str, str]) -> Message:
        taken = {each.name for _, facts in heads for each in facts.inputs}
        features = {each.name: f"image.{each.name}" for each in image[1].outputs if each.name in taken}
        steps, outputs = [Step(self._image, {"pixels": "pixels"}, features)], []
        for name, (_, facts), head in zip(self._heads, heads, self._bundle.manifest.heads, strict=True):
            answers = {each.name: f"{each.name}.{head.name}" for each in facts.outputs}
            steps.append(Step(name, {each.name: features[each.name] for each in facts.inputs}, answers))
            for each in facts.outputs:
                labels = _labels_of(head) if each.name == "logits" else None
                outputs.append(tensor(each, name=answers[each.name], labels=labels))
        inputs = [tensor(each) for each in image[1].inputs]
        return ensemble(self._name, inputs, outputs, steps, self._serving, parameters)


#: Git and some copying tools drop an empty folder, which Triton wants for every version.
_VERSION_FOLDER = b"An ensemble has no model file. Triton wants this folder.\n"


def _labels_of(head: Head) -> str:
    """Name the ensemble's file of a head's labels: it has one for every head."""
    return f"labels-{head.name}.txt"


def _labels(manifest: Manifest, head: Head) -> bytes:
    return "".join(f"{each.key}\n" for each in manifest.findings_of(head.name)).encode()


def _bundle_facts(bundle: Bundle) -> dict[str, str]:
    """Return what every model says of where it comes from, and what its users must know."""
    manifest = bundle.manifest
    checkpoint = manifest.provenance.checkpoint
    return {
        "promptray.software": f"promptray {SOFTWARE}",
        "promptray.bundle": manifest.name,
        "promptray.bundle_sha256": bundle.hash,
        "promptray.checkpoint": f"{checkpoint.name} sha256 {checkpoint.sha256}",
        "promptray.created": manifest.provenance.created,
        "promptray.preprocessing": msgspec.json.encode(manifest.preprocessing).decode(),
        "model.licence": manifest.model.licence,
        "model.intended_use": manifest.model.intended_use,
        "model.training_data": manifest.model.training_data,
    }


def _head_facts(head: Head, found: ServedHead) -> dict[str, str]:
    return {
        "promptray.head": head.name,
        "promptray.bank_id": head.bank.id,
        "promptray.relation": head.relation,
        "promptray.activation": head.activation,
        "promptray.score_tolerance": f"{found.score_tolerance:g}",
        "promptray.golden_score_error": f"{found.score_error:.3g}",
        "promptray.batch_score_error": f"{found.batch_error:.3g}",
    }


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    partial = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new(path, content)
        partial.rename(target)
    except BaseException as error:  # also KeyboardInterrupt: nothing half written stays
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise PromptRayError(
                "output.unwritable", f"the repository cannot be written: {error.strerror}",
                artefact=target.name, cure="choose another folder with -o",
            ) from None  # fmt: skip
        raise
