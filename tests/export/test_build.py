"""A build writes a gated bundle or nothing, and does again only what changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import promptray.export.build as build_module
from promptray import BuildError, BundleError, PromptError, PromptRayError, Scorer
from promptray.export.build import build
from promptray.export.draft import _golden_names
from promptray.export.golden_inputs import GoldenInputs
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle import Bundle
from tests import open_clip_tiny
from tests.cache_copy import copy_cache
from tests.carzero_tiny import PROMPTS

Recipe = Callable[..., Path]


@pytest.fixture
def cache(carzero_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the cache in which the shared bundle's stages are finished."""
    return copy_cache(carzero_bundle.parent / "cache", tmp_path)


def files_of(bundle: Path) -> dict[str, str]:
    """Name and hash of every file but the manifest, which holds the date, and its seal."""
    return {
        path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(bundle.rglob("*"))
        if path.is_file() and path.name not in ("bundle.json", "bundle.sha256")
    }


def test_the_bundle_is_complete_and_verifies(carzero_bundle: Path) -> None:
    bundle = Bundle.open(carzero_bundle)
    bundle.verify_files()
    manifest = bundle.manifest
    assert [graph.role for graph in manifest.graphs] == ["image", "head", "text"]
    assert len(manifest.golden.images) == 16
    assert manifest.provenance.checkpoint.name == "CARZero_best_model.ckpt"
    assert manifest.provenance.recipe.name == "recipe.yaml"
    assert {"torch", "onnxruntime", "promptray"} <= set(manifest.provenance.libraries)
    assert manifest.golden.licence == "CC0"


def test_no_file_of_the_bundle_names_a_folder_of_this_machine(carzero_bundle: Path) -> None:
    folders = {str(carzero_bundle.parent), str(Path(__file__).parents[2]), str(Path.home())}
    contents = {path: path.read_bytes() for path in carzero_bundle.rglob("*") if path.is_file()}
    found = [
        (path.name, folder) for path, raw in contents.items() for folder in folders if folder.encode() in raw
    ]
    assert found == []


def test_the_report_holds_every_comparison_and_its_bound(carzero_bundle: Path) -> None:
    (parity,) = json.loads((carzero_bundle / "parity.json").read_text())["heads"]
    assert parity["decisions"] == 16 * len(PROMPTS)
    assert parity["against_original"]["score_error"] <= parity["score_tolerance"] == 2e-5
    assert parity["against_original"]["map_error"] <= parity["map_tolerance"] == 1e-6
    assert len(parity["noise"]) >= 5
    assert all(item["score_error"] <= parity["score_tolerance"] for item in parity["noise"])


def test_golden_pictures_keep_the_order_of_their_tensors_beyond_a_thousand() -> None:
    inputs = GoldenInputs(tuple(Path(f"{number:04}.PNG") for number in range(1002)), "CC0")
    names = _golden_names(inputs)
    assert names[:2] == ["golden/images/000.png", "golden/images/001.png"]
    assert names[101:103] == ["golden/images/101.png", "golden/images/102.png"]
    assert names[1000:] == ["golden/images/1000.png", "golden/images/1001.png"]


AGAIN = """
import sys
from pathlib import Path
from promptray.export.build import build
build(Path(sys.argv[1]), Path(sys.argv[2]), cache=Path(sys.argv[3]))
print(sorted({"torch", "transformers", "timm", "onnxscript"} & set(sys.modules)))
"""

ANEW = """
import sys
from pathlib import Path
from promptray.export.build import build
build(Path(sys.argv[1]), Path(sys.argv[2]), cache=Path(sys.argv[3]))
"""


def test_a_second_build_gives_the_same_files_without_torch(
    carzero_bundle: Path, carzero_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    output = tmp_path / "again.bundle"
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(carzero_recipe()), str(output), str(cache)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert files_of(output) == files_of(carzero_bundle)


def test_two_builds_of_one_recipe_differ_in_their_date_alone(
    carzero_bundle: Path, carzero_recipe: Recipe, tmp_path: Path
) -> None:
    """Another process, nothing cached, and every set and hash of Python in another order."""
    output = tmp_path / "anew.bundle"
    subprocess.run(
        [sys.executable, "-c", ANEW, str(carzero_recipe()), str(output), str(tmp_path / "cache")],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
    )
    assert files_of(output) == files_of(carzero_bundle)
    manifests = [json.loads((bundle / "bundle.json").read_bytes()) for bundle in (output, carzero_bundle)]
    for manifest in manifests:
        assert manifest["provenance"].pop("created")
    assert json.dumps(manifests[0]) == json.dumps(manifests[1])


@pytest.fixture
def stages_run(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Which stages came from the cache."""
    found: dict[str, bool] = {}
    original = StageCache.run

    def run(self: StageCache, stage: str, key: str, produce: Any) -> tuple[Path, bool]:
        folder, cached = original(self, stage, key, produce)
        found[stage] = cached
        return folder, cached

    monkeypatch.setattr(StageCache, "run", run)
    return found


def test_a_changed_prompt_exports_nothing_again(
    carzero_recipe: Recipe, cache: Path, tmp_path: Path, stages_run: dict[str, bool]
) -> None:
    recipe = carzero_recipe(findings=[{"key": "edema", "prompt": "There is edema."}], name="changed")
    bundle = build(recipe, tmp_path / "changed.bundle", cache=cache)
    assert stages_run == {"export": True, "prompts": False, "golden": False}
    assert [finding.display for finding in bundle.manifest.findings] == ["edema"]


def test_progress_goes_from_nothing_to_done(carzero_recipe: Recipe, cache: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    build(
        carzero_recipe(),
        tmp_path / "new.bundle",
        cache=cache,
        progress=lambda stage, message, fraction: seen.append((stage, fraction)),
    )
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert seen[0][0] == "load"
    assert {"load", "prompts", "golden", "check", "bundle"} <= {stage for stage, _ in seen}


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[Path]:
    """A folder for the output that must be empty after the test."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def falsify(
    cache: Path, carzero_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, float], None]:
    """``falsify(what, by)`` changes one of the original's answers before the gate sees it."""
    bundle = Bundle.open(carzero_bundle)
    tensors = safetensors.numpy.load(bundle.read(bundle.manifest.golden.tensors))

    def change(what: str, by: float) -> None:
        for stage in cache.glob("golden-*"):
            shutil.rmtree(stage)
        tensors[f"{what}.findings"][3, 1] += np.float32(by)
        content = safetensors.numpy.save(tensors)
        monkeypatch.setattr(
            build_module, "_golden", lambda *stage: (stage[3] / "golden.safetensors").write_bytes(content)
        )

    return change


@pytest.mark.parametrize("what", ["logits", "maps"])
def test_a_graph_that_disagrees_with_the_original_is_not_written(
    carzero_recipe: Recipe, cache: Path, nothing_left: Path, falsify: Callable[[str, float], None], what: str
) -> None:
    falsify(what, 1e-3)
    with pytest.raises(BuildError, match="torch fp32") as refusal:
        build(carzero_recipe(), nothing_left / "new.bundle", cache=cache)
    assert refusal.value.code == "gate.failed"
    assert "2e-05" in str(refusal.value.expected)
    assert "0.001" in str(refusal.value.found)
    assert "head findings" in str(refusal.value.artefact)


@pytest.mark.parametrize("what", ["logits", "maps"])
def test_an_original_that_gives_no_number_is_not_written(
    carzero_recipe: Recipe, cache: Path, nothing_left: Path, falsify: Callable[[str, float], None], what: str
) -> None:
    falsify(what, np.nan)
    with pytest.raises(PromptRayError, match="no number"):
        build(carzero_recipe(), nothing_left / "new.bundle", cache=cache)


def test_an_interrupted_build_leaves_nothing_behind(
    carzero_recipe: Recipe, cache: Path, nothing_left: Path
) -> None:
    def interrupt_at(stage: str) -> Callable[[str, str, float], None]:
        def progress(now: str, message: str, fraction: float) -> None:
            if now == stage:
                raise KeyboardInterrupt

        return progress

    for stage in ("load", "prompts", "golden", "check", "bundle"):
        with pytest.raises(KeyboardInterrupt):
            build(carzero_recipe(), nothing_left / "new.bundle", cache=cache, progress=interrupt_at(stage))


def test_an_existing_output_is_refused_before_any_work(carzero_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(BundleError) as refusal:
            build(carzero_recipe(), tmp_path / name, cache=tmp_path / "cache")
        assert refusal.value.code == "bundle.exists"
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "cache").exists()


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    carzero_recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(BundleError) as refusal:
        build(carzero_recipe(), tmp_path / "absent" / "new.bundle", cache=tmp_path / "cache")
    assert refusal.value.code == "bundle.unwritable"
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_takes_nothing_is_refused_before_any_work(
    carzero_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc, which grants the right to write."""

    def mkdtemp(**options: object) -> str:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr("promptray.export.build.tempfile.mkdtemp", mkdtemp)
    with pytest.raises(BundleError, match="takes no new folder") as refusal:
        build(carzero_recipe(), tmp_path / "new.bundle", cache=tmp_path / "cache")
    assert refusal.value.code == "bundle.unwritable"
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
def test_an_output_in_proc_is_refused_before_any_work(carzero_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="takes no new folder"):
        build(carzero_recipe(), Path("/proc/q"), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["x" * 300, "x" * 245, "/".join(["folder"] * 1000)])
def test_an_output_too_long_for_the_system_is_refused_before_any_work(
    carzero_recipe: Recipe, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BundleError) as refusal:
        build(carzero_recipe(), tmp_path / name, cache=tmp_path / "cache")
    assert refusal.value.code == "bundle.unwritable"
    assert not (tmp_path / "cache").exists()


def test_alternatives_that_are_one_to_the_model_are_refused(
    open_clip_bundle: Path, nothing_left: Path, tmp_path: Path
) -> None:
    cache = copy_cache(open_clip_bundle.parent / "cache", tmp_path)
    alike = [{"key": "a", "prompt": "x"}, {"key": "b", "prompt": "y"}, {"key": "c", "prompt": " x "}]
    recipe = open_clip_tiny.write_recipe(tmp_path, findings=alike)
    line = recipe.read_text().splitlines().index("findings:") + 1
    for _ in range(2):  # the second time the prompts are in the cache
        with pytest.raises(BuildError, match="'a' and 'c'") as refusal:
            build(recipe, nothing_left / "new.bundle", cache=cache)
        assert refusal.value.code == "recipe.invalid"
        assert refusal.value.artefact == f"recipe.yaml, line {line}, key findings"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing checkpoint": ({"checkpoint": "absent.ckpt"}, "checkpoint.not-found", "key checkpoint"),
    "checkpoint too long for the system": (
        {"checkpoint": "x" * 5000},
        "checkpoint.not-found",
        "key checkpoint",
    ),
    "unknown family": ({"family": "medclip"}, "family.unknown", "carzero"),
    "unknown option": ({"model_options": {"heads": 4}}, "recipe.invalid", "model_options.heads"),
    "too few golden images": (
        {"golden": {"images": "recipe.yaml", "licence": "CC0"}},
        "recipe.invalid",
        "at least 16",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_recipe_that_cannot_work_is_refused_before_any_work(
    carzero_recipe: Recipe, tmp_path: Path, nothing_left: Path, case: str
) -> None:
    changes, code, named = REFUSED[case]
    with pytest.raises(BuildError) as refusal:
        build(carzero_recipe(**changes), nothing_left / "new.bundle", cache=tmp_path / "cache")
    assert refusal.value.code == code
    assert named in str(refusal.value)
    assert not (tmp_path / "cache").exists()


LATE: dict[str, tuple[dict[str, Any], str, str]] = {
    "no text model": ({"text_model": None}, "text-model.invalid", "text_model"),
    "foreign text model": ({"text_model": "golden"}, "text-model.invalid", "config.json"),
    "a prompt of which nothing is left": (
        {"findings": [{"key": "edema", "prompt": "Edema"}]},
        "prompt.empty",
        "edema",
    ),
}


@pytest.mark.parametrize("case", LATE)
def test_what_only_the_model_can_tell_is_refused_too(
    carzero_recipe: Recipe, cache: Path, nothing_left: Path, case: str
) -> None:
    changes, code, named = LATE[case]
    with pytest.raises(PromptRayError) as refusal:
        build(carzero_recipe(**changes), nothing_left / "new.bundle", cache=cache)
    assert refusal.value.code == code
    assert named in str(refusal.value)


def test_a_golden_image_that_the_door_refuses_is_named(
    carzero_recipe: Recipe, cache: Path, nothing_left: Path
) -> None:
    recipe = carzero_recipe()
    shutil.copy(Path(os.fspath(recipe)), recipe.parent / "golden" / "05.png")
    with pytest.raises(PromptRayError, match=r"05\.png") as refusal:
        build(recipe, nothing_left / "new.bundle", cache=cache)
    assert refusal.value.code == "image.format"


def test_without_text_graph_prompts_are_imported_but_not_added(
    carzero_bundle: Path, carzero_bundle_no_text: Path
) -> None:
    assert not any("text" in name for name in files_of(carzero_bundle_no_text))
    with Scorer.open(carzero_bundle, site=None) as full:
        full.prompts.add("rib fracture", "There is rib fracture.")
        exported = full.prompts.export(["rib fracture"])
    with Scorer.open(carzero_bundle_no_text, site=None) as scorer:
        with pytest.raises(PromptError) as refusal:
            scorer.prompts.add("pneumonia", "There is pneumonia.")
        assert refusal.value.code == "prompt.no-text-graph"
        assert refusal.value.cure
        assert [finding.key for finding in scorer.prompts.import_(exported)] == ["rib fracture"]
        assert "rib fracture" in scorer.prompts
