"""What sessions of the CPU provider give."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from promptray.runtime.backends import HOST, load_backend
from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer


def test_threads_of_a_session_stop_with_the_call(miniature: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    real = ort.InferenceSession

    def noted(model: bytes, options: ort.SessionOptions, **others: Any) -> ort.InferenceSession:
        said.append(options.get_session_config_entry("session.force_spinning_stop"))
        return real(model, options, **others)

    monkeypatch.setattr(ort, "InferenceSession", noted)
    with Scorer.open(miniature.path, backend=HOST, site=None):
        pass
    assert said
    assert set(said) == {"1"}, "the next session's threads would wait for theirs"


def test_outputs_keep_their_values_whatever_runs_later(miniature: Bundle) -> None:
    facts = miniature.manifest.graph("image")
    assert facts is not None
    dims = next(tensor for tensor in facts.inputs if tensor.name == "pixels").dims[1:]
    shape = (1, *(side for side in dims if isinstance(side, int)))
    backend = load_backend(HOST, threads=1)
    graph = backend.load(lambda: miniature.read(facts.file), facts).bind({})
    rng = np.random.default_rng(0)
    outputs = graph.run({"pixels": rng.normal(size=shape).astype(np.float32)})
    expected = {name: values.copy() for name, values in outputs.items()}
    views = {name: values[:, :1] for name, values in outputs.items()}
    del outputs
    for _ in range(5):
        gc.collect()
        later = graph.run({"pixels": rng.normal(size=shape).astype(np.float32)})
    del graph, backend
    gc.collect()
    for name, values in views.items():
        np.testing.assert_array_equal(values, expected[name][:, :1])
        assert not np.array_equal(later[name], expected[name])


def test_outputs_are_read_as_older_versions_give_them(
    miniature: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version for Python 3.10 cannot tell how many bytes a value has."""
    monkeypatch.delattr(ort.OrtValue, "tensor_size_in_bytes", raising=False)
    facts = miniature.manifest.graph("image")
    assert facts is not None
    graph = load_backend(HOST, threads=1).load(lambda: miniature.read(facts.file), facts).bind({})
    outputs = graph.run({"pixels": np.ones((2, 3, 32, 32), np.float32)})
    assert {name: values.shape[0] for name, values in outputs.items()} == dict.fromkeys(outputs, 2)
