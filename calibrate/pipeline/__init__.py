"""A recipe to a bundle with what calibrate adds: quantised graphs, gated against the fp32 original."""

from promptray.calibrate.pipeline.build import build
from promptray.calibrate.pipeline.recipe import BuildRecipe

__all__ = ["BuildRecipe", "build"]
