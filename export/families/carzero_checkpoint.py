"""What CARZero's published checkpoint must hold: its tensors, named once, and the configuration it states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from promptray.export.checkpoint import plain, tensors
from promptray.runtime.errors import BuildError

_PREFIX = "CARZero."
_CONFIGURATION = "hyper_parameters"
_AGAIN = "get the file again from its publisher and compare its sha256"

#: What the checkpoint's own configuration must say where it says anything: (path, value). A model trained
#: otherwise would load and give wrong scores.
CONSTANTS: tuple[tuple[str, object], ...] = (
    ("model.text.last_n_layers", 4),
    ("model.text.aggregate_method", "sum"),
    ("model.text.agg_tokens", True),
    ("model.text.norm", False),
    ("model.fusion.class_num", 1),
    ("data.text.word_num", 97),
    ("data.image.imsize", 256),
    ("transforms.norm", "CXR_MAE"),
    ("transforms.random_crop.crop_size", 224),
)


def check_configuration(content: Mapping[str, Any], artefact: str) -> list[str]:
    """Compare the checkpoint's configuration with :data:`CONSTANTS`; return notes of what it does not say.

    Raises
    ------
    BuildError
        ``checkpoint.config`` where it says otherwise, or is there and cannot be read.
    """
    configuration = plain(content.get(_CONFIGURATION, {}))
    if not isinstance(configuration, Mapping):
        raise BuildError(
            "checkpoint.config",
            f"the checkpoint's {_CONFIGURATION} cannot be read, so how the model was trained is unknown",
            artefact=artefact,
            expected="a mapping, plain or of OmegaConf",
            found=type(content[_CONFIGURATION]).__name__,
            cure=f"{_AGAIN}; or save it again with a plain dict of the configuration as {_CONFIGURATION}",
        )
    unsaid = []
    for path, expected in CONSTANTS:
        value: Any = configuration
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            unsaid.append(f"not verified, the checkpoint does not say: {path} = {expected!r}")
        elif value != expected:
            raise BuildError(
                "checkpoint.config",
                f"the checkpoint was trained with {path} = {value!r}, which this family does not implement",
                artefact=artefact,
                expected=repr(expected),
                found=repr(value),
                cure="only the released configuration of CARZero is supported",
            )
    return unsaid


def published_state(content: Mapping[str, Any], artefact: str) -> dict[str, Tensor]:
    """Return the model's tensors, float32, under their names without what wrappers put before them.

    Raises
    ------
    BuildError
        ``checkpoint.layout`` where there are none, or two of one name.
    """
    state = content.get("state_dict")
    found = dict(tensors(state)) if isinstance(state, Mapping) else {}
    keys: dict[str, str] = {}
    for key in found:
        _, prefix, name = key.partition(_PREFIX)
        if prefix and name in keys:
            raise BuildError(
                "checkpoint.layout",
                f"the checkpoint holds two tensors for {name}: {keys[name]} and {key}",
                artefact=artefact,
                expected=f"one key that ends in {_PREFIX}{name}",
                cure="save a state dict that holds only the weights to deploy",
            )
        if prefix:
            keys[name] = key
    if not keys:
        raise BuildError(
            "checkpoint.layout",
            "no tensor of this checkpoint belongs to CARZero",
            artefact=artefact,
            expected=f"a 'state_dict' with keys '{_PREFIX}...'",
            found=", ".join(list(found or content)[:5]),
            cure="check that the recipe names the right family and file",
        )
    return {name: found[key] for name, key in keys.items()}


def weight_notes(content: Mapping[str, Any]) -> list[str]:
    """Return notes of what `published_state` does to the weights: conversions, and tensors left out."""
    found = {key: value for key, value in content["state_dict"].items() if isinstance(value, Tensor)}
    used = [tensor for key, tensor in found.items() if _PREFIX in key]
    stored = {str(tensor.dtype).removeprefix("torch.") for tensor in used if tensor.is_floating_point()}
    notes = [f"weights are stored as {kind} and used as float32" for kind in sorted(stored - {"float32"})]
    left = [key for key in found if _PREFIX not in key]
    if left:
        notes.append(
            f"left out, as the original does: {len(left)} tensors outside {_PREFIX}, first {left[0]}"
        )
    return notes
