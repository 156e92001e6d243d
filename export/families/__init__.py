"""The registry of families: facts of each, and its module, imported only when used: it needs torch."""

from __future__ import annotations

import difflib
import importlib

from promptray.export.clip_tokenizer import clip_files
from promptray.export.families import asg_files
from promptray.export.families.base import Family, FamilyFacts, no_files
from promptray.export.families.open_clip_folder import source_files
from promptray.export.tokenizer import bert_files
from promptray.runtime.errors import BuildError

FAMILIES: tuple[FamilyFacts, ...] = (
    FamilyFacts(
        name="carzero",
        summary="CARZero: ViT and BERT with two-way cross-attention; raw logits, attention maps",
        layout="Lightning .ckpt with state_dict keys 'CARZero.{img_encoder,text_encoder,fusion_module}.*', "
        "and a text model folder with config.json and vocab.txt",
        options={
            "image_heads": "attention heads of the image side (no tensor tells; default: the text model's, "
            "which is right for the published file: 12)"
        },
        module="promptray.export.families.carzero",
        source_files=bert_files,
    ),
    FamilyFacts(
        name="open_clip",
        summary="BiomedCLIP and other dual encoders: ViT and BERT, scaled cosine, similarity maps",
        layout="open_clip's weights (open_clip_pytorch_model.bin) with open_clip_config.json and vocab.txt "
        "beside them; a text model folder with config.json where the text tower is not BiomedCLIP's. Or a "
        "tuned image tower: 'visual.*' with 'classifier.weight' and 'classifier.bias', open_clip_config.json "
        "beside it, no text",
        options={
            "preprocessing": "density-study (resized to a square in fractions of a level, not normalised); "
            "default: as the configuration says",
            "resize": "shortest (cuts the ends of the longer side off), longest (pads to a square) or "
            "squash; default: what the configuration says, which is shortest for the published file",
            "context": "most tokens of a wording, the two special ones included (default: what the "
            "configuration says; the density study: 20)",
            "classes": "list of the classes of a tuned image tower in the order of the classifier's rows "
            "(default: the JSON list that the safetensors file itself states as 'classes')",
            "image_heads": "attention heads of an image tower that timm does not know by name "
            "(default: the text model's; a tuned image tower has none, so it must be said)",
        },
        module="promptray.export.families.open_clip",
        source_files=source_files,
        aliases=("biomedclip",),
    ),
    FamilyFacts(
        name="asg",
        summary="ASG: images, patches and prompts in one space, and 40 tags as one unit with attention maps",
        layout="Lightning .ckpt with state_dict keys 'img_encoder_q.*' (ViT-B/16, or ResNet-50 for prompts), "
        "'text_encoder_q.*' and, for tags, 'irl.*' and 'text_encoder.*' (or tag_queries.safetensors in the "
        "text model folder); a text model folder with config.json and vocab.txt of Bio_ClinicalBERT",
        options={
            "heads": "list of prompts (cosine with any prompt, patches grounded in its words) and tags (the "
            "40 that the model was trained with, one unit); default: both where the checkpoint holds both",
            "image_heads": "attention heads of the image side (no tensor tells; default: the text model's, "
            "which is right for the published file: 12)",
        },
        module="promptray.export.families.asg",
        source_files=asg_files.source_files,
    ),
    FamilyFacts(
        name="convnext",
        summary="ConvNeXt classifiers, for example of breast density: exact class maps, classes on a scale",
        layout="a state dict under torchvision's or timm's names, plain or in a .ckpt of Lightning. Every "
        "ConvNeXt of timm; those with another stem, norm or head than the usual (*_ols, *_rms, *_hnf, "
        "large_mlp) and xxlarge need timm_name, and *_rms, *_hnf and large_mlp have no map",
        options={
            "classes": "list of the classes in the order of the classifier's rows (default: the JSON list "
            "'classes' of a safetensors file, or the class_descriptions that the checkpoint states)",
            "preprocessing": "squash (resized to a square in fractions of a level, not normalised: the "
            "density study), imagenet (torchvision's: shorter side resized, square cut out, ImageNet's mean "
            "and deviation) or timm (as timm says of the published weights that timm_name and its tag name); "
            "no tensor tells, so it must be said",
            "resize": "pixels of the shorter side before the cut of preprocessing imagenet; default at 224: "
            "of torchvision's Tiny 236, Small 230, Base and Large 232; of every other it must be said",
            "image_size": "side of the network's input (default: 224; with preprocessing timm, timm's)",
            "timm_name": "the architecture's name in timm, such as convnext_nano_ols or, with the tag of "
            "published weights, convnext_tiny.fb_in1k: structure, eps and activation are then timm's",
            "norm_eps": "epsilon of the norms, which no tensor tells (default: 1e-6; timm_name knows it)",
            "activation": "gelu, gelu_tanh, silu or relu, which no tensor tells (default: gelu, the exact "
            "one; timm_name knows it)",
        },
        module="promptray.export.families.convnext",
        source_files=no_files,
    ),
    FamilyFacts(
        name="squeezenet",
        summary="SqueezeNet 1.0 and 1.1 classifiers: alternatives with exact class maps",
        layout="a state dict under torchvision's names ('features.0.weight', 'classifier.1.weight' ...), "
        "plain or below 'state_dict'",
        options={
            "classes": "list of the classes in the order of the classifier's channels (default: the text "
            "'classes' of a safetensors file, a JSON list or names with commas between)",
            "preprocessing": "square (resized to a square whatever its shape) or imagenet (torchvision's: "
            "shorter side resized, square cut out); both bilinear, then ImageNet's mean and deviation; no "
            "tensor tells, so it must be said",
            "resize": "pixels of the shorter side before the cut of preprocessing imagenet (default at 224: "
            "256)",
            "image_size": "side of the network's input (default: 224)",
        },
        module="promptray.export.families.squeezenet",
        source_files=no_files,
    ),
    FamilyFacts(
        name="chexzero",
        summary="CheXzero: CLIP for chest radiographs, each finding against its negative, similarity maps",
        layout="a state dict of OpenAI's CLIP with a ViT ('visual.conv1.weight', "
        "'transformer.resblocks.*', 'text_projection' ...), saved by torch.save, with CLIP's "
        "bpe_simple_vocab_16e6.txt.gz (or merges.txt and vocab.json) beside it or in the text model folder",
        options={},
        module="promptray.export.families.chexzero",
        source_files=clip_files,
    ),
    FamilyFacts(
        name="kad",
        summary="KAD: any list of findings, which a build makes one unit; yes or no to each, attention maps",
        layout="the training script's .pt, which holds the state dicts 'image_encoder' (ResNet-50), "
        "'text_encoder' and 'model'; a text model folder with config.json and vocab.txt of PubMedBERT "
        "(base, uncased, abstracts and full text)",
        options={
            "image_size": "side of the network's input, which no tensor tells: 512 or 1024 for the files "
            "published as KAD-512 and KAD-1024 (default: img_res of the checkpoint's config; else 224 where "
            "the image side has three stages)",
        },
        module="promptray.export.families.kad",
        source_files=bert_files,
    ),
)


def facts(name: str) -> FamilyFacts:
    """Return what is known of a family without importing it.

    Raises
    ------
    BuildError
        ``family.unknown``.
    """
    for known in FAMILIES:
        if name in (known.name, *known.aliases):
            return known
    names = [each for known in FAMILIES for each in (known.name, *known.aliases)]
    nearest = difflib.get_close_matches(name.lower(), names, n=1)
    raise BuildError(
        "family.unknown",
        "no family of this name",
        artefact=name,
        expected=f"one of {', '.join(names)}",
        cure=f"did you mean {nearest[0]}?" if nearest else "run `promptray families`",
    )


def family(name: str) -> Family:
    """Import a family and return it.

    Raises
    ------
    BuildError
        ``family.unknown``.
    """
    found: Family = importlib.import_module(facts(name).module).FAMILY
    return found
