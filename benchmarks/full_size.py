"""Write a CARZero checkpoint of the released sizes with random weights, and a recipe for it.

    python -m benchmarks.full_size FOLDER
    promptray build FOLDER/recipe.yaml -o full.bundle

Its scores mean nothing; its times and its 221 million parameters are those of the published model. The
vocabulary is the tiny test model's, filled up to the published length.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import yaml

from promptray.export.models.carzero import CARZero, CARZeroSizes

ROOT = Path(__file__).parents[1]
SIZES = CARZeroSizes(
    width=768,
    image_size=224,
    patch_size=16,
    vit_depth=12,
    vit_heads=12,
    vit_mlp=3072,
    vocab_size=28996,
    positions=512,
    token_types=2,
    bert_depth=12,
    bert_heads=12,
    bert_mlp=3072,
)


def write_checkpoint(folder: Path, seed: int) -> None:
    """Write checkpoint and text model."""
    torch.manual_seed(seed)
    state = {f"CARZero.{key}": tensor for key, tensor in CARZero(SIZES).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 0}, folder / "carzero_full.ckpt")
    text = folder / "text_model"
    text.mkdir(exist_ok=True)
    known = (ROOT / "tests" / "data" / "carzero_tiny" / "text_model" / "vocab.txt").read_text().split("\n")
    pieces = [piece for piece in known if piece]
    pieces += [f"unused{number}" for number in range(SIZES.vocab_size - len(pieces))]
    (text / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8", newline="\n")
    config = {"hidden_act": "gelu", "num_attention_heads": SIZES.bert_heads, "hidden_size": SIZES.width}
    (text / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_recipe(folder: Path, prompts: int) -> None:
    """Write a recipe with the first PadChest prompts."""
    names = (Path(__file__).parent / "prompts" / "padchest192.txt").read_text(encoding="utf-8").splitlines()
    recipe = {
        "recipe_version": 1,
        "name": "carzero-full-size-random",
        "family": "carzero",
        "checkpoint": "carzero_full.ckpt",
        "text_model": "text_model",
        "model": {"licence": "none", "intended_use": "timing only", "training_data": "none: random weights"},
        "door": {"modalities": ["CR", "DX"]},
        "findings": [
            {"key": name.replace("/", " "), "prompt": f"There is {name}"} for name in names[:prompts]
        ],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(options.folder, options.seed)
    write_recipe(options.folder, options.prompts)
    print(f"wrote {options.folder}/carzero_full.ckpt and recipe.yaml; next: promptray build")


if __name__ == "__main__":
    main()
