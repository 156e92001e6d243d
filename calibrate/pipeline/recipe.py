"""The sections of a recipe about changed graphs: how they are made, and what they are gated on."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.calibrate.distil.settings import Distil
from promptray.calibrate.distil.text_settings import TextDistil
from promptray.calibrate.pipeline.images_recipe import ImagesRecipe
from promptray.calibrate.pipeline.tensorrt_recipe import TensorRTRecipe
from promptray.calibrate.quantise.scheme import (
    ConvolutionInt8,
    DynamicInt8,
    Float8,
    Float16,
    Int8,
    Scheme,
    WeightOnly,
)
from promptray.export.recipe import Recipe
from promptray.runtime.bundle.fields import HeadName, Text
from promptray.runtime.errors import BuildError
from promptray.runtime.gate_limits import AT_LEAST, KINDS, LIMITS, Kind, Limits

#: The strictest first.


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections: unknown keys are refused."""


#: Schemes of which groups of layers can be kept high one by one: `search` and `promptray sensitivity`.
BY_GROUPS = (Int8, ConvolutionInt8)


class DistilRecipe(Distil, frozen=True, kw_only=True):
    """How a student is made in the place of the image tower, and of which images."""

    images: Text
    """As in `ImagesRecipe`, like the next and `source`."""
    labels: Text | None = None
    reports: Text | None = None
    """A CSV with the columns ``file`` and ``report``: what was said of each image."""
    source: Text

    @property
    def settings(self) -> Distil:
        """How it is made."""
        return Distil(**{name: getattr(self, name) for name in Distil.__struct_fields__})

    @property
    def taken_from(self) -> ImagesRecipe:
        """The images it is made of."""
        return ImagesRecipe(images=self.images, labels=self.labels, source=self.source)


class TextDistilRecipe(TextDistil, frozen=True, kw_only=True):
    """How a smaller text side is made, and of which wordings."""

    wordings: Text | None = None
    """A text file with wordings, one a line. No patient data: held-out ones are scored, all are learned."""

    @property
    def settings(self) -> TextDistil:
        """How it is made."""
        return TextDistil(**{name: getattr(self, name) for name in TextDistil.__struct_fields__})


class QuantiseRecipe(_Struct, frozen=True, kw_only=True):
    """Which graphs and banks are quantised, and how."""

    image: Scheme | None = None
    head: Scheme | None = None
    """Of every head."""
    heads: dict[HeadName, Scheme] = {}
    """Of single heads, by name, instead of `head`."""
    text: Scheme | None = None
    """Of the text graph; the bank of the recipe's findings stays that of the fp32 text graph."""
    bank: Literal["float32", "float16"] = "float32"
    """How the files of the prompt banks store numbers; heads compute in float32."""
    calibration: ImagesRecipe | None = None
    """The images that ranges are taken from, where a scheme of the image graph or a head takes any."""
    search: Literal["calibration"] | ImagesRecipe | None = None
    """Images to find the layers by that must stay high; ``calibration`` for those of that section. Never the
    gate's: what was chosen by some images is judged by others."""

    def scheme_of(self, role: str, head: str | None) -> Scheme | None:
        """Return the scheme of a graph, or None: it stays fp32."""
        if role == "head":
            return self.heads.get(head or "", self.head)
        return self.image if role == "image" else self.text

    @property
    def schemes(self) -> list[Scheme]:
        """All schemes that are asked for."""
        asked = [self.image, self.head, *self.heads.values(), self.text]
        return [scheme for scheme in asked if scheme is not None]


Share = Annotated[float, Meta(ge=0, le=1)]
Size = Annotated[float, Meta(ge=0)]


class LimitsRecipe(_Struct, frozen=True, kw_only=True):
    """Bounds tighter than those of the kind of change (`promptray.runtime.gate_limits`)."""

    auroc_loss: Share | None = None
    class_auroc_loss: Share | None = None
    flips: Share | None = None
    finding_flips: Share | None = None
    spearman: Share | None = None
    mean_delta: Size | None = None
    max_delta: Size | None = None
    batch_delta: Size | None = None
    map_correlation: Share | None = None
    map_overlap: Share | None = None


class GateRecipe(ImagesRecipe, frozen=True, kw_only=True):
    """The images that changed graphs are held against the fp32 original on, and how strictly."""

    kind: Literal["fp16", "int8", "student"] | None = None
    """Whose limits: by default ``student`` of a student, ``fp16`` where all schemes are, else ``int8``.
    Never a looser one."""
    limits: LimitsRecipe = LimitsRecipe()
    thresholds: dict[Text, float | dict[Text, float]] = msgspec.field(default_factory=dict)
    """Flips are counted at this logit: of a finding, or of a head's findings by the head's name. Of those
    without one, at the reference operating point."""
    pictures: bool = False
    """Whether the pages in OUTPUT.gate show the pictures that differ most: a name may be burned in."""


class BuildRecipe(Recipe, frozen=True, kw_only=True):
    """All that ``promptray build`` reads."""

    distil: DistilRecipe | None = None
    distil_text: TextDistilRecipe | None = None
    quantise: QuantiseRecipe | None = None
    gate: GateRecipe | None = None
    tensorrt: TensorRTRecipe | None = None

    @property
    def changes(self) -> bool:
        """Whether the bundle will hold other graphs or banks than the original's."""
        return any(each is not None for each in (self.distil, self.distil_text, self.quantise))

    @property
    def changes_scores(self) -> bool:
        """Whether shipped findings will score otherwise: not where only the text graph changes."""
        of = self.quantise
        return self.distil is not None or (
            of is not None and (bool(of.image or of.head or of.heads) or of.bank != "float32")
        )

    @property
    def simulated(self) -> Int8 | None:
        """The scheme that a student learns under, if it learns under one."""
        image = self.quantise.image if self.quantise else None
        simulates = self.distil is not None and self.distil.simulate is not None
        return image if simulates and isinstance(image, Int8) else None


def check_sections(recipe: BuildRecipe, artefact: str, heads: list[str], *, text: bool) -> None:
    """Refuse sections that do not fit each other or the model, before the long work.

    Parameters
    ----------
    recipe : BuildRecipe
    artefact : str
        Base name of its file.
    heads : list of str
        The model's heads.
    text : bool
        Whether the bundle will hold a text graph.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming the key.
    """
    quantise, distil = recipe.quantise, recipe.distil
    if not recipe.changes:
        if recipe.gate is not None:
            what = "nothing is changed, so there is nothing to gate"
            raise _invalid(artefact, "gate", what, "a section 'distil', 'distil_text' or 'quantise'")
        return
    if recipe.gate is None:
        what = "changed graphs are used only after a gate, and the recipe has no images for it"
        section = "distil" if distil else "quantise" if quantise else "distil_text"
        raise _invalid(artefact, section, what, "a section 'gate'")
    if recipe.distil_text is not None and not text:
        what = "the bundle holds no text graph, or the model no text side"
        raise _invalid(artefact, "distil_text", what, "text_graph: true, of a model that scores wordings")
    if quantise is not None:
        check_quantise(quantise, artefact, heads, text=text)
    if distil is not None and distil.simulate is not None:
        scheme = recipe.simulated
        if scheme is None or scheme.smooth is not None:
            what = "only explicit Q/DQ pairs whose places and weights are known before can be simulated"
            wanted = "a section 'quantise' with image: {scheme: int8-qdq}, without smooth"
            raise _invalid(artefact, "distil.simulate", what, wanted)
        if quantise is not None and quantise.search is not None:
            what = "a search chooses layers after the training, so what is simulated is not what would ship"
            wanted = "distil.simulate or quantise.search, not both"
            cure = "search first, without simulate, then write what it chose as `keep` and take search out"
            raise _invalid(artefact, "distil.simulate", what, wanted, cure)
    if recipe.changes_scores:
        limits_of(recipe, artefact)
    limits_of(recipe, artefact, added=True)


def check_quantise(quantise: QuantiseRecipe, artefact: str, heads: list[str], *, text: bool) -> None:
    """Refuse schemes that do not fit the model or its images; parameters as in :func:`check_sections`.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming the key.
    """
    if not quantise.schemes and quantise.bank == "float32":
        raise _invalid(artefact, "quantise", "nothing is to be quantised", "image, head, text or bank")
    if quantise.schemes and quantise.image is None and quantise.bank != "float32":
        what = (
            "a bank in less beside quantised graphs other than the image's would be gated for two consumers"
        )
        raise _invalid(artefact, "quantise", what, "image, too, or no other graph")
    for name in quantise.heads:
        if name not in heads:
            raise _invalid(artefact, f"quantise.heads.{name}", "the model has no such head", ", ".join(heads))
    if quantise.text is not None and not text:
        raise _invalid(artefact, "quantise.text", "the bundle holds no text graph", "text_graph: true")
    if any(isinstance(scheme, Float8) for scheme in quantise.schemes):
        what = "fp8-qdq graphs run on no CPU with the optimisations of deployment"
        wanted = "another scheme; or precision: fp8-qdq in a section 'tensorrt', for GPUs"
        raise _invalid(artefact, "quantise", what, wanted)
    of_images = [quantise.image, quantise.head, *quantise.heads.values()]
    if any(isinstance(each, DynamicInt8) for each in of_images):
        named = {"image": quantise.image, "head": quantise.head}
        named |= {f"heads.{name}": each for name, each in quantise.heads.items()}
        key = next(f"quantise.{name}" for name, each in named.items() if isinstance(each, DynamicInt8))
        what = (
            "int8-dynamic takes ranges from the whole call, so the scores of an image would change with the "
            "images and prompts that come with it"
        )
        raise _invalid(artefact, key, what, "int8-qdq; int8-dynamic is for text, one wording a call")
    if quantise.search is not None and not any(isinstance(each, BY_GROUPS) for each in of_images):
        what = "there is nothing to choose from: no image graph or head has a scheme that quantises by layers"
        tags = " or ".join(str(each.__struct_config__.tag) for each in BY_GROUPS)
        raise _invalid(artefact, "quantise.search", what, f"{tags} of image or head")
    takes = [each for each in of_images if each and not isinstance(each, DynamicInt8 | WeightOnly)]
    if takes and quantise.calibration is None:
        tag = takes[0].__struct_config__.tag
        what = f"{tag} takes ranges from images, and the recipe names none"
        raise _invalid(
            artefact, "quantise", what, "a section 'calibration' in it, with 'images' and 'source'"
        )


def kind_of(recipe: BuildRecipe, artefact: str, *, added: bool = False) -> Kind:
    """Return whose limits are held for scores, or for prompts that are `added` by the bundle's text graph.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for one that is looser than that of the change.
    """
    schemes = recipe.quantise.schemes if recipe.quantise else []
    own: Kind = "fp16" if all(isinstance(each, Float16) for each in schemes) else "int8"
    if recipe.distil is not None:
        # The tower as it was, trained on, is not smaller for what it loses: it is held as if quantised only.
        own = "int8" if recipe.distil.layers == "all" else "student"
    if added and recipe.distil_text is not None:
        own = "student"
    asked = (recipe.gate.kind if recipe.gate else None) or own
    if KINDS.index(asked) > KINDS.index(own):
        what = f"the limits of {asked} are looser than those of {own}"
        raise _invalid(artefact, "gate.kind", what, own)
    return asked


def limits_of(recipe: BuildRecipe, artefact: str, *, added: bool = False) -> Limits:
    """Return the limits: those of the kind (see :func:`kind_of`), tightened where the recipe says so.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for a limit that is looser.
    """
    limits = LIMITS[kind_of(recipe, artefact, added=added)]
    asked = recipe.gate.limits if recipe.gate else LimitsRecipe()
    tighter = {}
    for name in (field.name for field in fields(Limits)):
        value, bound = getattr(asked, name), getattr(limits, name)
        if value is None:
            continue
        if (value < bound) if name in AT_LEAST else (value > bound):
            sense = "at least" if name in AT_LEAST else "at most"
            what = f"{value:g} is looser than the limit, and limits may only be tightened"
            raise _invalid(artefact, f"gate.limits.{name}", what, f"{sense} {bound:g}")
        tighter[name] = value
    return replace(limits, **tighter)


def precision_of(scheme: Scheme) -> str:
    """Return the precision of a graph as the manifest names it."""
    tag = str(scheme.__struct_config__.tag)
    return f"{tag}-float16" if isinstance(scheme, Int8) and scheme.rest == "float16" else tag


def _invalid(
    artefact: str,
    key: str,
    what: str,
    expected: str,
    cure: str = "docs/recipe.md lists every key with an example",
) -> BuildError:
    return BuildError(
        "recipe.invalid",
        what,
        artefact=f"{artefact}, key {key}",
        expected=expected,
        cure=cure,
    )
