"""The dual encoder's modules: the published key layout, and open_clip's choices of pooling and projection."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from promptray.export.models.dual_encoder import DualEncoder, ImageTower, TextTower
from tests.open_clip_tiny import FOLDER, PUBLISHED, layout

import timm  # isort: skip - after the module above, which makes torchvision's import work
from timm.layers.mlp import Mlp  # isort: skip
from transformers import BertConfig, BertModel  # isort: skip

EMBED, WIDTH, POSITIONS = 24, 40, 64
#: Two texts, the second padded with 0.
IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 11, 3, 0, 0]])


def test_the_published_layout_is_the_modules() -> None:
    """Every key and shape of BiomedCLIP, made without memory."""
    published = json.loads((FOLDER / "published_state_dict.json").read_text(encoding="utf-8"))
    shapes = {key: tuple(shape) for key, shape in published["tensors"].items()}
    assert layout(PUBLISHED) == shapes
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        image = ImageTower(
            timm_name="vit_base_patch16_224", image_size=224, pool="", projection="linear",
            projection_bias=False, heads=1,
        )  # fmt: skip
        text = TextTower(heads=12, pooler="cls_last_hidden_state_pooler", projection="mlp", pad_id=0)
        made = DualEncoder(state, image, text, embed_dim=512)
    assert {key: tuple(tensor.shape) for key, tensor in made.state_dict().items()} == shapes
    assert sum(math.prod(shape) for shape in shapes.values()) == published["parameters"] == 195_902_721
    assert made.visual.heads == 12
    assert made.visual.grid == (14, 14)


@dataclass(frozen=True)
class Variant:
    """A choice of towers that open_clip's configuration can make."""

    timm_name: str = "vit_tiny_patch16_224"
    pool: str = ""
    projection: str = "linear"
    projection_bias: bool = False
    pooler: str = "cls_last_hidden_state_pooler"
    text_projection: str | None = "mlp"
    bias: float | None = None
    embed: int = EMBED


VARIANTS = {
    "published": Variant(),
    "averaged patches": Variant(pool="avg"),
    "averaging architecture": Variant(timm_name="vit_pwee_patch16_reg1_gap_256"),
    "averaging architecture, told so": Variant(timm_name="vit_pwee_patch16_reg1_gap_256", pool="avg"),
    "pooled by its first token": Variant(pool="token"),
    "image mlp": Variant(projection="mlp"),
    "image mlp with bias": Variant(projection="mlp", projection_bias=True),
    "image linear with bias": Variant(projection_bias=True),
    "text linear, mean": Variant(pooler="mean_pooler", text_projection="linear"),
    "text mlp, BERT's pooler": Variant(pooler="cls_pooler"),
    "text without projection": Variant(text_projection=None, embed=WIDTH),
    "sigmoid loss": Variant(bias=-9.5),
}


class Original(nn.Module):
    """open_clip's CustomTextCLIP put together from timm's and transformers' parts, by its source."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.visual = nn.Module()
        self.visual.trunk = timm.create_model(variant.timm_name, pretrained=False)
        self.visual.trunk.reset_classifier(0, **({"global_pool": variant.pool} if variant.pool else {}))
        width = self.visual.trunk.num_features
        self.visual.head = nn.Sequential()
        if variant.projection == "linear":
            self.visual.head.proj = nn.Linear(width, variant.embed, bias=variant.projection_bias)
        else:
            self.visual.head.mlp = Mlp(
                width, 2 * variant.embed, variant.embed, bias=(True, variant.projection_bias)
            )
        self.text = nn.Module()
        config = BertConfig(
            vocab_size=50, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=56, max_position_embeddings=POSITIONS,
        )  # fmt: skip
        self.text.transformer = BertModel(config, add_pooling_layer=variant.pooler == "cls_pooler")
        middle = (WIDTH + variant.embed) // 2
        if variant.text_projection == "linear":
            self.text.proj = nn.Linear(WIDTH, variant.embed, bias=False)
        elif variant.text_projection == "mlp":
            self.text.proj = nn.Sequential(
                nn.Linear(WIDTH, middle, bias=False), nn.GELU(), nn.Linear(middle, variant.embed, bias=False)
            )
        else:
            self.text.proj = nn.Identity()
        self.logit_scale = nn.Parameter(torch.tensor(4.4454))
        if variant.bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor(variant.bias))

    def image(self, pixels: Tensor) -> Tensor:
        return normalize(self.visual.head(self.visual.trunk(pixels)), dim=-1)

    def texts(self, ids: Tensor) -> Tensor:
        mask = (ids != 0).long()
        answer: Any = self.text.transformer(input_ids=ids, attention_mask=mask)
        states = answer.last_hidden_state
        pooled = {
            "cls_last_hidden_state_pooler": lambda: states[:, 0],
            "cls_pooler": lambda: answer.pooler_output,
            "mean_pooler": lambda: (states * mask[..., None]).sum(dim=1) / mask.sum(dim=-1, keepdim=True),
        }[self.variant.pooler]()
        return normalize(self.text.proj(pooled), dim=-1)


def ours_of(variant: Variant, state: dict[str, Tensor]) -> DualEncoder:
    size = timm.get_pretrained_cfg(variant.timm_name).input_size[-1]
    image = ImageTower(
        timm_name=variant.timm_name, image_size=size, pool=variant.pool, projection=variant.projection,
        projection_bias=variant.projection_bias, heads=1,
    )  # fmt: skip
    text = TextTower(heads=4, pooler=variant.pooler, projection=variant.text_projection, pad_id=0)
    return DualEncoder(state, image, text, variant.embed).eval()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_choice_of_the_configuration_is_open_clips(name: str) -> None:
    torch.manual_seed(7)
    variant = VARIANTS[name]
    original = Original(variant).eval()
    for parameter in original.parameters():  # timm and transformers start many at 0 or 1
        nn.init.normal_(parameter, std=0.2) if parameter.ndim else None
    ours = ours_of(variant, dict(original.state_dict()))
    ours.load_state_dict(original.state_dict(), strict=True)
    pixels = torch.randn(2, 3, *ours.visual.size)
    with torch.inference_mode():
        image, patches = ours.visual(pixels)
        assert (image - original.image(pixels)).abs().max() <= 2e-6
        assert (ours.text(IDS) - original.texts(IDS)).abs().max() <= 2e-6
        assert (ours.text(IDS[1:, :3]) - original.texts(IDS)[1]).abs().max() <= 2e-6, "padding adds nothing"
        tokens = original.visual.trunk.forward_features(pixels)[:, original.visual.trunk.num_prefix_tokens :]
        likeness = normalize(original.visual.head(original.visual.trunk.fc_norm(tokens)), dim=-1)
        assert (patches - likeness).abs().max() <= 2e-6
    assert ours.bias is None if variant.bias is None else ours.bias == variant.bias


def test_the_choices_differ() -> None:
    """The comparison above can fail: another pooling or bias gives other vectors."""
    torch.manual_seed(7)
    original = Original(VARIANTS["published"]).eval()
    for parameter in original.parameters():
        nn.init.normal_(parameter, std=0.2) if parameter.ndim else None
    pixels = torch.randn(1, 3, 224, 224)
    for variant in (Variant(pool="avg"), Variant(pooler="mean_pooler")):
        ours = ours_of(variant, dict(original.state_dict()))
        ours.load_state_dict(original.state_dict(), strict=True)
        with torch.inference_mode():
            image = (ours.visual(pixels)[0] - original.image(pixels)).abs().max()
            text = (ours.text(IDS) - original.texts(IDS)).abs().max()
        assert (image > 1e-2) == (variant.pool == "avg")
        assert (text > 1e-2) == (variant.pooler == "mean_pooler")


@pytest.mark.parametrize("timm_name", ["resnet18", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224"])
def test_an_image_tower_that_is_no_plain_vit_is_refused(timm_name: str) -> None:
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in layout(PUBLISHED).items()}
        image = ImageTower(
            timm_name=timm_name, image_size=224, pool="", projection="linear", projection_bias=False, heads=1
        )
        text = TextTower(heads=4, pooler="mean_pooler", projection="mlp", pad_id=0)
        with pytest.raises(ValueError, match=f"{timm_name} is no plain ViT"):
            DualEncoder(state, image, text, 512)


def test_a_text_tower_of_another_width_needs_a_projection() -> None:
    original = Original(Variant(text_projection=None, embed=WIDTH))
    with pytest.raises(ValueError, match="needs a projection to 24"):
        ours_of(Variant(text_projection=None), dict(original.state_dict()))
