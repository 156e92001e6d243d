"""What a ConvNeXt's checkpoint holds, and the settings of the network that no tensor tells.

A state dict tells widths, depths, kernels, which blocks normalise responses (version 2) and how the network
ends. It does not tell the norms' epsilon and the activation: timm's name of the architecture does, and gives
stems, norms and heads of timm's own, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint, tensors
from promptray.export.families.options import invalid_option
from promptray.export.layout import NO_KEY, described, fit_state_dict, sizes_of
from promptray.export.models.tower_shapes import depth
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.errors import BuildError

ensure_torchvision_imports()

import timm  # noqa: E402 - timm imports torchvision
from timm.layers.classifier import NormMlpClassifierHead  # noqa: E402
from timm.models.convnext import ConvNeXt  # noqa: E402

#: Options that say what no tensor tells.
SETTINGS = ("timm_name", "norm_eps", "activation")
_NORM_EPS, _ACTIVATION = 1e-6, "gelu"
_ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "relu")
#: Widths of timm's models whose settings are not the ones that are assumed.
_OTHER_SETTINGS: dict[tuple[int, ...], str] = {
    (384, 768, 1536, 3072): "convnext_xxlarge",
    (24, 32, 48, 64): "test_convnext",
    (32, 64, 96, 128): "test_convnext2 or test_convnext3",
}
#: torchvision's names, in timm's words. Of `features`, odd places are stages and even ones downsamplings.
_STAGE_PARTS = {"block.0": "conv_dw", "block.2": "norm", "block.3": "mlp.fc1", "block.5": "mlp.fc2"}
_HEAD_PARTS = {"classifier.0": "head.norm", "classifier.2": "head.fc"}
_TORCHVISION = "features.0.0.weight"


_WHAT = "a ConvNeXt with a linear classifier"


@dataclass(frozen=True)
class ConvNeXtCheckpoint:
    """A ConvNeXt and what its file says.

    Attributes
    ----------
    content : mapping
        All that the file holds.
    model : ConvNeXt
        With its weights, in evaluation mode.
    from_torchvision : bool
        Whether the tensors have torchvision's names.
    settings : mapping
        The options that say what no tensor tells, for a recipe of the same network.
    note : str
        Where those settings are from.
    """

    content: Mapping[str, Any]
    model: ConvNeXt
    from_torchvision: bool
    settings: Mapping[str, Any]
    note: str


def read_convnext(checkpoint: Path, options: Mapping[str, object]) -> ConvNeXtCheckpoint:
    """Read a ConvNeXt in torchvision's or timm's layout.

    Parameters
    ----------
    checkpoint : Path
    options : mapping
        ``timm_name``, ``norm_eps`` and ``activation``; each may be left out.

    Raises
    ------
    BuildError
        ``checkpoint.*``, or ``recipe.invalid`` for an option.
    """
    name, stated = _timm_name(options), _stated(options)
    content = load_checkpoint(checkpoint)
    found = _named_tensors(content, checkpoint.name)
    from_torchvision = _TORCHVISION in found
    state = _timm_state(found) if from_torchvision else found
    if name is None:
        model, note = _model_of_tensors(state, stated, checkpoint.name), _note(stated)
    else:
        model, note = (
            _model_of_timm(name, state, stated, checkpoint.name),
            f"structure as timm's {name} has it",
        )
    fit_state_dict(model, state, artefact=checkpoint.name, optional=NO_KEY, ignored=NO_KEY, cure=_cure(name))
    settings = {key: options[key] for key in SETTINGS if key in options}
    return ConvNeXtCheckpoint(content, model.eval().requires_grad_(False), from_torchvision, settings, note)


def splits_over_positions(model: ConvNeXt) -> bool:
    """Tell whether the network ends in pool, LayerNorm, Linear: then its logits split over positions."""
    head = model.head
    return (
        isinstance(head, NormMlpClassifierHead)
        and isinstance(head.norm, nn.LayerNorm)
        and not head.hidden_size
    )


def _timm_name(options: Mapping[str, object]) -> str | None:
    """Return timm's name of the architecture, the tag of its weights left out."""
    name = options.get("timm_name")
    if name is None:
        return None
    architecture = name.partition(".")[0] if isinstance(name, str) else ""
    if architecture not in timm.list_models(module="convnext"):
        message = "timm has no ConvNeXt of this name"
        raise invalid_option("timm_name", message, "such as convnext_base or convnextv2_tiny", repr(name))
    return architecture


def _stated(options: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings that the recipe states, in the words of timm."""
    stated: dict[str, Any] = {}
    if "norm_eps" in options:
        eps = options["norm_eps"]
        if type(eps) is not float or not 0 < eps < 1:
            expected = "a number such as 1.0e-6 (YAML takes 1e-6 for text)"
            raise invalid_option("norm_eps", "this value cannot be used", expected, repr(eps))
        stated["norm_eps"] = eps
    if "activation" in options:
        activation = options["activation"]
        if activation not in _ACTIVATIONS:
            expected = ", ".join(_ACTIVATIONS)
            raise invalid_option("activation", "this value cannot be used", expected, repr(activation))
        stated["act_layer"] = activation
    return stated


def _note(stated: Mapping[str, Any]) -> str:
    eps = f"eps {stated.get('norm_eps', _NORM_EPS):g}" + (" (assumed)" if "norm_eps" not in stated else "")
    activation = stated.get("act_layer", _ACTIVATION) + (" (assumed)" if "act_layer" not in stated else "")
    return f"LayerNorm's {eps}, activation {activation}: no tensor tells"


def _cure(name: str | None) -> str:
    if name is not None:
        return f"check that the weights are of timm's {name}, or leave model_options.timm_name out"
    return (
        "check that the recipe names the right family; a network with another stem, norm or head needs "
        "model_options.timm_name, such as convnext_nano_ols"
    )


def _named_tensors(content: Mapping[str, Any], artefact: str) -> dict[str, Tensor]:
    """Return the tensors, float32, without what wrappers put before their names."""
    nested = next(
        (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content
    )
    found = {key.removeprefix("model."): value for key, value in tensors(nested)}
    if _TORCHVISION not in found and "stem.0.weight" not in found:
        raise BuildError(
            "checkpoint.layout",
            "no tensor of this checkpoint belongs to a ConvNeXt in torchvision's or timm's layout",
            artefact=artefact,
            expected=f"keys '{_TORCHVISION}' or 'stem.0.weight', perhaps after 'model.'",
            found=", ".join(list(found or content)[:5]),
            cure="check that the recipe names the right family and file",
        )
    return found


def _timm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's tensors under timm's names, and in timm's shapes."""
    renamed = {_timm_key(key): value for key, value in state.items()}
    return {
        key: value[:, 0, 0] if key.endswith("gamma") and value.shape[1:] == (1, 1) else value
        for key, value in renamed.items()
    }


def _timm_key(key: str) -> str:
    """Rename one of torchvision's keys; an unknown one stays, and is then refused as unexpected."""
    for theirs, ours in _HEAD_PARTS.items():
        if key.startswith(f"{theirs}."):
            return ours + key.removeprefix(theirs)
    place = re.fullmatch(r"features\.(\d+)\.(\d+)\.(.+)", key)
    if place is None:
        return key
    level, number, rest = int(place[1]), place[2], place[3]
    if level == 0:
        return f"stem.{number}.{rest}"
    if level % 2 == 0:
        return f"stages.{level // 2}.downsample.{number}.{rest}"
    block = f"stages.{level // 2}.blocks.{number}."
    if rest == "layer_scale":
        return f"{block}gamma"
    part = ".".join(rest.split(".")[:2])
    return block + _STAGE_PARTS.get(part, part) + rest.removeprefix(part)


def _model_of_timm(
    name: str, state: Mapping[str, Tensor], stated: Mapping[str, Any], artefact: str
) -> ConvNeXt:
    """Make timm's network of this name; tensors of other sizes are refused when they are loaded."""
    with described(_WHAT, artefact):
        (classes,) = sizes_of(state, "head.fc.bias", None)
    made: Any = timm.create_model(name, pretrained=False, num_classes=classes, **stated)
    model: ConvNeXt = made
    return model


def _model_of_tensors(state: Mapping[str, Tensor], stated: Mapping[str, Any], artefact: str) -> ConvNeXt:
    """Make the ConvNeXt whose sizes the tensors tell."""
    with described(_WHAT, artefact):
        stems = [f"stages.{number}.blocks." for number in range(depth(state, "stages."))]
        widths = tuple(sizes_of(state, f"{stem}0.norm.weight", None)[0] for stem in stems)
        _require_settings(widths, stated)
        kernels = [
            sizes_of(state, f"{stem}0.conv_dw.weight", width, 1, None, None)
            for stem, width in zip(stems, widths, strict=True)
        ]
        return ConvNeXt(
            num_classes=sizes_of(state, "head.fc.bias", None)[0],
            depths=tuple(depth(state, stem) for stem in stems),
            dims=widths,
            kernel_sizes=tuple(kernel for kernel, _ in kernels),
            patch_size=sizes_of(state, "stem.0.weight", widths[0], 3, None, None)[0],
            conv_mlp=state[f"{stems[0]}0.mlp.fc1.weight"].ndim == 4,
            use_grn=any(".grn." in key for key in state),
            ls_init_value=1e-6 if any(key.endswith(".gamma") for key in state) else None,
            **{"norm_eps": _NORM_EPS, "act_layer": _ACTIVATION, **stated},
        )


def _require_settings(widths: tuple[int, ...], stated: Mapping[str, Any]) -> None:
    """Refuse to assume settings for widths of which timm's model is known to have others."""
    name = _OTHER_SETTINGS.get(widths)
    if name is not None and len(stated) < 2:
        raise invalid_option(
            "timm_name",
            f"timm's {name} has these widths, and another eps or activation than is usual; no tensor tells",
            f"{name}, or both norm_eps and activation",
            "none",
        )
