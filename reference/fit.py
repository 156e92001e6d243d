"""Train one CARZero on radiographs and wordings.

Three stages, all on the same few images and without outside weights:

1. the image side learns to describe the texture of patches, without labels;
2. the text side learns which wordings are true of which class;
3. the whole model learns to score true pairs above false ones. Two small helper heads, dropped afterwards,
   keep each side informative while the fusion is still blind: from pairs alone it hardly starts to learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from promptray.export.models.carzero import CARZero, CARZeroSizes
from reference.pictures import DistortedCopies

COPIES = 16
COMPONENTS = 48
BATCH = 24
PROMPTS_PER_MEANING = 2
PATCHES_SEEN = 0.5
HELPER_WEIGHT = 0.5


@dataclass(frozen=True)
class Schedule:
    """How long each stage takes."""

    image_steps: int = 600
    text_steps: int = 200
    epochs: int = 80


@dataclass(frozen=True)
class Wordings:
    """Training wordings.

    Attributes
    ----------
    tokens : dict of Tensor
        Text inputs of `CARZero.forward`, one row per wording.
    truth : Tensor, (wordings, classes)
        1 where a wording is true of a class.
    meaning : Tensor, (wordings,)
        Number of the meaning that each wording expresses.
    """

    tokens: dict[str, Tensor]
    truth: Tensor
    meaning: Tensor

    def draw(self, each: int, generator: torch.Generator) -> Tensor:
        """Draw as many wordings of every meaning; return their numbers."""
        return torch.cat(
            [
                members[torch.randint(len(members), (each,), generator=generator)]
                for members in ((self.meaning == m).nonzero()[:, 0] for m in self.meaning.unique())
            ]
        )

    def inputs(self, numbers: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Return the text inputs of some wordings."""
        return {name: values[numbers].to(device) for name, values in self.tokens.items()}


@dataclass
class Curve:
    """Mean losses per epoch of the third stage."""

    pairs: list[float] = field(default_factory=list)
    image_helper: list[float] = field(default_factory=list)
    text_helper: list[float] = field(default_factory=list)


def fit(
    sizes: CARZeroSizes,
    pictures: Tensor,
    labels: Tensor,
    wordings: Wordings,
    *,
    seed: int,
    schedule: Schedule,
    device: torch.device,
) -> tuple[CARZero, Curve]:
    """Train a model.

    Parameters
    ----------
    sizes : CARZeroSizes
    pictures : Tensor, (n, 1, H, W)
        The network's view of each image before normalisation, 0..1.
    labels : Tensor, (n,)
        Number of each image's class.
    wordings : Wordings
    seed : int
        Decides weights, distortions and order.

    Returns
    -------
    model : CARZero
        In evaluation mode.
    curve : Curve
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = CARZero(sizes).to(device).train()
    copies = DistortedCopies(
        pictures, generator, patch=sizes.patch_size, copies=COPIES, components=COMPONENTS
    )
    _learn_texture(model, copies, generator, schedule.image_steps, device)
    text_helper = nn.Sequential(
        nn.LayerNorm(sizes.width), nn.Linear(sizes.width, wordings.truth.shape[1])
    ).to(device)
    _learn_truth(model, text_helper, wordings, generator, schedule.text_steps, device)
    curve = _learn_pairs(model, text_helper, copies, labels, wordings, generator, schedule.epochs, device)
    return model.eval(), curve


def normalised(pictures: Tensor) -> Tensor:
    """Bring pictures (B, 1, H, W) of 0..1 to the network's input (B, 3, H, W)."""
    return ((pictures - 0.4978) / 0.2449).expand(-1, 3, -1, -1)


def _half_seen(model: CARZero, pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Run the image side on a random half of the patches: cheaper, and none can be leaned on.

    Returns
    -------
    rows : Tensor, (B, 1 + seen, width)
        As `ImageEncoder.forward`, for the patches seen.
    seen : Tensor of int64, (B, seen, 1)
        Numbers of those patches.
    """
    vit = model.img_encoder.model
    position = vit.get_parameter("pos_embed")
    patches = vit.patch_embed(normalised(pictures)) + position[:, 1:]
    order = torch.rand(patches.shape[:2], generator=generator).argsort(dim=1)
    seen = order[:, : int(PATCHES_SEEN * order.shape[1]), None].to(pictures.device)
    start = (vit.get_parameter("cls_token") + position[:, :1]).expand(len(patches), -1, -1)
    rows = torch.cat([start, patches.gather(1, seen.expand(-1, -1, patches.shape[-1]))], dim=1)
    return vit.norm(vit.blocks(rows)), seen


def _learn_texture(
    model: CARZero, copies: DistortedCopies, generator: torch.Generator, steps: int, device: torch.device
) -> None:
    """Have each patch row tell its texture, and the global row the layout, from half of the patches."""
    vit, width = model.img_encoder.model, model.sizes.width
    patch_head = nn.Linear(width, copies.texture.shape[-1]).to(device)
    global_head = nn.Linear(width, copies.layout.shape[-1]).to(device)
    optimizer = torch.optim.AdamW(
        [*vit.parameters(), *patch_head.parameters(), *global_head.parameters()], lr=2e-3, weight_decay=0.05
    )
    rate = OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        originals = torch.randint(copies.originals, (BATCH,), generator=generator)
        pictures, numbers = copies.draw(originals, generator)
        rows, seen = _half_seen(model, pictures.to(device), generator)
        wanted = copies.texture[numbers].to(device).gather(1, seen.expand(-1, -1, copies.texture.shape[-1]))
        loss = F.mse_loss(patch_head(rows[:, 1:]), wanted)
        loss = loss + F.mse_loss(global_head(rows[:, 0]), copies.layout[numbers].to(device))
        _step(loss, optimizer, rate)


def _learn_truth(
    model: CARZero,
    helper: nn.Module,
    wordings: Wordings,
    generator: torch.Generator,
    steps: int,
    device: torch.device,
) -> None:
    """Have the sentence vector tell of which classes a wording is true."""
    parameters = [*model.text_encoder.parameters(), *helper.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    rate = OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        drawn = wordings.draw(6 * PROMPTS_PER_MEANING, generator)
        sentence, _ = model.text_encoder(**wordings.inputs(drawn, device))
        loss = F.binary_cross_entropy_with_logits(helper(sentence), wordings.truth[drawn].to(device))
        _step(loss, optimizer, rate)


def _learn_pairs(
    model: CARZero,
    text_helper: nn.Module,
    copies: DistortedCopies,
    labels: Tensor,
    wordings: Wordings,
    generator: torch.Generator,
    epochs: int,
    device: torch.device,
) -> Curve:
    """Have both directions tell true pairs of image and wording from false ones."""
    image_helper = nn.Linear(2 * model.sizes.width, wordings.truth.shape[1]).to(device)
    optimizer = torch.optim.AdamW(
        _decay_matrices_only([model, text_helper, image_helper], weight_decay=0.05), lr=1e-3
    )
    rate = OneCycleLR(optimizer, 1e-3, total_steps=epochs * -(-len(labels) // BATCH), pct_start=0.15)
    curve = Curve()
    for _ in range(epochs):
        losses = []
        for originals in torch.randperm(len(labels), generator=generator).split(BATCH):
            pictures, _ = copies.draw(originals, generator)
            drawn = wordings.draw(PROMPTS_PER_MEANING, generator)
            truth, classes = wordings.truth[drawn].to(device), labels[originals].to(device)
            image, _ = _half_seen(model, pictures.to(device), generator)
            sentence, words = model.text_encoder(**wordings.inputs(drawn, device))
            output = model.fuse(image, sentence, words)
            matches = truth[:, classes].T
            both = torch.stack([output.logits_i2t, output.logits_t2i])
            pairs = F.binary_cross_entropy_with_logits(both, matches.expand_as(both))
            pooled = torch.cat([image[:, 0], image[:, 1:].mean(dim=1)], dim=1)
            help_image = F.cross_entropy(image_helper(pooled), classes)
            help_text = F.binary_cross_entropy_with_logits(text_helper(sentence), truth)
            _step(pairs + HELPER_WEIGHT * (help_image + help_text), optimizer, rate, clip=model)
            losses.append(torch.stack([pairs, help_image, help_text]).detach().cpu())
        means = torch.stack(losses).mean(dim=0).tolist()
        for series, value in zip((curve.pairs, curve.image_helper, curve.text_helper), means, strict=True):
            series.append(value)
    return curve


def _step(
    loss: Tensor, optimizer: torch.optim.Optimizer, rate: OneCycleLR, clip: nn.Module | None = None
) -> None:
    optimizer.zero_grad()
    loss.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
    optimizer.step()
    rate.step()


def _decay_matrices_only(modules: list[nn.Module], *, weight_decay: float) -> Iterator[dict[str, object]]:
    """Group parameters: biases, norms and single vectors are not decayed."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    yield {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay}
    yield {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
