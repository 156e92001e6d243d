"""Bundles whose graphs are for OpenVINO, too: copies, so that no family has to be built twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from promptray.runtime.bundle import Bundle
from tests.bundle_factory import edited


def for_openvino(path: Path, copy: Path, consumer: str = "openvino") -> Bundle:
    """Copy a bundle and name a further consumer of its image graph and heads."""

    def name_it(document: dict[str, Any]) -> None:
        for graph in document["graphs"]:
            if graph["role"] != "text":
                graph["consumers"].append(consumer)

    shutil.copytree(path, copy)
    edited(copy, name_it)
    return Bundle.open(copy)
