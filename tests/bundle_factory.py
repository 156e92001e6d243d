"""Small bundles for tests: one whose files are mere bytes, and one whose graphs really run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from promptray.runtime.bundle import Bundle, Manifest, write_bundle
from promptray.runtime.bundle.manifest import Head, ModelFacts, bank_id

WIDTH = 8
SIDE = 32
GOLDEN = 16
PROMPTS = ("There is pneumonia.", "There is no finding.")
HEAD = "chest"
BANK = f"banks/{HEAD}.safetensors"
HEAD_GRAPH = f"graphs/head/{HEAD}/fp32-20.onnx"
IDENTITY = {"cleaning": "carzero-sentences", "layout": "1", "precision": "fp32", "weights": "0f" * 32}


def _tensor(name: str, *dims: int | str, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "dims": list(dims)}


def bank_tensors() -> list[dict[str, Any]]:
    return [
        _tensor("query", "prompts", WIDTH),
        _tensor("keys.0", "prompts", 2, WIDTH // 2, "rows"),
        _tensor("values.0", "prompts", 2, "rows", WIDTH // 2),
        _tensor("row_bias", "prompts", "rows"),
    ]


def _graph(
    role: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], head: str | None = None
) -> dict[str, Any]:
    return {
        "role": role,
        "head": head,
        "file": f"graphs/{role}/fp32-20.onnx" if head is None else f"graphs/{role}/{head}/fp32-20.onnx",
        "precision": "fp32",
        "opset": 20,
        "inputs": inputs,
        "outputs": outputs,
        "consumers": ["onnxruntime-cpu"],
    }


def graphs() -> list[dict[str, Any]]:
    features = [_tensor("image_query", "batch", 2, WIDTH // 2), _tensor("image_grid", "batch", WIDTH, 4)]
    text_outputs = [{**tensor, "dims": tensor["dims"][1:]} for tensor in bank_tensors()]
    head_outputs = [_tensor("logits", "batch", "prompts"), _tensor("maps", "batch", "prompts", 2, 2)]
    return [
        _graph("image", [_tensor("pixels", "batch", 3, SIDE, SIDE)], features),
        _graph("head", [*features, *bank_tensors()], head_outputs, HEAD),
        _graph("text", [_tensor("input_ids", 1, "tokens", dtype="int64")], text_outputs),
    ]


def document() -> dict[str, Any]:
    """A valid ``bundle.json`` without its files, as plain JSON values."""
    return {
        "format": "promptray-bundle",
        "format_version": 4,
        "name": "miniature",
        "family": "carzero",
        "model": {"licence": "CC0", "intended_use": "tests", "training_data": "none: random weights"},
        "provenance": {
            "created": "2026-01-31T12:00:00Z",
            "checkpoint": {"name": "none.ckpt", "sha256": "0" * 64},
            "recipe": {"name": "recipe.yaml", "sha256": "1" * 64},
            "libraries": {"onnx": "1"},
            "calibration": None,
        },
        "door": {"modalities": ["CR", "DX"], "refused_body_parts": ["BREAST"], "minimum_side": 32},
        "preprocessing": {
            "greyscale": {"voi": "first-window", "without_voi": "full-range", "rounding": "half-up"},
            "steps": [
                {"op": "resize_longer_side", "size": SIDE + 8, "interpolation": "area"},
                {"op": "pad_square", "size": SIDE + 8, "value": 0},
                {"op": "centre_crop", "size": SIDE},
            ],
            "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
            "channels": 3,
            "height": SIDE,
            "width": SIDE,
            "colour": "grey",
            "levels": "uint8",
        },
        "text": {
            "head": HEAD,
            "cleaning": "carzero-sentences",
            "tokenizer": "tokenizer.json",
            "context": 16,
            "templates": ["There is {}."],
        },
        "heads": [head()],
        "findings": [
            {
                "key": f"finding {n}",
                "display": f"Finding {n}",
                "prompts": [prompt],
                "head": HEAD,
                "code": None,
            }
            for n, prompt in enumerate(PROMPTS)
        ],
        "graphs": graphs(),
        "golden": {
            "tensors": "golden/golden.safetensors",
            "images": [f"golden/images/{n:03}.png" for n in range(GOLDEN)],
            "licence": "CC0",
        },
        "parity": "parity.json",
        "files": {},
    }


def head() -> dict[str, Any]:
    """The only head of `document`."""
    return {
        "name": HEAD,
        "set": "free",
        "activation": "none",
        "relation": "independent",
        "bank": {
            "file": BANK,
            "id": bank_id(IDENTITY),
            "identity": IDENTITY,
            "tensors": bank_tensors(),
            "row_buckets": [4, 8],
            "ensemble": "none",
            "row_bias": "row_bias",
            "row_bias_padding": -1e9,
        },
        "score_tolerance": 2e-5,
        "map": {"grid": [2, 2], "kind": "attention", "meaning": "softmax over four cells", "tolerance": 1e-6},
    }


def made_head(**changes: Any) -> Head:
    """The only head of `document` as a structure, with some fields replaced."""
    return msgspec.convert({**head(), **changes}, Head)


TAGS = "tags"
TAG_KEYS = ("finding 0", "finding 9")


def add_fixed_head(document: dict[str, Any]) -> None:
    """Give a document a second head, a fixed set without text; one of its keys is also of the first head."""
    identity = {"layout": "1", "weights": "1e" * 32}
    query = _tensor("tag_query", "prompts", WIDTH)
    document["heads"].append(
        {
            "name": TAGS,
            "set": "fixed",
            "activation": "sigmoid",
            "relation": "independent",
            "bank": {
                "file": f"banks/{TAGS}.safetensors",
                "id": bank_id(identity),
                "identity": identity,
                "tensors": [query],
                "row_buckets": [],
            },
            "score_tolerance": 1e-4,
            "map": None,
        }
    )
    document["findings"] += [
        {"key": key, "display": key, "prompts": [], "head": TAGS, "code": None} for key in TAG_KEYS
    ]
    features = _tensor("image_grid", "batch", WIDTH, 4)
    logits = _tensor("logits", "batch", "prompts")
    document["graphs"].append(_graph("head", [features, query], [logits], TAGS))


def manifest(**changes: Any) -> Manifest:
    """The valid manifest with some top-level fields replaced."""
    return msgspec.convert({**document(), **changes}, Manifest)


def plain_files(document_: dict[str, Any] | None = None) -> dict[str, bytes]:
    """Content for every file a document refers to; mere bytes, of lengths that no two share."""
    doc = document_ or document()
    names = [graph["file"] for graph in doc["graphs"]]
    names += [
        doc["golden"]["tensors"],
        *doc["golden"]["images"],
        *(head["bank"]["file"] for head in doc["heads"]),
        "tokenizer.json",
        "parity.json",
    ]
    return {name: hashlib.sha512(name.encode()).digest() * (n + 1) for n, name in enumerate(names)}


def write_plain(path: Path) -> Bundle:
    """Write a bundle that opens and verifies; its graphs are no graphs."""
    return write_bundle(path, manifest(), plain_files())


def listed(document: dict[str, Any]) -> bytes:
    """Bytes of a document with `plain_files` listed."""
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in plain_files(document).items()
    }
    return json.dumps({**document, "files": files}).encode()


def unchecked_model(manifest: Manifest, **facts: str) -> Manifest:
    """A manifest with model facts that no schema has seen."""
    return msgspec.structs.replace(manifest, model=ModelFacts(**facts))


def reseal(path: Path, raw: bytes) -> None:
    """Replace ``bundle.json`` and make the seal fit, as an attacker or a careless tool would."""
    (path / "bundle.json").write_bytes(raw)
    (path / "bundle.sha256").write_bytes(f"{hashlib.sha256(raw).hexdigest()}  bundle.json\n".encode())


def edited(path: Path, edit: Any) -> None:
    """Apply ``edit(document)`` to a written bundle's manifest and seal it again."""
    doc = json.loads((path / "bundle.json").read_bytes())
    edit(doc)
    reseal(path, json.dumps(doc, indent=2).encode() + b"\n")


def relist(path: Path, name: str, content: bytes) -> None:
    """Replace a listed file and make its hash and the seal fit."""
    (path / name).write_bytes(content)
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    edited(path, lambda doc: doc["files"].__setitem__(name, facts))
