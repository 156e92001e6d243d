"""open_clip's model folders: every spelling of the configuration, and what is absent or not implemented."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptray.export.families.open_clip import FAMILY
from promptray.export.families.open_clip_folder import (
    KNOWN_TEXT_MODELS,
    PreprocessConfig,
    TextConfig,
    VisionConfig,
    read_config,
    read_open_clip_folder,
    source_files,
)
from promptray.export.tokenizer_settings import TokenizerSettings
from promptray.runtime.errors import BuildError
from tests.open_clip_tiny import CONFIG, FOLDER, WEIGHTS, change_json, copy_folder

TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
Change = Callable[[dict[str, Any]], Any]


def vision(**values: Any) -> Change:
    return lambda content: content["model_cfg"]["vision_cfg"].update(values)


def text(**values: Any) -> Change:
    return lambda content: content["model_cfg"]["text_cfg"].update(values)


def pixels(**values: Any) -> Change:
    return lambda content: content["preprocess_cfg"].update(values)


def renamed(content: dict[str, Any]) -> None:
    part = content["model_cfg"]["text_cfg"]
    part["proj"], part["pooler_type"] = part.pop("hf_proj_type"), part.pop("hf_pooler_type")


SAME: dict[str, Change] = {
    "as older revisions spell it": renamed,
    "keys that change no score": lambda c: (
        c["model_cfg"].update(custom_text=True, init_logit_bias=-10, quick_gelu=False),
        vision(timm_model_pretrained=True, timm_drop=0.1, timm_drop_path=None, patch_dropout=0.5)(c),
        text(hf_tokenizer_name="another", hf_model_pretrained=True, vocab_size=30522)(c),
        pixels(mode="RGB")(c),
    ),
    "the size as a number": pixels(size=224),
    "the size as a list": pixels(size=[224, 224]),
    "the defaults written out": pixels(interpolation="bicubic", resize_mode="shortest", fill_color=0),
}


@pytest.mark.parametrize("spelling", SAME)
def test_other_spellings_mean_the_same(tmp_path: Path, spelling: str) -> None:
    copy_folder(tmp_path, config=SAME[spelling])
    found, plain = read_config(tmp_path / CONFIG), read_config(FOLDER / CONFIG)
    assert found.model_cfg == plain.model_cfg
    without_size = {name: getattr(found.preprocess_cfg, name) for name in ("mean", "std", "interpolation")}
    assert PreprocessConfig(**without_size) == plain.preprocess_cfg


def test_what_is_left_out_has_open_clips_defaults(tmp_path: Path) -> None:
    """A configuration of open_clip's own list: no model_cfg around it, no preprocess_cfg."""
    content = {
        "embed_dim": 512,
        "vision_cfg": {"timm_model_name": "vit_base_patch16_224"},
        "text_cfg": {"hf_model_name": "bert"},
    }
    path = tmp_path / CONFIG
    path.write_text(json.dumps(content))
    found = read_config(path)
    assert found.model_cfg.vision_cfg == VisionConfig(
        timm_model_name="vit_base_patch16_224", timm_pool="avg", timm_proj="linear", timm_proj_bias=False,
        image_size=224,
    )  # fmt: skip
    assert found.model_cfg.text_cfg == TextConfig(
        hf_model_name="bert", hf_proj_type="mlp", hf_pooler_type="mean_pooler", context_length=77
    )
    assert found.preprocess_cfg.mean == (0.48145466, 0.4578275, 0.40821073)
    assert found.preprocess_cfg.std == (0.26862954, 0.26130258, 0.27577711)
    assert (found.preprocess_cfg.interpolation, found.preprocess_cfg.resize_mode) == ("bicubic", "shortest")


REFUSED: dict[str, tuple[Change, str]] = {
    "an unknown key": (lambda c: c.update(extra=1), "unknown field `extra`"),
    "an unknown key of the model": (
        lambda c: c["model_cfg"].update(multimodal_cfg={}), "unknown field `multimodal_cfg`",
    ),
    "an image tower of open_clip": (vision(layers=12), "unknown field `layers`"),
    "a text tower of open_clip": (text(embed_cls=True), "unknown field `embed_cls`"),
    "no text tower of transformers": (
        lambda c: c["model_cfg"]["text_cfg"].pop("hf_model_name"), "required field `hf_model_name`",
    ),
    "another cleaning": (text(tokenizer_kwargs={"clean": "canonicalize"}), "`tokenizer_kwargs`"),
    "another pooling of patches": (vision(timm_pool="abs_attn"), "'abs_attn' - at `$.model_cfg.vision_cfg"),
    "a pooler that open_clip cannot run": (text(hf_pooler_type="max_pooler"), "'max_pooler'"),
    "another projection": (text(hf_proj_type="cosine"), "'cosine'"),
    "another filter": (pixels(interpolation="random"), "'random' - at `$.preprocess_cfg.interpolation`"),
    "another resize": (pixels(resize_mode="fit"), "'fit' - at `$.preprocess_cfg.resize_mode`"),
    "a colour that does not exist": (pixels(fill_color=256), "<= 255"),
    "two channels": (pixels(mean=[0.5, 0.5]), "length 3"),
    "another size to resize to": (pixels(size=384), "preprocess_cfg.size is not the network's image size"),
    "a size that is not square": (vision(image_size=[224, 336]), "`$.model_cfg.vision_cfg.image_size`"),
    "an absurd size": (vision(image_size=10**9), "image_size"),
    "a size as text": (lambda c: c["model_cfg"].update(embed_dim="32"), "embed_dim"),
    "no context": (text(context_length=1), "context_length"),
    "a list": (lambda c: c.update(model_cfg=[]), "Expected `object`, got `array` - at `$.model_cfg`"),
    "nothing in it": (lambda c: c.clear(), "missing required field"),
}  # fmt: skip


@pytest.mark.parametrize("refused", REFUSED)
def test_what_could_change_a_score_is_refused_by_name(tmp_path: Path, refused: str) -> None:
    change, named = REFUSED[refused]
    path = copy_folder(tmp_path, config=change)
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(path, None, {})
    assert refusal.value.code == "checkpoint.config"
    assert refusal.value.artefact == CONFIG
    assert named in refusal.value.message


BROKEN = {
    "absent": None, "empty": b"", "no JSON": b"{", "no UTF-8": b'{"a": "\xff"}', "a list": b"[]",
    "nested without end": b"[" * 100_000, "a number": b"1",
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_configuration_is_refused(tmp_path: Path, broken: str) -> None:
    path = copy_folder(tmp_path)
    content = BROKEN[broken]
    (tmp_path / CONFIG).unlink()
    if content is not None:
        (tmp_path / CONFIG).write_bytes(content)
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(path, None, {})
    assert refusal.value.code == "checkpoint.config"
    assert refusal.value.artefact == CONFIG
    assert refusal.value.cure == "put the file published with the checkpoint beside it"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", [CONFIG, "vocab.txt", "tokenizer_config.json", "bert/config.json"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = copy_folder(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    if name == "tokenizer_config.json":
        assert read_open_clip_folder(path, None).text.settings == TokenizerSettings()
        return
    with pytest.raises(BuildError):
        FAMILY.load(path, None, {})


def test_another_image_size_than_the_weights_is_refused(tmp_path: Path) -> None:
    path = copy_folder(tmp_path, config=vision(image_size=384))
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(path, None, {})
    assert refusal.value.code == "checkpoint.config"
    assert refusal.value.expected == "577 positions for 384 x 384 pixels"


@pytest.mark.parametrize("std", [[0, 1, 1], [0.2, -0.2, 0.2]])
def test_a_deviation_that_cannot_normalise_is_refused(tmp_path: Path, std: list[float]) -> None:
    path = copy_folder(tmp_path, config=pixels(std=std))
    with pytest.raises(BuildError, match=r"preprocess_cfg\.std") as refusal:
        FAMILY.load(path, None, {})
    assert refusal.value.code == "checkpoint.config"


def test_a_context_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    path = copy_folder(tmp_path, config=text(context_length=513))
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(path, None, {})
    assert (refusal.value.code, refusal.value.expected) == ("checkpoint.config", "at most 512")
    longest = copy_folder(tmp_path / "512", config=text(context_length=512))
    assert FAMILY.load(longest, None, {}).text.rule.context == 512


def bert(**values: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "bert" / "config.json", lambda content: content.update(values))


def piece(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / "vocab.txt").read_text(encoding="utf-8")
        (folder / "vocab.txt").write_text(content.replace(old, new, 1), encoding="utf-8")

    return change


TEXT_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no vocabulary": (lambda folder: (folder / "vocab.txt").unlink(), "cannot be read (FileNotFoundError)"),
    "no configuration": (
        lambda folder: (folder / "bert" / "config.json").unlink(), "text model bert is not there",
    ),
    "no BERT": (bert(model_type="roberta"), "the text tower is no BERT"),
    "no heads": (bert(num_attention_heads=None), "states no number of attention heads"),
    "another width": (bert(hidden_size=768), "hidden_size does not fit"),
    "another depth": (bert(num_hidden_layers=12), "num_hidden_layers does not fit"),
    "another activation": (bert(hidden_act="relu"), "another hidden_act"),
    "another vocabulary": (lambda folder: piece("pneumonia\n", "")(folder), "number of lines of vocab.txt"),
    "no padding": (piece("[PAD]", "[PAD0]"), "lacks a special piece"),
    "another padding": (bert(pad_token_id=1), "disagree on the padding"),
    "padding as text": (bert(pad_token_id="0"), "disagree on the padding"),
    "no padding stated": (bert(pad_token_id=None), "disagree on the padding"),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXT_MODELS)
def test_a_text_model_that_does_not_fit_is_refused_with_a_cure(tmp_path: Path, case: str) -> None:
    change, named = TEXT_MODELS[case]
    path = copy_folder(tmp_path)
    change(tmp_path)
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(path, None, {})
    assert refusal.value.code == "text-model.invalid"
    assert named in refusal.value.message
    assert refusal.value.cure


@pytest.mark.parametrize("name", KNOWN_TEXT_MODELS)
def test_the_published_folder_needs_no_text_configuration(tmp_path: Path, name: str) -> None:
    path = copy_folder(tmp_path, config=text(hf_model_name=name))
    (tmp_path / "bert" / "config.json").unlink()
    found = read_open_clip_folder(path, None)
    assert found.text.heads == 12
    assert len(found.text.vocabulary) == 400
    with pytest.raises(BuildError, match=r"\(64\) is not a multiple .* \(12\)"):
        FAMILY.load(path, None, {"image_heads": 4})  # these weights are not that model's


def test_a_hubs_name_is_no_path(tmp_path: Path) -> None:
    """A name that climbs out of the folder names nothing there, and is not followed."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    for name in ("../outside", str(tmp_path / "outside")):
        path = copy_folder(tmp_path / "model", config=text(hf_model_name=name))
        with pytest.raises(BuildError) as refusal:
            read_open_clip_folder(path, None)
        assert refusal.value.code == "text-model.invalid"
        assert "set text_model in the recipe" in str(refusal.value)


def test_the_recipes_text_model_is_used(tmp_path: Path) -> None:
    path = copy_folder(tmp_path / "model")
    text_model = tmp_path / "text_model"
    (tmp_path / "model" / "bert").rename(text_model)
    assert read_open_clip_folder(path, text_model).text.heads == 4
    (tmp_path / "model" / "vocab.txt").rename(text_model / "vocab.txt")
    (tmp_path / "model" / "tokenizer_config.json").rename(text_model / "tokenizer_config.json")
    loaded, beside = FAMILY.load(path, text_model, {}), FAMILY.load(FOLDER / WEIGHTS, None, {})
    assert loaded.heads[0].identity == beside.heads[0].identity
    assert source_files(path, text_model) == [
        tmp_path / "model" / CONFIG,
        *(text_model / name for name in ("config.json", "vocab.txt", *TOKENIZER)),
    ]
    (text_model / "config.json").unlink()
    with pytest.raises(BuildError) as refusal:
        read_open_clip_folder(path, text_model)
    assert refusal.value.code == "text-model.invalid"


def test_the_tokenizer_is_the_folders(tmp_path: Path) -> None:
    path = copy_folder(tmp_path)
    assert read_open_clip_folder(path, None).text.settings == TokenizerSettings()
    other = {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}
    change_json(tmp_path / "tokenizer_config.json", lambda content: content.update(other))
    normalizer = json.loads(FAMILY.load(path, None, {}).text.tokenizer)["normalizer"]
    names = ("lowercase", "strip_accents", "handle_chinese_chars")
    assert [normalizer[name] for name in names] == list(other.values())
    shutil.copy(FOLDER / "tokenizer.json", tmp_path)
    with pytest.raises(BuildError, match=r"normalizer\.handle_chinese_chars") as refusal:
        FAMILY.load(path, None, {})
    assert (refusal.value.code, refusal.value.artefact) == ("text-model.invalid", "tokenizer.json")


def test_every_file_that_is_read_is_named() -> None:
    """Provenance and the build's cache depend on them."""
    named = source_files(FOLDER / WEIGHTS, None)
    assert named == [FOLDER / name for name in (CONFIG, "bert/config.json", "vocab.txt", *TOKENIZER)]
