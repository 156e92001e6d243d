"""An open_clip model folder as published on model hubs: its configuration, and which files it is read from.

Needs no torch, so that a build whose stages are all cached never waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from promptray.export.json_file import read_json
from promptray.export.tokenizer import BertFolder, read_bert
from promptray.export.tokenizer_settings import tokenizer_files
from promptray.runtime.errors import BuildError

CONFIG = "open_clip_config.json"
#: Text models whose configuration is known, so that the published folder, which lacks it, is enough.
KNOWN_TEXT_MODELS: Mapping[str, dict[str, Any]] = {
    name: {"model_type": "bert", "num_attention_heads": 12, "hidden_size": 768, "num_hidden_layers": 12}
    for name in (
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract",
    )
}
#: Keys that change nothing of a score: initialisation, regularisation, and how training code loads weights.
_IDLE = {
    "model_cfg": {"custom_text", "quick_gelu", "init_logit_bias", "init_logit_scale"},
    "vision_cfg": {"timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout"},
    "text_cfg": {"hf_tokenizer_name", "hf_model_pretrained", "vocab_size", "width", "heads", "layers"},
    "preprocess_cfg": {"mode"},
}
_Side = Annotated[int, Meta(ge=1, le=4096)]
_Three = tuple[float, float, float]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is not known here could change a score, so it is refused."""


class VisionConfig(_Struct, frozen=True, kw_only=True):
    """``model_cfg.vision_cfg`` of an image tower of timm."""

    timm_model_name: str
    timm_pool: Literal["", "avg", "token"] = "avg"
    timm_proj: Literal["linear", "mlp"] = "linear"
    timm_proj_bias: bool = False
    image_size: _Side = 224


class TextConfig(_Struct, frozen=True, kw_only=True):
    """``model_cfg.text_cfg`` of a text tower of transformers."""

    hf_model_name: str
    hf_proj_type: Literal["mlp", "linear"] | None = "mlp"
    # open_clip's max_pooler raises an error for every input, so no model was trained with it.
    hf_pooler_type: Literal["cls_last_hidden_state_pooler", "cls_pooler", "mean_pooler"] = "mean_pooler"
    context_length: Annotated[int, Meta(ge=2, le=4096)] = 77


class ModelConfig(_Struct, frozen=True, kw_only=True):
    """``model_cfg``."""

    embed_dim: _Side
    vision_cfg: VisionConfig
    text_cfg: TextConfig


class PreprocessConfig(_Struct, frozen=True, kw_only=True):
    """``preprocess_cfg``; the defaults are open_clip's."""

    mean: _Three = (0.48145466, 0.4578275, 0.40821073)
    std: _Three = (0.26862954, 0.26130258, 0.27577711)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: Annotated[int, Meta(ge=0, le=255)] = 0
    size: _Side | list[_Side] | None = None


class OpenClipConfig(_Struct, frozen=True, kw_only=True):
    """The whole ``open_clip_config.json``."""

    model_cfg: ModelConfig
    preprocess_cfg: PreprocessConfig = PreprocessConfig()


@dataclass(frozen=True)
class OpenClipFolder:
    """Configuration and text model of a published open_clip folder.

    Attributes
    ----------
    config : OpenClipConfig
    text : BertFolder
        Configuration, vocabulary and tokenizer settings of the text tower.
    """

    config: OpenClipConfig
    text: BertFolder


def source_files(checkpoint: Path, text_model: Path | None) -> list[Path]:
    """Return the files beside the checkpoint, or of the text model, that the model is read from."""
    config = checkpoint.with_name(CONFIG)
    try:
        bert, vocabulary = _text_files(read_config(config), checkpoint, text_model)
    except BuildError:  # loading will say it, and the files that are there are those that count until then
        return [config]
    return [config, *([bert] if bert else []), vocabulary, *tokenizer_files(vocabulary)]


def read_open_clip_folder(checkpoint: Path, text_model: Path | None) -> OpenClipFolder:
    """Read what lies beside a checkpoint.

    Parameters
    ----------
    checkpoint : Path
        The weights; ``open_clip_config.json`` and ``vocab.txt`` are expected in the same folder.
    text_model : Path or None
        Folder with the text model's ``config.json``, and perhaps ``vocab.txt``, where they are elsewhere.

    Raises
    ------
    BuildError
        ``checkpoint.config`` for a configuration that is missing or holds what is not implemented;
        ``text-model.invalid``.
    """
    config = read_config(checkpoint.with_name(CONFIG))
    bert, vocabulary = _text_files(config, checkpoint, text_model)
    known = KNOWN_TEXT_MODELS.get(config.model_cfg.text_cfg.hf_model_name)
    if bert is None and known is None:
        raise BuildError(
            "text-model.invalid",
            f"the configuration of the text model {config.model_cfg.text_cfg.hf_model_name} is not there",
            artefact=checkpoint.parent.name,
            expected="its config.json, in the folder that the recipe's text_model names",
            cure="get config.json from where the text model is published, and set text_model in the recipe",
        )
    text = read_bert(bert if bert is not None else dict(known or {}), vocabulary)
    if text.config.get("model_type", "bert") != "bert":
        raise BuildError(
            "text-model.invalid",
            "the text tower is no BERT",
            artefact=text.name,
            expected="model_type bert",
            found=repr(text.config["model_type"])[:40],
            cure="only BERT text towers are supported",
        )
    stated_pad, pad = text.config.get("pad_token_id", 0), text.vocabulary.index("[PAD]")
    if stated_pad != pad:
        raise BuildError(
            "text-model.invalid",
            "config.json and vocab.txt disagree on the padding, which must not be attended to",
            artefact=text.name,
            expected=f"pad_token_id {pad}, the place of [PAD]",
            found=repr(stated_pad)[:40],
            cure="put both files of one text model there",
        )
    return OpenClipFolder(config, text)


def read_config(path: Path) -> OpenClipConfig:
    """Read ``open_clip_config.json``, old spellings included.

    Raises
    ------
    BuildError
        ``checkpoint.config``, naming the key.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise _config_error(
            path,
            f"the configuration beside the checkpoint cannot be read ({type(error).__name__})",
            "a JSON file",
        ) from error
    if isinstance(content, dict) and "model_cfg" not in content:  # as open_clip's own list of models has it
        content = {"model_cfg": content}
    try:
        config: OpenClipConfig = msgspec.convert(_plain(content), OpenClipConfig)
    except msgspec.ValidationError as error:
        raise _config_error(
            path,
            f"the configuration holds what is not implemented: {error}",
            "an image tower of timm and a BERT",
        ) from error
    size, side = config.preprocess_cfg.size, config.model_cfg.vision_cfg.image_size
    if size is not None and size not in (side, [side, side], [3, side, side]):
        raise _config_error(path, "preprocess_cfg.size is not the network's image size", f"{side}")
    if not all(0 < value < math.inf for value in config.preprocess_cfg.std):
        raise _config_error(path, "preprocess_cfg.std holds what cannot normalise", "numbers above 0")
    return config


def _plain(content: Any) -> Any:
    """Drop idle keys and rename old ones."""
    if not isinstance(content, dict):
        return content
    plain = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    parts = {"preprocess_cfg": plain.get("preprocess_cfg"), "model_cfg": plain.get("model_cfg")}
    if isinstance(model := parts["model_cfg"], dict):
        for name in ("vision_cfg", "text_cfg"):
            if isinstance(model.get(name), dict):
                parts[name] = model[name] = dict(model[name])
    for name, part in parts.items():
        for key in _IDLE[name] if isinstance(part, dict) else ():
            part.pop(key, None)  # type: ignore[union-attr]
    if isinstance(text := parts.get("text_cfg"), dict):
        for old, new in (("proj", "hf_proj_type"), ("pooler_type", "hf_pooler_type")):
            if old in text:
                text.setdefault(new, text.pop(old))
    return plain


def _text_files(
    config: OpenClipConfig, checkpoint: Path, text_model: Path | None
) -> tuple[Path | None, Path]:
    """Return the text model's config.json, None where there is none, and its vocab.txt."""
    folder = checkpoint.parent
    # A name may be a folder beside the weights; one that climbs out of it is a hub's name at best.
    local = folder / config.model_cfg.text_cfg.hf_model_name
    places = (
        [text_model] if text_model else [local] if local.resolve().is_relative_to(folder.resolve()) else []
    )
    bert = next((place / "config.json" for place in places if (place / "config.json").is_file()), None)
    if text_model is not None and bert is None:
        bert = text_model / "config.json"  # asked for, so its absence is an error
    beside = [place / "vocab.txt" for place in places] + [folder / "vocab.txt"]
    return bert, next((path for path in beside if path.is_file()), beside[-1])


def _config_error(path: Path, message: str, expected: str) -> BuildError:
    return BuildError(
        "checkpoint.config",
        message,
        artefact=path.name,
        expected=expected,
        cure="put the file published with the checkpoint beside it",
    )
