"""CARZero against the original: the sides in torch, the exported graphs, and the original's plain arithmetic.

``tests/data/carzero_tiny/oracle.npz`` holds outputs of the original implementation (see its README).
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families import family
from promptray.export.families.base import LoadedModel
from promptray.export.families.carzero import FAMILY
from promptray.export.families.carzero_checkpoint import CONSTANTS, check_configuration
from promptray.export.model_facts import describe
from promptray.export.onnx_graph import OPSET, export_graph
from promptray.runtime.backends import BoundGraph
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle.manifest import BankRule, Graph
from promptray.runtime.errors import BuildError
from promptray.runtime.graphs import encode_finding
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.text import EncodedPrompt, TextEncoder

TINY = Path(__file__).parents[2] / "data" / "carzero_tiny"
SCORES, MAPS = 2e-5, 1e-6
WORDS = "there is no mild severe left right lung pleural effusion consolidation of the and".split()


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return FAMILY.load(TINY / "CARZero_best_model.ckpt", TINY / "text_model", {})


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    """The original's outputs; of its pixels, three equal planes, the one that is read."""
    found = dict(np.load(TINY / "oracle.npz"))
    planes = found["images"]
    assert (planes == planes[:, :1]).all()
    return {**found, "images": planes[:, :1].copy()}


@pytest.fixture(scope="module")
def prompts() -> dict[str, str]:
    content: dict[str, str] = json.loads((TINY / "prompts.json").read_text())
    return content


@pytest.fixture(scope="module")
def encoder(model: LoadedModel) -> TextEncoder:
    assert model.text is not None
    return TextEncoder(model.text.rule, model.text.tokenizer)


class Exported:
    """The three graphs in ONNX Runtime, and the bank's rule."""

    def __init__(self, model: LoadedModel) -> None:
        facts = describe(model).heads[0]
        backend = OnnxRuntimeCpu(threads=2)
        self.graphs = {}
        assert model.text is not None
        sides = {"image": model.image, "text": model.text.side, "head": model.heads[0].side}
        for role, side in sides.items():
            graph = Graph(
                role=role, file=f"{role}.onnx", precision="fp32", opset=OPSET,
                inputs=list(side.inputs), outputs=list(side.outputs), consumers=[backend.name],
            )  # fmt: skip
            self.graphs[role] = backend.load(partial(export_graph, side, role), graph)
        self.image: BoundGraph = self.graphs["image"].bind({})
        self.text: BoundGraph = self.graphs["text"].bind({})
        self.rule = BankRule(
            file="bank.safetensors", id="0" * 64, identity={}, tensors=facts.bank,
            row_buckets=facts.row_buckets, row_bias=facts.row_bias,
        )  # fmt: skip

    def score(self, bank: PromptBank, pixels: Any, *, per_batch: int | None = None) -> tuple[Any, Any]:
        bound = BoundHead.of(self.graphs["head"], bank.batches(prompts_per_batch=per_batch))
        return bound.run(self.image.run({"pixels": pixels}))

    def bank(self, encoder: TextEncoder, texts: Sequence[str]) -> PromptBank:
        entries = [
            encode_finding(self.text, self.rule, f"f{n}", encoder.encode_finding([text]), allow_empty=True)
            for n, text in enumerate(texts)
        ]
        return PromptBank(self.rule, entries)


@pytest.fixture(scope="module")
def exported(model: LoadedModel) -> Exported:
    return Exported(model)


def test_tokens_equal_the_original(
    encoder: TextEncoder, prompts: dict[str, str], oracle: dict[str, Any]
) -> None:
    for n, text in enumerate(prompts.values()):
        encoded = encoder.encode(text)
        ids = encoded.arrays["input_ids"][0]
        assert ids.tolist() == oracle["input_ids"][n, : len(ids)].tolist()
        assert oracle["attention_mask"][n].sum() == len(ids)
        assert encoded.wording.words + 2 == oracle["text_rows_used"][n]


def test_torch_sides_equal_the_original(
    model: LoadedModel, encoder: TextEncoder, prompts: dict[str, str], oracle: dict[str, Any]
) -> None:
    """Image side, text side and head put together in torch, one prompt at a time."""
    image, text, head = model.image, model.text.side, model.heads[0].side
    assert image
    assert text
    assert head
    with torch.inference_mode():
        features = image.module(torch.from_numpy(oracle["images"]))
        for n, prompt in enumerate(prompts.values()):
            arrays = encoder.encode(prompt).arrays
            rows = text.module(*(torch.from_numpy(arrays[facts.name]) for facts in text.inputs))
            logits, maps = head.module(*features, *(row[None] for row in rows))
            assert np.abs(logits[:, 0].numpy() - oracle["scores"][:, n]).max() <= SCORES
            assert np.abs(maps[:, 0].numpy() - oracle["heatmap14"][:, n]).max() <= MAPS


@pytest.mark.parametrize("per_batch", [None, 1, 4, 16])
def test_exported_graphs_equal_the_original(
    exported: Exported,
    encoder: TextEncoder,
    prompts: dict[str, str],
    oracle: dict[str, Any],
    per_batch: int | None,
) -> None:
    bank = exported.bank(encoder, list(prompts.values()))
    logits, maps = exported.score(bank, oracle["images"], per_batch=per_batch)
    assert np.abs(logits - oracle["scores"]).max() <= SCORES
    assert np.abs(logits - oracle["scores_fast"]).max() <= SCORES
    assert np.abs(maps - oracle["heatmap14"]).max() <= MAPS


def test_a_bank_survives_being_stored(
    exported: Exported, encoder: TextEncoder, prompts: dict[str, str], oracle: dict[str, Any]
) -> None:
    bank = exported.bank(encoder, list(prompts.values()))
    stored = unpack(pack(bank), exported.rule, artefact="prompts.safetensors")
    before, _ = exported.score(bank, oracle["images"][:1])
    after, _ = exported.score(stored, oracle["images"][:1])
    assert (before == after).all()
    assert [entry.facts() for entry in stored] == [entry.facts() for entry in bank]


def _prompt_of(words: int) -> str:
    """Return a prompt of exactly this many words after cleaning."""
    if words == 0:
        return "Edema"
    if words == 1:
        return "é effusion"  # the non-ASCII word counts as a word, then vanishes
    return " ".join(WORDS[n % len(WORDS)] for n in range(words))


LENGTHS = (0, 1, 2, 8, 40, 93, 94, 95, 96, 120)


@pytest.fixture(scope="module")
def of_every_length(
    model: LoadedModel, encoder: TextEncoder, oracle: dict[str, Any]
) -> tuple[list[str], Any, Any]:
    """Prompts from none to too many words, with the original's scores (98 rows, nothing cached)."""
    texts = [_prompt_of(words) for words in LENGTHS]
    answers = model.heads[0].reference(
        torch.from_numpy(oracle["images"][:2]), [encoder.encode_finding([text]) for text in texts]
    )
    return texts, answers.logits, answers.maps


def test_lengths_are_what_they_claim(encoder: TextEncoder) -> None:
    for words in LENGTHS:
        encoded: EncodedPrompt = encoder.encode(_prompt_of(words))
        assert encoded.wording.words == min(words, 95)
        assert encoded.wording.truncated == (words in (96, 120))
        assert encoded.arrays["input_ids"].shape[1] == min(words, 95) + 2  # 95 words fill all 97 rows


def test_every_prompt_length_alone_equals_the_original(
    exported: Exported,
    encoder: TextEncoder,
    oracle: dict[str, Any],
    of_every_length: tuple[list[str], Any, Any],
) -> None:
    texts, logits, maps = of_every_length
    for n, text in enumerate(texts):
        alone, grid = exported.score(exported.bank(encoder, [text]), oracle["images"][:2])
        assert np.abs(alone[:, 0] - logits[:, n]).max() <= SCORES
        assert np.abs(grid[:, 0] - maps[:, n]).max() <= MAPS


@pytest.mark.parametrize("per_batch", [None, 3])
@pytest.mark.parametrize("buckets", [None, [99], [8, 99], list(range(2, 100))])
def test_every_prompt_length_mixed_equals_the_original(
    exported: Exported,
    encoder: TextEncoder,
    oracle: dict[str, Any],
    of_every_length: tuple[list[str], Any, Any],
    per_batch: int | None,
    buckets: list[int] | None,
) -> None:
    texts, logits, maps = of_every_length
    bank = exported.bank(encoder, texts)
    rule = bank.rule
    if buckets is not None:
        facts = {name: getattr(rule, name) for name in rule.__struct_fields__}
        rule = BankRule(**{**facts, "row_buckets": buckets})
    mixed, grids = exported.score(PromptBank(rule, bank.entries), oracle["images"][:2], per_batch=per_batch)
    assert np.abs(mixed - logits).max() <= SCORES
    assert np.abs(grids - maps).max() <= MAPS


def test_growing_from_1_to_192_prompts_equals_the_original(
    model: LoadedModel, exported: Exported, encoder: TextEncoder, oracle: dict[str, Any]
) -> None:
    random = np.random.default_rng(5)
    texts = [" ".join(random.choice(WORDS, size=random.integers(2, 12))) for _ in range(192)]
    pixels = oracle["images"][1:2]
    expected = (
        model.heads[0]
        .reference(torch.from_numpy(pixels), [encoder.encode_finding([text]) for text in texts])
        .logits
    )
    features = exported.image.run({"pixels": pixels})
    bank = PromptBank(exported.rule)
    earlier: Any = np.empty((1, 0), np.float32)
    for n, text in enumerate(texts):
        bank = bank.with_entry(
            encode_finding(exported.text, exported.rule, str(n), encoder.encode_finding([text]))
        )
        fixed = BoundHead.of(exported.graphs["head"], bank.batches(prompts_per_batch=16))
        logits, _ = fixed.run(features)
        assert np.abs(logits - expected[:, : n + 1]).max() <= SCORES
        assert (logits[:, :n] == earlier).all(), "fixed shapes: an added prompt changes no bit of the others"
        earlier = logits


def test_zero_rows_collapse_into_one(exported: Exported, encoder: TextEncoder) -> None:
    """A bank row set is words + 4: sentence, [CLS], words, [SEP], and one row for all the zero rows."""
    entry: BankEntry = exported.bank(encoder, ["there is pleural effusion"]).entries[0]
    assert entry.tensors["keys.0"].shape[-1] == entry.prompts[0].words + 4
    bias = entry.tensors["row_bias"]
    assert (bias[:-1] == 0).all()
    assert bias[-1] == pytest.approx(np.log(97 - entry.prompts[0].words - 2), abs=1e-6)


def test_the_graphs_keep_normalisation_fused(model: LoadedModel) -> None:
    import onnx

    exported = export_graph(model.heads[0].side, "head")
    operators = {node.op_type for node in onnx.load_from_string(exported).graph.node}
    assert "LayerNormalization" in operators
    assert not operators & {"ReduceVar", "Sqrt", "Pow"}, "a decomposed LayerNorm overflows in fp16"


def _checkpoint(path: Path, change: Any) -> Path:
    content = load_checkpoint(TINY / "CARZero_best_model.ckpt")
    fresh = {"state_dict": dict(content["state_dict"]), "hyper_parameters": {}}
    change(fresh)
    torch.save(fresh, path)
    return path


VIT, FUSION = "CARZero.img_encoder.model.", "CARZero.fusion_module."
SPOILT: dict[str, tuple[Any, str, str]] = {
    "a key is missing": (lambda c: c["state_dict"].pop(VIT + "norm.weight"), "layout", "norm.weight"),
    "a key too many": (
        lambda c: c["state_dict"].update({"CARZero.extra.weight": torch.zeros(2)}), "layout", "extra",
    ),
    "NaN": (lambda c: c["state_dict"][FUSION + "decoder_norm.bias"].fill_(np.nan), "layout", "not finite"),
    "another model": (
        lambda c: c.update(state_dict={"model.weight": torch.zeros(2)}), "layout", "CARZero.",
    ),
    "another word count": (
        lambda c: c.update(hyper_parameters={"data": {"text": {"word_num": 64}}}), "config", "word_num",
    ),
    "another normalisation": (
        lambda c: c.update(hyper_parameters={"transforms": {"norm": "imagenet"}}), "config", "imagenet",
    ),
    "one norm with two values": (
        lambda c: c["state_dict"].update({FUSION + "decoder.norm.bias": torch.ones(64)}),
        "layout", "one tensor",
    ),
    "one name for two tensors": (
        lambda c: c["state_dict"].update({"ema." + FUSION + "decoder_norm.bias": torch.zeros(64)}),
        "layout", f"decoder_norm.bias: {FUSION}decoder_norm.bias and ema.{FUSION}decoder_norm.bias",
    ),
    "a configuration that is no mapping": (
        lambda c: c.update(hyper_parameters=["released"]), "config", "list",
    ),
    "a configuration of another program": (
        lambda c: c.update(hyper_parameters=Namespace(word_num=64)), "config", "Namespace",
    ),
    "no sizes": (lambda c: c["state_dict"].pop(VIT + "pos_embed"), "layout", "pos_embed"),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, spoilt: str) -> None:
    change, code, named = SPOILT[spoilt]
    path = _checkpoint(tmp_path / "model.ckpt", change)
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(path, TINY / "text_model", {})
    assert refusal.value.code == f"checkpoint.{code}"
    assert named in str(refusal.value)


def test_what_the_checkpoint_does_not_say_is_noted(tmp_path: Path, model: LoadedModel) -> None:
    assert len(model.notes) == 1, "the published configuration says everything"
    for number, change in enumerate((lambda c: None, lambda c: c.pop("hyper_parameters"))):
        path = _checkpoint(tmp_path / f"{number}.ckpt", change)
        notes = FAMILY.load(path, TINY / "text_model", {}).notes[1:]
        assert [note.rpartition(": ")[2] for note in notes] == [
            f"{key} = {said!r}" for key, said in CONSTANTS
        ]
    said = {"data": {"text": {"word_num": 97}}, "transforms": "none"}
    path = _checkpoint(tmp_path / "some.ckpt", lambda c: c.update(hyper_parameters=said))
    notes = FAMILY.load(path, TINY / "text_model", {}).notes[1:]
    assert len(notes) == len(CONSTANTS) - 1
    assert not [note for note in notes if "word_num" in note]


def test_what_is_converted_or_left_out_is_noted(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        state.update({key: value.half() for key, value in state.items() if value.is_floating_point()})
        state.update({"ema.weight": torch.zeros(2), "ema.bias": torch.zeros(2, dtype=torch.float64)})

    notes = FAMILY.load(_checkpoint(tmp_path / "half.ckpt", change), TINY / "text_model", {}).notes
    assert "weights are stored as float16 and used as float32" in notes
    assert "left out, as the original does: 2 tensors outside CARZero., first ema.weight" in notes
    assert not [note for note in notes if "float64" in note]


def test_the_reference_model_says_everything() -> None:
    content = load_checkpoint(Path(__file__).parents[3] / "reference" / "carzero_reference.ckpt")
    assert check_configuration(content, "reference") == []


def test_a_stripped_checkpoint_gives_the_same_scores(
    tmp_path: Path, model: LoadedModel, encoder: TextEncoder, prompts: dict[str, str], oracle: dict[str, Any]
) -> None:
    """The 27 unused tensors may be missing."""

    def strip(content: dict[str, Any]) -> None:
        unused = (".self_attn.", ".norm1.", ".pooler.", "logit_scale", "decoder.norm.", "position_ids")
        kept = {
            key: value
            for key, value in content["state_dict"].items()
            if not (
                any(part in key for part in unused) and ("fusion" in key or "pooler" in key or "_ids" in key)
            )
        }
        content["state_dict"] = kept

    stripped = FAMILY.load(_checkpoint(tmp_path / "stripped.ckpt", strip), TINY / "text_model", {})
    encoded = [encoder.encode_finding([text]) for text in prompts.values()]
    answers = stripped.heads[0].reference(torch.from_numpy(oracle["images"][:1]), encoded)
    assert np.abs(answers.logits - oracle["scores"][:1]).max() <= SCORES


def test_other_head_counts_are_refused_or_used(model: LoadedModel) -> None:
    with pytest.raises(BuildError, match="does not divide"):
        FAMILY.load(TINY / "CARZero_best_model.ckpt", TINY / "text_model", {"image_heads": 7})
    with pytest.raises(BuildError, match="positive integer"):
        FAMILY.load(TINY / "CARZero_best_model.ckpt", TINY / "text_model", {"image_heads": "4"})
    with pytest.raises(BuildError, match="positive integer"):
        FAMILY.load(TINY / "CARZero_best_model.ckpt", TINY / "text_model", {"image_heads": True})


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(BuildError) as refusal:
        family("medclip")
    assert refusal.value.code == "family.unknown"
    assert refusal.value.expected == (
        "one of carzero, open_clip, biomedclip, asg, convnext, squeezenet, chexzero, kad"
    )


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("biomed_clip", "biomedclip"), ("CARZero", "carzero"), ("openclip", "open_clip")]
)
def test_the_family_that_was_meant_is_named(wrong: str, nearest: str) -> None:
    with pytest.raises(BuildError, match=r"family\.unknown") as refusal:
        family(wrong)
    assert refusal.value.cure == f"did you mean {nearest}?"
