"""The front door: what `import promptray` offers, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import promptray


def loaded_after(code: str, *names: str) -> list[str]:
    script = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from promptray import *", names)
    assert set(names) - {"__builtins__"} == set(promptray.__all__)
    assert {"Scorer", "Bundle", "Result", "Refused", "PromptRayError", "ImageError"} <= set(names)


def test_every_public_name_is_documented_and_listed() -> None:
    assert dir(promptray) == sorted(promptray.__all__)
    classes = [getattr(promptray, name) for name in promptray.__all__ if not name.startswith("__")]
    assert all(item.__doc__ for item in classes)


def test_all_errors_are_promptray_errors() -> None:
    errors = [name for name in promptray.__all__ if name.endswith("Error")]
    assert len(errors) == 6
    assert all(issubclass(getattr(promptray, name), promptray.PromptRayError) for name in errors)


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert promptray.__version__ == version("promptray")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Scorers'"):
        _ = promptray.Scorers  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert (
        loaded_after("import promptray", "numpy", "onnxruntime", "pydicom", "PIL", "msgspec", "click") == []
    )


def test_importing_the_scorer_loads_no_backend() -> None:
    names = ("onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "cuda", "promptray.runtime.backends.cuda")
    assert loaded_after("from promptray import GpuOptions, Scorer", *names) == []


def test_the_command_lines_help_loads_nothing_heavy() -> None:
    code = "from promptray.cli import run; import io, contextlib\n"
    code += "with contextlib.redirect_stdout(io.StringIO()): run(['--help'])"
    assert loaded_after(code, "numpy", "onnxruntime", "pydicom", "PIL", "tabulate", "tqdm", "torch") == []
