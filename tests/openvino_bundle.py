"""Bundles whose graphs are for OpenVINO, too: copies, so that no family has to be built twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from promptray.runtime.backends import OPENVINO
from promptray.runtime.bundle import Bundle
from tests.bundle_factory import edited, relist


def for_openvino(path: Path, copy: Path) -> Bundle:
    """Copy a bundle; name a further consumer of its image graph and heads, and its checks in the report."""

    def name_it(document: dict[str, Any]) -> None:
        for graph in document["graphs"]:
            if graph["role"] != "text":
                graph["consumers"].append(OPENVINO)

    shutil.copytree(path, copy)
    edited(copy, name_it)
    report = json.loads((copy / "parity.json").read_bytes())
    report["backends"] = [{"backend": OPENVINO, "heads": report["heads"]}]
    relist(copy, "parity.json", json.dumps(report).encode())
    return Bundle.open(copy)
