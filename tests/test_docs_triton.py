"""The client of docs/triton.md runs, with a stand-in for the library that talks to a server."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from promptray.export.triton.repository import export_triton
from promptray.runtime.bundle import Bundle
from tests.export.triton.triton_server import TritonServer

PAGE = Path(__file__).parents[1] / "docs" / "triton.md"
CLIENT = re.search(
    r"<!-- client: begin -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
)


def _library(server: TritonServer, off: float, bundle: str | None) -> ModuleType:
    """Just what the client uses of ``tritonclient.http``."""

    class InferInput:
        def __init__(self, name: str, shape: list[int], datatype: str) -> None:
            self.name, self.shape, self.datatype = name, shape, datatype

        def set_data_from_numpy(self, array: np.ndarray) -> None:
            assert list(array.shape) == self.shape
            assert (array.dtype, self.datatype) == (np.float32, "FP32")
            self.array = array

    class Answer:
        def __init__(self, arrays: dict[str, np.ndarray]) -> None:
            self.as_numpy = arrays.__getitem__

    class InferenceServerClient:
        def __init__(self, url: str) -> None:
            assert url == "localhost:8000"

        def infer(self, model: str, inputs: list[InferInput]) -> Answer:
            found = server.infer(model, {each.name: each.array for each in inputs})
            return Answer({name: array + np.float32(off) for name, array in found.items()})

        def get_model_config(self, model: str) -> dict[str, Any]:
            config: dict[str, Any] = json_format.MessageToDict(
                server.configs[model], preserving_proto_field_name=True
            )
            if bundle:
                config["parameters"]["promptray.bundle_sha256"]["string_value"] = bundle
            return config

    library = ModuleType("tritonclient.http")
    vars(library).update(InferInput=InferInput, InferenceServerClient=InferenceServerClient)
    return library


@pytest.mark.parametrize(
    ("off", "bundle", "verdict"),
    [
        (0.0, None, None),
        (0.01, None, "off by"),
        (float("nan"), None, "no number"),
        (0.0, "0" * 64, "another"),
    ],
)
def test_the_client_runs_and_its_check_can_fail(
    carzero_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    off: float,
    bundle: str | None,
    verdict: str | None,
) -> None:
    assert CLIENT
    head = Bundle.open(carzero_bundle).manifest.heads[0].name
    export_triton(carzero_bundle, tmp_path / "models", name="chest")
    library = _library(TritonServer(tmp_path / "models"), off, bundle)
    monkeypatch.setitem(sys.modules, "tritonclient", ModuleType("tritonclient"))
    monkeypatch.setitem(sys.modules, "tritonclient.http", library)
    vars(sys.modules["tritonclient"])["http"] = library
    monkeypatch.chdir(tmp_path)
    code = CLIENT[1].replace('ENSEMBLE, HEAD = "chest", "chest"', f'ENSEMBLE, HEAD = "chest", "{head}"')
    code = code.replace('"chest.bundle"', repr(str(carzero_bundle)))
    if verdict is None:
        exec(compile(code, str(PAGE), "exec"), {})
        assert "golden images: the server scores as this machine does" in capsys.readouterr().out
    else:
        with pytest.raises((SystemExit, ValueError), match=verdict):
            exec(compile(code, str(PAGE), "exec"), {})
