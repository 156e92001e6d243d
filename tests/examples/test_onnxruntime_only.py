"""The example runs a bundle from the format document alone, and refuses what it must."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import bank_id
from tests import bundle_factory as factory
from tests.onnx_bundle import write_runnable

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "01_onnxruntime_only" / "score_golden.py"


@pytest.fixture(scope="module")
def runnable(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_runnable(tmp_path_factory.mktemp("runnable") / "mini.bundle")


@pytest.fixture
def copy(runnable: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runnable.path, tmp_path / "mini.bundle"))


def score(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True, check=False)


def test_it_reproduces_the_golden_answers(runnable: Bundle) -> None:
    done = score(runnable.path)
    assert done.returncode == 0, done.stderr
    assert "16 pictures, 2 findings" in done.stdout


def test_it_reproduces_carzero(carzero_bundle: Path) -> None:
    done = score(carzero_bundle)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_reproduces_both_heads_of_asg(asg_both_bundle: Path) -> None:
    done = score(asg_both_bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" off")[0].strip() for line in lines[1:]] == [
        "prompts: logits", "prompts: maps", "tags: logits", "tags: maps",
    ]  # fmt: skip


def test_it_needs_neither_promptray_nor_torch() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported == {"hashlib", "json", "sys", "itertools", "pathlib", "typing", "numpy", "onnxruntime"}
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("value", [1e-3, np.nan])
@pytest.mark.parametrize("name", ["logits", "maps"])
def test_it_fails_where_an_answer_differs(copy: Path, name: str, value: float) -> None:
    tensors = safetensors.numpy.load((copy / "golden/golden.safetensors").read_bytes())
    stored = f"{name}.{factory.HEAD}"
    tensors[stored] = tensors[stored].copy()
    tensors[stored].flat[-1] += value
    factory.relist(copy, "golden/golden.safetensors", safetensors.numpy.save(tensors))
    done = score(copy)
    assert done.returncode == 1
    assert "FAILED" in done.stdout


def test_it_refuses_a_changed_graph(copy: Path) -> None:
    graph = copy / factory.HEAD_GRAPH
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    done = score(copy)
    assert done.returncode == 1
    assert f"{factory.HEAD_GRAPH} was changed" in done.stderr


def test_it_refuses_a_changed_manifest_and_set_of_files(copy: Path) -> None:
    (copy / "notes.txt").write_bytes(b"")
    assert "notes.txt" in score(copy).stderr
    (copy / "notes.txt").unlink()
    (copy / "bundle.json").write_bytes((copy / "bundle.json").read_bytes() + b"\n")
    assert "seal" in score(copy).stderr


def test_it_refuses_a_foreign_bank(tmp_path: Path) -> None:
    foreign = bank_id({"weights": "another"})
    bundle = write_runnable(tmp_path / "mini.bundle", bank_id=foreign)
    done = score(bundle.path)
    assert done.returncode == 1
    assert foreign in done.stderr
