"""The configurations of Triton's models: image side, heads, and the ensemble that joins them.

Fields are those of ``ModelConfig`` in ``model_config.proto`` (triton-inference-server/common). Dimensions are
written without the first, the batch, which Triton adds where ``max_batch_size`` is above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptray.export.triton.pbtxt import Message, Value, Word, mapping
from promptray.runtime.bundle.manifest import TensorFacts

#: The version folder of every model; an ensemble takes no other one.
VERSION = 1
#: In the folder of a head's model: the keys of its findings.
LABELS = "labels.txt"
_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "int64": "TYPE_INT64", "uint8": "TYPE_UINT8"}


@dataclass(frozen=True)
class Serving:
    """How a server runs the models.

    Attributes
    ----------
    max_batch : int
        Most images of one call. Above 1 the server puts images of several requests together.
    queue_delay : int
        Microseconds that an image may wait for others.
    instances : int
        Copies of each model, which run side by side.
    threads : int or None
        Threads of one call; None leaves it to the server: every core, for every instance.
    """

    max_batch: int = 8
    queue_delay: int = 0
    instances: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Step:
    """A model of an ensemble.

    Attributes
    ----------
    model : str
    inputs, outputs : mapping of str to str
        Name of the model's tensor -> name in the ensemble.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def tensor(facts: TensorFacts, *, name: str | None = None, labels: str | None = None) -> dict[str, Value]:
    """Return an input or output.

    Parameters
    ----------
    facts : TensorFacts
        Its first dimension is the batch; one that has a name varies.
    name : str, optional
        Another name for it.
    labels : str, optional
        File in the model's folder that names its elements, one a line.
    """
    own = [-1 if isinstance(dim, str) else dim for dim in facts.dims[1:]]
    found: dict[str, Value] = {"name": name or facts.name, "data_type": _type(facts), "dims": own or [1]}
    if not own:  # Triton has no tensor without dimensions
        found["reshape"] = {}
    if labels:
        found["label_filename"] = labels
    return found


def onnx_model(
    name: str,
    inputs: Sequence[TensorFacts],
    outputs: Sequence[TensorFacts],
    serving: Serving,
    parameters: Mapping[str, str],
    warm_up: Mapping[str, str],
) -> Message:
    """Return the configuration of a graph that ONNX Runtime runs on the processor.

    Parameters
    ----------
    name : str
    inputs, outputs : sequence of TensorFacts
        ``logits`` are named in :data:`LABELS`.
    serving : Serving
    parameters : mapping of str to str
    warm_up : mapping of str to str
        Input -> the file below ``warmup`` that holds it for one image.
    """
    threads = {} if serving.threads is None else {"intra_op_thread_count": str(serving.threads)}
    batching: Message = (
        {"dynamic_batching": {"max_queue_delay_microseconds": serving.queue_delay}}
        if serving.max_batch > 1
        else {}
    )
    by_name = {facts.name: facts for facts in inputs}
    samples: Message = {
        each: {
            "data_type": _type(by_name[each]),
            "dims": tensor(by_name[each])["dims"],
            "input_data_file": file,
        }
        for each, file in warm_up.items()
    }
    return {
        "name": name,
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "max_batch_size": serving.max_batch,
        "input": [tensor(facts) for facts in inputs],
        "output": [tensor(facts, labels=LABELS if facts.name == "logits" else None) for facts in outputs],
        # The processor is what the graphs were gated on; a GPU would run them in TF32.
        "instance_group": [{"kind": Word("KIND_CPU"), "count": serving.instances}],
        **batching,
        "model_warmup": [
            {"name": f"golden picture, batch of {size}", "batch_size": size, "inputs": mapping(samples)}
            for size in sorted({1, serving.max_batch})
        ],
        **_common({**parameters, **threads}),
    }


def ensemble(
    name: str,
    inputs: Sequence[Message],
    outputs: Sequence[Message],
    steps: Sequence[Step],
    serving: Serving,
    parameters: Mapping[str, str],
) -> Message:
    """Return the configuration of models that hand each other their tensors within the server."""
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": serving.max_batch,
        "input": inputs,
        "output": outputs,
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": step.model,
                    "model_version": VERSION,
                    "input_map": mapping(step.inputs),
                    "output_map": mapping(step.outputs),
                }
                for step in steps
            ]
        },
        **_common(parameters),
    }


def _common(parameters: Mapping[str, str]) -> Message:
    return {
        "version_policy": {"specific": {"versions": [VERSION]}},
        # An answer out of a cache is none of the model; and pictures of patients are not kept.
        "response_cache": {"enable": False},
        "parameters": mapping({key: {"string_value": value} for key, value in parameters.items()}),
    }


def _type(facts: TensorFacts) -> Word:
    return Word(_TYPES[facts.dtype])
