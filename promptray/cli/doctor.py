"""``promptray doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import click

from promptray.cli.output import json_option, print_json, print_table

_RUNTIME = (
    "promptray", "numpy", "onnxruntime", "pydicom", "pillow", "simplejpeg", "pylibjpeg", "pylibjpeg-openjpeg",
    "pyjpegls", "tokenizers", "safetensors", "msgspec",
)  # fmt: skip
_EXPORT = ("torch", "torchvision", "timm", "transformers", "onnx", "onnxscript")


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Show what this machine can run: versions, CPU, GPU, backends. Holds no patient data and no paths.

    Exits with 1 when something would keep the runtime from working; another backend that is not ready says
    why, and is no problem.

    \b
    Example:
      promptray doctor --json
    """
    from promptray.cli.doctor_gpu import driver, engine_backends
    from promptray.cli.doctor_openvino import openvino_state
    from promptray.runtime.backends import HOST, OPENVINO
    from promptray.runtime.machine_class import machine_class, processor_name

    problems = [f"not installed: {name}" for name in _RUNTIME if _version(name) is None]
    try:
        from promptray.runtime.backends.onnxruntime import installed_wheels

        wheels = installed_wheels()
    except ImportError as error:  # a wheel for another system or Python installs, and then does not load
        wheels = {}
        problems.append(f"onnxruntime cannot be imported ({type(error).__name__})")
    if len(wheels) > 1:
        problems.append(f"several onnxruntime wheels: {', '.join(wheels)} (keep one)")
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": processor_name(),
        "machine class": machine_class(),
        "cores": os.cpu_count(),
        "runtime": {name: _version(name) for name in _RUNTIME},
        "export": {name: _version(name) for name in _EXPORT},
        "backends": {
            HOST: "ready" if not problems else "not ready",
            OPENVINO: openvino_state(),
            **engine_backends(),
        },
        "cuda driver": driver(),
        "problems": problems,
    }
    if as_json:
        print_json(facts)
    else:
        rows = [[key, _text(value)] for key, value in facts.items()]
        print_table("promptray doctor", ["", ""], rows)
    return 1 if problems else 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} {version or 'not installed'}" for name, version in value.items())
    if isinstance(value, list):
        return "\n".join(map(str, value)) or "none"
    return str(value)
