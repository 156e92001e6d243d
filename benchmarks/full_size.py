"""Write a checkpoint of a published size with random weights, and a recipe for it.

    python -m benchmarks.full_size FOLDER [--family NAME]      # --help lists the families
    promptray build FOLDER/recipe.yaml -o full.bundle

Its scores mean nothing; its times and its parameters (in millions: CARZero 221, BiomedCLIP 196, ASG 291 with
its two text encoders, ConvNeXt-Base 88, CheXzero 151, KAD 146 at 224 pixels and 165 at 512) are those of the
published model. CheXzero's vocabulary is CLIP's; the others are a tiny test model's, filled up to the
published length.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from promptray.export.clip_tokenizer import PUBLISHED
from promptray.export.models.carzero import CARZero, CARZeroSizes
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.packs import read_pack

ensure_torchvision_imports()

from timm.models.vision_transformer import VisionTransformer  # noqa: E402 - imports torchvision
from torchvision.models import convnext_base, resnet50  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

#: Of every tower's attention heads.
HEAD_WIDTH = 64
TINY = Path(__file__).parents[1] / "tests" / "data"
CARZERO_SIZES = CARZeroSizes(
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
BIOMEDCLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
            "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}


def write_carzero(folder: Path, *, depth: int = 12, heads: int = 12) -> dict[str, Any]:
    """Write CARZero's checkpoint and text model; return what its recipe says of them.

    Towers of another depth, at least 4, leave the head what it is. Attention heads stay 64 wide, so that
    with fewer of them everything else is narrower.
    """
    width = HEAD_WIDTH * heads
    sizes = replace(
        CARZERO_SIZES,
        width=width,
        vit_depth=depth,
        vit_heads=heads,
        vit_mlp=4 * width,
        bert_depth=depth,
        bert_heads=heads,
        bert_mlp=4 * width,
    )
    state = {f"CARZero.{key}": tensor for key, tensor in CARZero(sizes).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 0}, folder / "carzero_full.ckpt")
    text = folder / "text_model"
    text.mkdir(exist_ok=True)
    write_vocabulary(
        text / "vocab.txt", TINY / "carzero_tiny" / "text_model" / "vocab.txt", CARZERO_SIZES.vocab_size
    )
    config = {
        "hidden_act": "gelu",
        "num_attention_heads": sizes.bert_heads,
        "hidden_size": sizes.width,
    }
    (text / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return {"family": "carzero", "checkpoint": "carzero_full.ckpt", "text_model": "text_model"}


def write_biomedclip(folder: Path, *, depth: int = 12, heads: int = 12) -> dict[str, Any]:
    """Write BiomedCLIP's folder as it is published; return what its recipe says of it.

    Depth and heads are as those of :func:`write_carzero`; with others than 12 no architecture is named.
    """
    width = HEAD_WIDTH * heads
    bert = _bert(30522, depth, heads)
    # open_clip's modules under open_clip's names, from the libraries that open_clip takes them from.
    model = nn.Module()
    model.visual, model.text = nn.Module(), nn.Module()
    model.visual.trunk = _vit(depth, heads)
    model.visual.head = nn.Sequential()
    model.visual.head.add_module("proj", nn.Linear(width, 512, bias=False))
    model.text.transformer = BertModel(bert, add_pooling_layer=False)
    middle = (width + 512) // 2
    model.text.proj = nn.Sequential(
        nn.Linear(width, middle, bias=False), nn.GELU(), nn.Linear(middle, 512, bias=False)
    )
    state = model.state_dict()
    state["logit_scale"] = torch.tensor(4.4454)
    state["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    write_vocabulary(folder / "vocab.txt", TINY / "biomedclip_tiny" / "vocab.txt", bert.vocab_size)
    facts = {"family": "biomedclip", "checkpoint": "open_clip_pytorch_model.bin"}
    config = deepcopy(BIOMEDCLIP)
    if (depth, heads) != (12, 12):
        config["model_cfg"]["vision_cfg"]["timm_model_name"] = "no published one"
        text = folder / "text_model"
        text.mkdir(exist_ok=True)
        said = {"num_attention_heads": heads, "hidden_size": width}
        (text / "config.json").write_text(json.dumps(said), encoding="utf-8")
        facts["text_model"] = text.name
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return facts


def write_asg(folder: Path, *, depth: int = 12, heads: int = 12) -> dict[str, Any]:
    """Write ASG's checkpoint and text model; return what its recipe says of them.

    Depth and heads are as those of :func:`write_carzero`; the report encoder has half as many blocks.
    """
    width = HEAD_WIDTH * heads
    bert = _bert(28996, depth, heads)
    report = BertModel(_bert(28996, depth // 2, heads), add_pooling_layer=False)
    parts: dict[str, nn.Module] = {
        "img_encoder_q.model": _vit(depth, heads),
        "text_encoder_q.model": report,
        "text_encoder": BertModel(bert, add_pooling_layer=False),
        "irl.decoder": nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, 4, 1024, norm_first=True), 4, norm=nn.LayerNorm(width)
        ),
        "irl.decoder_norm": nn.LayerNorm(width),
        "irl.mlp_head": nn.Sequential(nn.Linear(width, 1)),
    }
    for side in ("img_encoder_q", "text_encoder_q"):
        linear = nn.Linear(width, 2048), nn.Linear(2048, 128)
        parts[f"{side}.global_embed.head"] = _asg_projection(*linear)
        pointwise = nn.Conv1d(width, 2048, 1), nn.Conv1d(2048, 128, 1)
        parts[f"{side}.local_embed.head"] = _asg_projection(*pointwise)
    state = {
        f"{stem}.{key}": tensor
        for stem, module in parts.items()
        for key, tensor in module.state_dict().items()
        # The published report encoder has no such table.
        if not (module is report and "token_type_embeddings" in key)
    }
    torch.save({"state_dict": state}, folder / "asg.ckpt")
    text = folder / "text_model"
    text.mkdir(exist_ok=True)
    write_vocabulary(text / "vocab.txt", TINY / "asg_tiny" / "text_model" / "vocab.txt", bert.vocab_size)
    (text / "config.json").write_text(
        json.dumps({"hidden_act": "gelu", "num_attention_heads": heads, "hidden_size": width}),
        encoding="utf-8",
    )
    return {"family": "asg", "checkpoint": "asg.ckpt", "text_model": "text_model"}


def _vit(depth: int, heads: int) -> nn.Module:
    """Make timm's ``vit_base_patch16_224``, or one like it."""
    width = HEAD_WIDTH * heads
    return VisionTransformer(embed_dim=width, depth=depth, num_heads=heads, num_classes=0)


def _bert(vocabulary: int, depth: int, heads: int) -> BertConfig:
    """Describe BERT-base, or one like it."""
    width = HEAD_WIDTH * heads
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )


def _asg_projection(first: nn.Module, last: nn.Module) -> nn.Module:
    return nn.Sequential(first, nn.BatchNorm1d(2048), nn.ReLU(), last, nn.BatchNorm1d(128, affine=False))


def write_convnext(folder: Path) -> dict[str, Any]:
    """Write the density study's ConvNeXt-Base; return what its recipe says of it."""
    torch.save(convnext_base(num_classes=4).state_dict(), folder / "convnext_base.pth")
    return {
        "family": "convnext",
        "checkpoint": "convnext_base.pth",
        "model_options": {"classes": list("ABCD"), "preprocessing": "squash"},
        "relation": "ordinal",
        "findings": [{"key": f"density {name}", "class_name": name} for name in "ABCD"],
    }


def write_chexzero(folder: Path) -> dict[str, Any]:
    """Write CheXzero's checkpoint and CLIP's vocabulary; return what its recipe says of them."""
    import open_clip  # for development alone
    from open_clip.tokenizer import default_bpe

    clip = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None, load_weights=False)
    torch.save(clip.state_dict(), folder / "chexzero.pt")
    shutil.copy(default_bpe(), folder / PUBLISHED)
    return {"family": "chexzero", "checkpoint": "chexzero.pt", "relation": "pair"}


def kad_parts(stages: int) -> dict[str, nn.Module]:
    """Make the three parts of KAD's checkpoint from the libraries that the source takes them from.

    Parameters
    ----------
    stages : int
        Of the ResNet-50: 3 for 224 pixels a side, 4 for 512 and 1024.
    """
    image, text, decoder = nn.Module(), nn.Module(), nn.Module()
    image.resnet = resnet = resnet50()
    image.res_features = nn.Sequential(*list(resnet.children())[: stages - 6])
    features = 1024 if stages == 3 else 2048
    image.res_l1, image.res_l2 = nn.Linear(features, features), nn.Linear(features, 768)
    text.bert_model = BertModel(BertConfig(vocab_size=30522))
    text.mlp_embed = nn.Sequential(nn.Linear(768, 768), nn.GELU(), nn.Linear(768, 768))
    decoder.decoder_norm = nn.LayerNorm(768)
    layer = nn.TransformerDecoderLayer(768, 4, 1024, norm_first=True, batch_first=True)
    decoder.decoder = nn.TransformerDecoder(layer, 4, decoder.decoder_norm)
    decoder.mlp_head = nn.Sequential(nn.Linear(768, 2))
    return {"image_encoder": image, "text_encoder": text, "model": decoder}


def write_kad(folder: Path, *, stages: int, side: int) -> dict[str, Any]:
    """Write KAD's checkpoint for `side` x `side` pixels and its text model; return what its recipe says."""
    torch.save({name: part.state_dict() for name, part in kad_parts(stages).items()}, folder / "kad.pt")
    text = folder / "text_model"
    text.mkdir(exist_ok=True)
    write_vocabulary(text / "vocab.txt", TINY / "biomedclip_tiny" / "vocab.txt", 30522)
    config = {"hidden_act": "gelu", "num_attention_heads": 12, "hidden_size": 768}
    (text / "config.json").write_text(json.dumps(config), encoding="utf-8")
    options = {"image_size": side}
    return {"family": "kad", "checkpoint": "kad.pt", "text_model": "text_model", "model_options": options}


def write_vocabulary(path: Path, tiny: Path, pieces: int) -> None:
    """Fill a tiny vocabulary up to a published length."""
    known = [piece for piece in tiny.read_text(encoding="utf-8").split("\n") if piece]
    known += [f"unused{number}" for number in range(pieces - len(known))]
    path.write_text("\n".join(known) + "\n", encoding="utf-8", newline="\n")


FAMILIES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "carzero": write_carzero,
    "biomedclip": write_biomedclip,
    "asg": write_asg,
    "convnext": write_convnext,
    "chexzero": write_chexzero,
    "kad": partial(write_kad, stages=3, side=224),
    "kad-512": partial(write_kad, stages=4, side=512),
}


def write_recipe(folder: Path, model: dict[str, Any], prompts: int) -> None:
    """Write a recipe with the first PadChest prompts; pairs are asked against their negatives."""
    findings = [
        {"key": each.key, "prompt": each.prompts[0]} for each in read_pack("padchest192").findings[:prompts]
    ]
    if model.get("relation") == "pair":
        findings = [{**each, "negative_prompt": f"no {each['key']}"} for each in findings]
    recipe = {
        "recipe_version": 1,
        "name": f"{model['family']}-full-size-random",
        "model": {"licence": "none", "intended_use": "timing only", "training_data": "none: random weights"},
        "door": {"modalities": ["CR", "DX"]},
        "findings": findings,
        **model,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=FAMILIES, default="carzero")
    parser.add_argument("--prompts", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    model = FAMILIES[options.family](options.folder)
    write_recipe(options.folder, model, options.prompts)
    print(f"wrote {options.folder / model['checkpoint']} and recipe.yaml; next: promptray build")


if __name__ == "__main__":
    main()
