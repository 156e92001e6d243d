"""KAD against its published formulas: the sides in torch, the exported graphs, and what a loader refuses.

The published weights were not at hand, so the originals here are `tests.kad_arithmetic`, which knows only
the tensors' names, and at full size the modules of torchvision, transformers and torch that the source is
made of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.full_size import kad_parts, write_vocabulary
from promptray.export.families import facts
from promptray.export.families.base import LoadedModel
from promptray.export.families.kad import CONTEXT, FAMILY
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle.image_rules import Door
from promptray.runtime.door import open_picture
from promptray.runtime.errors import BuildError
from promptray.runtime.preprocess import preprocess
from promptray.runtime.prompts import PromptBank
from promptray.runtime.text import EncodedFinding, TextEncoder
from tests import kad_arithmetic, kad_tiny
from tests.exported import Exported
from tests.kad_tiny import FINDINGS, IMAGES, Sizes

SIZE = 64
#: float32 against double precision.
LOGIT, MAP = 1e-5, 1e-6
SIZES = {"three stages": Sizes(), "four stages": Sizes(stages=4)}
PIXELS = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


class Tiny:
    """A tiny model, its graphs, and what the published formulas say of it."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.content = kad_tiny.checkpoint(sizes)
        self.heads = sizes.bert_heads
        self.model: LoadedModel = FAMILY.load(*kad_tiny.write(folder, sizes), {"image_size": SIZE})
        self.exported = Exported(self.model)

    def encoded(self, terms: Any = FINDINGS) -> list[EncodedFinding]:
        return [self.exported.encoder.encode_finding([term]) for term in terms]

    def expected(self, terms: Any = FINDINGS, pixels: Tensor = PIXELS) -> tuple[Any, Any]:
        ids = [each.prompts[0].arrays["input_ids"][0].tolist() for each in self.encoded(terms)]
        logits, maps = kad_arithmetic.scored(self.content, pixels, ids, self.heads)
        side = int(maps.shape[-1] ** 0.5)
        return logits, maps.reshape(*logits.shape, side, side)

    def scored(self, terms: Any = FINDINGS, pixels: Tensor = PIXELS) -> tuple[Any, Any]:
        return self.exported.score(self.exported.bank(self.encoded(terms)), pixels.numpy())


@pytest.fixture(scope="module", params=SIZES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("kad"), SIZES[request.param])


def worst(found: Any, expected: Any) -> float:
    assert np.shape(found) == np.shape(expected)
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


def module(model: LoadedModel, role: str) -> Any:
    assert model.text is not None
    sides = {"image": model.image, "text": model.text.side, "head": model.heads[0].side}
    return sides[role].module


def test_torch_sides_equal_the_formulas(tiny: Tiny) -> None:
    ids = [each.prompts[0].arrays["input_ids"] for each in tiny.encoded()]
    with torch.inference_mode():
        (positions,) = module(tiny.model, "image")(PIXELS)
        queries = [module(tiny.model, "text")(torch.from_numpy(each))[0] for each in ids]
    wanted = kad_arithmetic.positions(tiny.content["image_encoder"], PIXELS)
    assert worst(positions, wanted) <= 2e-6 * float(wanted.abs().max())
    expected = kad_arithmetic.queries(tiny.content["text_encoder"], [each[0] for each in ids], tiny.heads)
    assert worst(torch.stack(queries), expected) <= 5e-6


@pytest.mark.parametrize("images", [1, 3])
def test_graphs_equal_the_formulas(tiny: Tiny, images: int) -> None:
    for terms in (FINDINGS, FINDINGS[:1]):
        found, expected = tiny.scored(terms, PIXELS[:images]), tiny.expected(terms, PIXELS[:images])
        assert worst(found[0], expected[0]) <= LOGIT
        assert worst(found[1], expected[1]) <= MAP
    assert found[1].sum(axis=(2, 3)) == pytest.approx(1, abs=1e-5), "attention of one image sums to 1"


def test_the_reference_equals_the_formulas(tiny: Tiny) -> None:
    done: list[int] = []
    answers = tiny.model.heads[0].reference(PIXELS, tiny.encoded(), done.append)
    logits, maps = tiny.expected()
    assert worst(answers.logits, logits) <= LOGIT
    assert worst(answers.maps, maps) <= MAP
    assert done == [1, 2, 3]


def test_the_order_of_findings_permutes_their_scores_and_nothing_else(tiny: Tiny) -> None:
    logits, maps = tiny.scored()
    backwards, maps_backwards = tiny.scored(FINDINGS[::-1])
    assert worst(backwards[:, ::-1], logits) <= LOGIT
    assert worst(maps_backwards[:, ::-1], maps) <= MAP
    assert min(np.ptp(logits, axis=1)) > 100 * LOGIT, "findings that all score alike would pass any order"


def test_a_part_of_the_findings_scores_otherwise(tiny: Tiny) -> None:
    """Why a list is one unit; padding beside it would be seen, too."""
    logits, _ = tiny.scored()
    some, _ = tiny.scored(FINDINGS[:2])
    assert worst(some, logits[:, :2]) > 10 * LOGIT
    padded, _ = tiny.exported.score(tiny.exported.bank(tiny.encoded()), PIXELS.numpy(), per_batch=8)
    assert worst(padded, logits) > 10 * LOGIT


def test_what_the_model_says_of_itself(tiny: Tiny) -> None:
    model = tiny.model
    (head,) = model.heads
    assert (head.set, head.activation) == ("fixed", "sigmoid")
    assert (head.relations, head.classes, head.ensemble) == (("independent",), None, "none")
    assert any("not compared with the published weights" in note for note in model.notes)


PROMPTS = (
    *FINDINGS,
    "Pleural  EFFUSION",
    " lung\n opacity ",
    "Kerley's B-lines, 2.5 cm (right)",
    "naïve Ödem",
    "lung [SEP] heart",
    "pneumonia " * 300,
)


def test_tokens_equal_those_of_the_published_scripts(tmp_path: Path) -> None:
    """Lower case though the tokenizer's own settings deny it, 256 tokens, special pieces for themselves."""
    ensure_torchvision_imports()
    from transformers import BertTokenizerFast

    path, text_model = kad_tiny.write(tmp_path, do_lower_case=False)
    model = FAMILY.load(path, text_model, {})
    theirs = BertTokenizerFast.from_pretrained(text_model, do_lower_case=True, local_files_only=True)
    rows = theirs(list(PROMPTS), max_length=CONTEXT, padding="max_length", truncation=True)
    assert model.text is not None
    encoder = TextEncoder(model.text.rule, model.text.tokenizer)
    for prompt, ids, mask in zip(PROMPTS, rows["input_ids"], rows["attention_mask"], strict=True):
        own = encoder.encode(prompt).arrays["input_ids"][0].tolist()
        assert own == ids[: sum(mask)], prompt[:40]
    assert sum(rows["attention_mask"][-1]) == CONTEXT


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_pixels_equal_those_of_the_published_scripts(tiny: Tiny, path: Path) -> None:
    """Pillow's bicubic on 8-bit RGB to a square, 0 to 1, ImageNet's mean and deviation."""
    rule = tiny.model.preprocessing
    with Image.open(path) as image:
        # Columns first, as Pillow did when they were published; from 13 on, rows may come first.
        narrow = image.convert("RGB").resize((SIZE, image.height), Image.Resampling.BICUBIC)
        resized = np.asarray(narrow.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    expected = (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    picture = open_picture(path, Door(modalities=["DX"]), rule.greyscale, keep_colour=True, modality="DX")
    assert worst(preprocess(picture.shown, rule).pixels[0], expected.transpose(2, 0, 1)) <= 1e-6


def config(**stated: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content, "config": stated}


@pytest.mark.parametrize(
    ("stages", "stated", "options", "size", "said"),
    [
        (3, {"image_res": 512}, {}, 224, "not verified"),  # the published scripts do not read that key
        (3, {"img_res": 96}, {}, 96, "checkpoint's config"),
        (4, {"img_res": 128}, {}, 128, "checkpoint's config"),
        (4, {"img_res": 128}, {"image_size": 96}, 96, "recipe"),
        (3, None, {}, 224, "not verified"),
    ],
)
def test_where_the_size_of_the_image_comes_from(
    tmp_path: Path, stages: int, stated: Any, options: dict[str, object], size: int, said: str
) -> None:
    change = config(**stated) if stated else lambda content: {**content, "config": "none"}
    model = FAMILY.load(*kad_tiny.write(tmp_path, Sizes(stages=stages), change), options)
    grid = size // (16 if stages == 3 else 32)
    assert model.preprocessing.height == model.preprocessing.width == size
    assert model.heads[0].map is not None
    assert model.heads[0].map.grid == [grid, grid]
    assert f"{size} x {size}" in model.notes[0]
    assert said in model.notes[0]


def part(name: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Any:
    return lambda content: {**content, name: change(content[name])}


def without(name: str, *stems: str) -> Any:
    return part(name, lambda state: {k: v for k, v in state.items() if not k.startswith(stems)})


def with_(name: str, **tensors: Tensor) -> Any:
    named = {key.replace("__", "."): value for key, value in tensors.items()}
    return part(name, lambda state: {**state, **named})


def shifted(name: str, key: str) -> Any:
    return part(name, lambda state: {**state, key: state[key] + 1})


_LAYOUT = "checkpoint.layout"
REFUSED: dict[str, tuple[Any, dict[str, object], str, str]] = {
    "another family": (lambda _: {"state_dict": {"a.weight": torch.ones(2)}}, {}, _LAYOUT, "image_encoder"),
    "no text side": (
        lambda content: {key: value for key, value in content.items() if key != "text_encoder"},
        {}, _LAYOUT, "lacks text_encoder",
    ),
    "a part that is no state dict": (lambda c: {**c, "model": 3}, {}, _LAYOUT, "lacks model"),
    "a DenseNet": (
        part("image_encoder", lambda state: {"dense_features.conv0.weight": state["res_l1.weight"]}),
        {}, _LAYOUT, "none of the ResNets",
    ),
    "a bias missing": (without("image_encoder", "res_l2.bias"), {}, _LAYOUT, "missing image_encoder.res_l2"),
    "a tensor too many": (
        with_("model", query_embed__weight=torch.ones(2)), {}, _LAYOUT, "unexpected model.query_embed",
    ),
    "a stage missing": (
        without("image_encoder", "res_features.6"), {}, _LAYOUT, "shape of image_encoder.res_l1",
    ),
    "no pooler": (without("text_encoder", "bert_model.pooler"), {}, _LAYOUT, "pooler.dense"),
    "parts of different widths": (
        with_("image_encoder", res_l2__weight=torch.ones(24, 48), res_l2__bias=torch.ones(24)),
        {}, _LAYOUT, "shape of image_encoder.res_l2",
    ),
    "one output": (
        with_("model", mlp_head__0__weight=torch.ones(1, 32), mlp_head__0__bias=torch.ones(1)),
        {}, _LAYOUT, "two outputs",
    ),
    "a width that four heads do not divide": (
        lambda _: kad_tiny.checkpoint(Sizes(width=30)), {}, _LAYOUT, "4 attention heads",
    ),
    "two values of one convolution": (
        shifted("image_encoder", "resnet.layer2.0.conv2.weight"), {}, _LAYOUT, "two different",
    ),
    "two values of one norm": (shifted("model", "decoder.norm.bias"), {}, _LAYOUT, "two different"),
    "a number that is not finite": (
        with_("image_encoder", res_l1__bias=torch.full((48,), torch.nan)), {}, _LAYOUT, "not finite",
    ),
    "no layers": (without("model", "decoder.layers"), {}, _LAYOUT, "do not describe KAD"),
    "too few positions": (
        part("text_encoder", lambda state: {
            k: v[:, :40] if k.endswith("position_ids") else v[:40] if "position_emb" in k else v
            for k, v in state.items()
        }),
        {}, _LAYOUT, "fewer positions",
    ),
    "a size that the stages do not divide": (dict, {"image_size": 100}, "recipe.invalid", "image_size"),
    "a size that is no number": (dict, {"image_size": "224"}, "recipe.invalid", "image_size"),
    "a size that is a yes": (dict, {"image_size": True}, "recipe.invalid", "image_size"),
    "a size beyond all pictures": (dict, {"image_size": 8192}, "recipe.invalid", "image_size"),
    "a stated size that cannot be": (config(img_res=-16), {}, "recipe.invalid", "image_size"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_loader_refuses(tmp_path: Path, case: str) -> None:
    change, options, code, said = REFUSED[case]
    with pytest.raises(BuildError, match=said) as refused:
        FAMILY.load(*kad_tiny.write(tmp_path, change=change), options)
    assert refused.value.code == code


def test_four_stages_do_not_tell_their_image(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no tensor tells the side") as refused:
        FAMILY.load(*kad_tiny.write(tmp_path, Sizes(stages=4)), {})
    assert refused.value.code == "recipe.invalid"
    assert "KAD-512" in str(refused.value)


def test_a_text_model_of_other_weights_is_refused(tmp_path: Path) -> None:
    path, _ = kad_tiny.write(tmp_path)
    other = kad_tiny.write_text_model(tmp_path / "other", Sizes(bert_width=48))
    with pytest.raises(BuildError, match="hidden_size") as refused:
        FAMILY.load(path, other, {})
    assert refused.value.code == "text-model.invalid"
    with pytest.raises(BuildError, match="needs a text model folder"):
        FAMILY.load(path, None, {})


def test_a_build_hashes_what_it_reads(tmp_path: Path) -> None:
    path, text_model = kad_tiny.write(tmp_path)
    files = {each.name for each in facts("kad").source_files(path, text_model)}
    assert {"config.json", "vocab.txt", "tokenizer_config.json"} <= files


@pytest.mark.slow
@pytest.mark.parametrize(("stages", "size"), [(3, 224), (4, 512)])
def test_full_size_equals_the_libraries_that_the_source_is_made_of(
    tmp_path: Path, stages: int, size: int
) -> None:
    """torchvision's ResNet-50, transformers' BERT and torch's decoder, in double precision, padded terms."""
    torch.manual_seed(stages)
    parts = _published_modules(stages)
    torch.save({name: part.state_dict() for name, part in parts.items()}, tmp_path / "best_valid.pt")
    text_model = kad_tiny.write_text_model(tmp_path, Sizes(bert_width=768, bert_layers=12, bert_heads=12))
    write_vocabulary(text_model / "vocab.txt", kad_tiny.VOCABULARY, 30522)
    model = FAMILY.load(tmp_path / "best_valid.pt", text_model, {"image_size": size})
    exported = Exported(model)
    encoded = [exported.encoder.encode_finding([term]) for term in FINDINGS]
    pixels = torch.randn(1, 3, size, size)
    logits, maps = _published_scores(parts, pixels, encoded)
    found = exported.score(PromptBank(exported.rule, exported.bank(encoded)), pixels.numpy())
    answers = model.heads[0].reference(pixels, encoded)
    head = model.heads[0]
    assert np.ptp(logits) > 100 * head.score_tolerance, "findings that all score alike would hide a mix-up"
    for name, (own, own_maps) in {"graphs": found, "reference": (answers.logits, answers.maps)}.items():
        assert worst(own, logits) <= model.heads[0].score_tolerance, name
        assert worst(own_maps.reshape(maps.shape), maps) <= model.heads[0].map.tolerance, name
    assert own_maps.shape[2:] == ((14, 14) if stages == 3 else (16, 16))


def _published_modules(stages: int) -> dict[str, nn.Module]:
    parts = kad_parts(stages)
    for part in ("text_encoder", "model"):  # alike layers, and alike queries, would hide what is mixed up
        for name, parameter in parts[part].named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.06)
            elif not name.endswith("weight"):
                nn.init.normal_(parameter, std=0.1)
    return parts


def _published_scores(
    parts: dict[str, Any], pixels: Tensor, findings: list[EncodedFinding]
) -> tuple[Any, Any]:
    image, text, model = (parts[name].double().eval() for name in ("image_encoder", "text_encoder", "model"))
    ids, mask = (torch.zeros(len(findings), CONTEXT, dtype=torch.int64) for _ in range(2))
    for row, finding in enumerate(findings):
        own = finding.prompts[0].arrays["input_ids"][0]
        ids[row, : len(own)], mask[row, : len(own)] = torch.from_numpy(own), 1
    seen: list[Tensor] = []
    last = model.decoder.layers[-1].multihead_attn
    attend = last.forward

    def spied(*inputs: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        answer, weights = attend(*inputs, **{**options, "need_weights": True})
        seen.append(weights)
        return answer, weights

    last.forward = spied
    with torch.inference_mode():
        memory = image.res_features(pixels.double()).flatten(2).transpose(1, 2)
        memory = model.decoder_norm(image.res_l2(image.res_l1(memory).relu()))
        asked = text.mlp_embed(text.bert_model(input_ids=ids, attention_mask=mask).pooler_output)
        outputs = model.mlp_head(model.decoder(model.decoder_norm(asked)[None], memory))
    return outputs.softmax(-1)[..., 1].logit().numpy(), seen[0].numpy()
