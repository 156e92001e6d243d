"""The runtime works where torch and the export libraries cannot be installed."""

import subprocess
import sys
import textwrap

HEAVY = (
    "torch torchvision timm transformers open_clip onnx onnxscript sklearn scipy matplotlib cv2 yaml "
    "promptray.export promptray.calibrate"
).split()

# Runs in a fresh interpreter, where this test's own imports cannot hide anything.
PROBE = """
    import importlib, pkgutil, sys

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name in HEAVY or any(name.startswith(heavy + ".") for heavy in HEAVY):
                raise ModuleNotFoundError(f"{name} is blocked: it is not in the edge install", name=name)

    sys.meta_path.insert(0, Block())
"""


def probe(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter that cannot import the heavy libraries."""
    script = f"HEAVY = {HEAVY!r}\n{textwrap.dedent(PROBE)}\n{textwrap.dedent(code)}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def test_every_runtime_module_imports_without_the_heavy_libraries():
    done = probe("""
        import promptray.runtime as runtime

        names = [info.name for info in pkgutil.walk_packages(runtime.__path__, "promptray.runtime.")]
        for name in names:
            importlib.import_module(name)
        loaded = sorted(name for name in sys.modules if name in HEAVY)
        assert not loaded, loaded
        print(len(names))
    """)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_the_front_door_and_the_command_line_open_without_the_heavy_libraries():
    done = probe("""
        import promptray
        from promptray.cli import main

        sys.argv = ["promptray", "--help"]
        main()
    """)
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout


def test_importing_the_front_door_loads_no_heavy_library():
    """Not even where they are installed, as they are here."""
    code = f"import sys, promptray, promptray.runtime; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_probe_can_fail():
    done = probe("import torch")
    assert done.returncode != 0
    assert "torch is blocked" in done.stderr
