"""Print the names of the bindings as JSON: object -> its attributes, "trt" for the module.

python -m tests.export.tensorrt.bindings_names
"""

from __future__ import annotations

import inspect
import json
from types import ModuleType


def names_of(trt: ModuleType) -> dict[str, list[str]]:
    """Return the names of the module, of its classes and of classes inside them."""
    found = {"trt": dir(trt)}
    waiting = [(f"trt.{name}", value) for name, value in vars(trt).items() if inspect.isclass(value)]
    while waiting:
        path, value = waiting.pop()
        found[path] = dir(value)
        inside = [(f"{path}.{name}", each) for name, each in vars(value).items() if inspect.isclass(each)]
        waiting += [(name, each) for name, each in inside if not name.rpartition(".")[2].startswith("_")]
    return found


if __name__ == "__main__":
    import tensorrt_bindings

    print(json.dumps(names_of(tensorrt_bindings)))
