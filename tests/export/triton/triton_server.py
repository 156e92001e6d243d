"""What Triton does with a model repository, in little: read configurations by the schema, run the ensemble.

The schema is Triton's own: ``model_config_pb2`` of its client library, loaded as a file, since the package
around it needs gRPC. Running is ONNX Runtime's, as in its backend.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from google.protobuf import text_format

_NUMPY = {"TYPE_FP32": np.float32, "TYPE_FP16": np.float16, "TYPE_INT64": np.int64, "TYPE_UINT8": np.uint8}
Arrays = dict[str, np.ndarray]


@cache
def schema() -> Any:
    """Triton's module of messages."""
    own = importlib.metadata.files("tritonclient") or []
    (file,) = (each for each in own if each.as_posix() == "tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("triton_model_config", file.locate())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(text: str) -> Any:
    """A configuration; fields that the schema does not know are an error."""
    return text_format.Parse(text, schema().ModelConfig())


def type_of(tensor: Any) -> Any:
    return _NUMPY[schema().DataType.Name(tensor.data_type)]


class TritonServer:
    """Loads every model of a repository, or fails as Triton would."""

    def __init__(self, repository: Path) -> None:
        self.configs = {
            folder.name: parse((folder / "config.pbtxt").read_text(encoding="ascii"))
            for folder in sorted(repository.iterdir())
        }
        self._sessions: dict[str, ort.InferenceSession] = {}
        for name, config in self.configs.items():
            folder = repository / name
            assert config.name == name
            assert config.max_batch_size >= 1
            (version,) = config.version_policy.specific.versions
            assert (folder / str(version)).is_dir()
            for output in config.output:
                if output.label_filename:
                    labels = (folder / output.label_filename).read_text(encoding="utf-8").splitlines()
                    assert len(labels) == output.dims[-1]
            if config.backend == "onnxruntime":
                self._load(config, folder / str(version) / config.default_model_filename)
                self._warm_up(config, folder / "warmup")
            else:
                assert config.platform == "ensemble"
                assert not config.instance_group, "ensembles have none"
        for config in self.configs.values():
            self._check_steps(config)

    def _load(self, config: Any, model: Path) -> None:
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        for side, stated in ((session.get_inputs(), config.input), (session.get_outputs(), config.output)):
            assert {each.name for each in side} == {each.name for each in stated}
            for tensor in stated:
                shape = next(each.shape for each in side if each.name == tensor.name)
                assert isinstance(shape[0], str), "no batch dimension"
                own = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
                for model_dim, dim in zip(shape[1:], own, strict=True):
                    assert isinstance(model_dim, str) or model_dim == dim
        self._sessions[config.name] = session

    def _warm_up(self, config: Any, folder: Path) -> None:
        """Every input of every sample is there, in its size, and gives answers that are numbers."""
        assert config.model_warmup
        for sample in config.model_warmup:
            assert 1 <= sample.batch_size <= config.max_batch_size
            inputs = {}
            for tensor in config.input:
                stated = sample.inputs[tensor.name]
                assert (stated.data_type, list(stated.dims)) == (tensor.data_type, list(tensor.dims))
                one = np.frombuffer((folder / stated.input_data_file).read_bytes(), type_of(tensor))
                inputs[tensor.name] = np.stack([one.reshape(tensor.dims)] * sample.batch_size)
            assert all(np.isfinite(array).all() for array in self.infer(config.name, inputs).values())

    def _check_steps(self, config: Any) -> None:
        tensors = {each.name: (each.data_type, list(each.dims)) for each in config.input}
        for step in config.ensemble_scheduling.step:
            own = self.configs[step.model_name]
            assert list(own.version_policy.specific.versions) == [step.model_version]
            assert own.max_batch_size >= config.max_batch_size
            assert {each.name for each in own.input} == set(step.input_map)
            for tensor in own.input:
                assert tensors[step.input_map[tensor.name]] == (tensor.data_type, list(tensor.dims))
            outputs = {each.name: each for each in own.output}
            for name, given in step.output_map.items():
                assert given not in tensors
                tensors[given] = (outputs[name].data_type, list(outputs[name].dims))
        for tensor in config.output if config.platform == "ensemble" else []:
            assert tensors[tensor.name] == (tensor.data_type, list(tensor.dims))

    def infer(self, model: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer a request for one model."""
        config = self.configs[model]
        assert {each.name for each in config.input} == set(inputs)
        for tensor in config.input:
            array = inputs[tensor.name]
            assert array.dtype == type_of(tensor)
            assert list(array.shape[1:]) == list(tensor.dims)
            assert 1 <= len(array) <= config.max_batch_size
        if model in self._sessions:
            session = self._sessions[model]
            names = [each.name for each in session.get_outputs()]
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        known = dict(inputs)
        for step in config.ensemble_scheduling.step:
            answers = self.infer(
                step.model_name, {name: known[given] for name, given in step.input_map.items()}
            )
            known |= {given: answers[name] for name, given in step.output_map.items()}
        return {each.name: known[each.name] for each in config.output}
