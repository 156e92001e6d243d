"""ONNX graphs compiled to engines: one builder for TensorRT 8.6, 10.3 to 11.x and TensorRT-RTX 1.x.

TensorRT itself comes with the device (JetPack, the vendor's packages); TensorRT-RTX is the extra ``rtx``.
Neither is imported before a flavour of it is asked for, and no torch and no onnx are needed.
"""

from promptray.export.tensorrt.build import Built, build_engine
from promptray.export.tensorrt.flavour import Flavour, load_flavour
from promptray.export.tensorrt.layers import Layer
from promptray.export.tensorrt.profiles import Profile, prepare_profile, profiles_for

__all__ = [
    "Built",
    "Flavour",
    "Layer",
    "Profile",
    "build_engine",
    "load_flavour",
    "prepare_profile",
    "profiles_for",
]
