"""The command line: exit codes, one JSON document a line, and refusals that say what to do."""

from __future__ import annotations

import errno
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from promptray.cli import cli
from promptray.runtime.errors import CODES
from promptray.runtime.scorer import Scorer
from tests.cache_copy import copy_cache
from tests.carzero_tiny import PROMPTS
from tests.promptray.command_line import Call

COMMANDS = ("families", "build", "inspect", "verify", "prompts", "score", "doctor")
EVERY = cli.list_commands(click.Context(cli))
PROMPT_COMMANDS = ("list", "add", "remove", "restore", "import", "export")


@pytest.mark.parametrize(
    "command", [(name,) for name in EVERY] + [("prompts", "x", n) for n in PROMPT_COMMANDS]
)
def test_the_help_of_each_command_shows_an_example_on_a_line_of_its_own(
    call: Call, command: tuple[str, ...]
) -> None:
    answer = call(*command, "--help")
    assert answer.code == 0
    examples = [line for line in answer.out.splitlines() if line.startswith("    promptray ")]
    assert any(line.split()[1] == command[0] for line in examples), answer.out


def test_the_commands_are_listed_with_what_they_do(call: Call) -> None:
    answer = call("--help")
    assert [name for name in COMMANDS if f"  {name} " in answer.out] == list(COMMANDS)
    assert "Exit codes" in answer.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("score",),
        ("score", "x.bundle"),
        ("score", "x.bundle", "film.png", "--nonsense"),
        ("score", "x.bundle", "film.png", "--threads", "0"),
        ("score", "x.bundle", "film.png", "--frame", "0"),
        ("score", "x.bundle", "film.png", "--site", "s", "--no-site"),
        ("score", "x.bundle", "film.png", "--finding", "edema"),
        ("verify", "x.bundle", "--site", "s", "--no-site"),
        ("build", "recipe.yaml"),
        ("prompts", "x.bundle"),
        ("prompts", "x.bundle", "add"),
        ("prompts", "x.bundle", "add", "key", "prompt", "--code", "1", "2"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_right(call: Call, arguments: tuple[str, ...]) -> None:
    answer = call(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "Usage: promptray" in answer.err or "'--code' requires 3 arguments" in answer.err


@pytest.mark.parametrize("command", [("inspect",), ("verify",), ("score", "film.png"), ("prompts", "list")])
def test_a_bundle_that_is_not_there_is_refused(call: Call, tmp_path: Path, command: tuple[str, ...]) -> None:
    answer = call(command[0], tmp_path / "absent.bundle", *command[1:])
    assert (answer.code, answer.out) == (1, "")
    assert "[bundle.not-found]" in answer.err
    assert "cure" in answer.err


@pytest.mark.parametrize("command", [("inspect",), ("verify",), ("score", "film.png"), ("prompts", "list")])
def test_with_json_a_refusal_is_one_document(call: Call, tmp_path: Path, command: tuple[str, ...]) -> None:
    answer = call(command[0], tmp_path / "absent.bundle", *command[1:], "--json")
    assert answer.code == 1
    (document,) = answer.documents
    assert document["schema"] == "promptray-refusal"
    assert document["error"]["code"] == "bundle.not-found"


@pytest.mark.parametrize("command", [("inspect",), ("verify",), ("score", "film.png"), ("prompts", "list")])
def test_an_internal_fault_is_3_and_its_message_stays_inside(
    call: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("patient Jane Doe")

    monkeypatch.setattr("promptray.runtime.bundle.reader.Bundle.open", broken)
    for extra, codes in (((), []), (("--json",), ["internal"])):
        answer = call(command[0], bundle, *command[1:], *extra)
        assert answer.code == 3
        assert [document["error"]["code"] for document in answer.documents] == codes
        assert "Internal fault: RuntimeError" in answer.err
        assert "promptray doctor" in answer.err
        assert "Jane" not in answer.err + answer.out


def test_the_debug_variable_shows_the_traceback(
    call: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTRAY_DEBUG", "1")
    monkeypatch.setattr("promptray.runtime.bundle.reader.Bundle.open", None)
    assert "Traceback" in call("inspect", bundle).err


def test_an_interrupted_command_is_130(call: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("promptray.runtime.bundle.reader.Bundle.open", interrupted)
    assert call("inspect", bundle).code == 130
    (document,) = call("inspect", bundle, "--json").documents
    assert document["error"]["code"] == "command.interrupted"


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("score", "chest.bundle"), ("score", "a", "b", "--frame", 0), ("inspect",)]
)
def test_wrong_usage_is_a_document_too(call: Call, arguments: tuple[object, ...]) -> None:
    answer = call(*arguments, "--json")
    assert answer.code == 2
    (document,) = answer.documents
    assert (document["schema"], document["error"]["code"]) == ("promptray-refusal", "command.usage")
    assert document["error"]["message"] in answer.err


def test_a_flag_that_is_given_a_value_is_a_document_too(call: Call) -> None:
    answer = call("inspect", "chest.bundle", "--json=1")
    assert answer.code == 2
    (document,) = answer.documents
    assert document["error"]["code"] == "command.usage"


def test_a_file_of_the_name_of_the_flag_asks_for_no_document(call: Call) -> None:
    answer = call("inspect", "--", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert "[bundle.not-found]" in answer.err


def test_what_the_system_refuses_is_a_document_too(
    call: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/home/Jane Doe")

    monkeypatch.setattr("promptray.runtime.bundle.reader.Bundle.open", full)
    answer = call("inspect", bundle, "--json")
    assert answer.code == 1
    (document,) = answer.documents
    assert document["error"]["code"] == "command.system"
    assert "No space left on device" in document["error"]["message"]
    assert "Jane" not in answer.out + answer.err


def test_families_are_listed_with_layout_and_options(call: Call) -> None:
    (document,) = call("families", "--json").documents
    assert [item["name"] for item in document] == [
        "carzero",
        "open_clip",
        "asg",
        "convnext",
        "squeezenet",
        "chexzero",
        "kad",
    ]
    assert document[1]["aliases"] == ["biomedclip"]
    assert all("image_heads" in item["options"] for item in document[:3])
    assert {"classes", "preprocessing"} <= document[3]["options"].keys()
    assert "carzero" in call("families").out


def test_without_its_extra_build_says_what_to_install(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )
    answer = call("build", tmp_path / "recipe.yaml", "-o", tmp_path / "new.bundle")
    assert answer.code == 1
    assert "[extra.missing]" in answer.err
    assert "torch" in answer.err
    assert "pip install 'promptray[export]'" in answer.err


def test_build_refuses_a_broken_recipe_with_its_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("recipe_version: 1\nname: x\ncolour: red\n")
    answer = call("build", tmp_path / "recipe.yaml", "-o", tmp_path / "new.bundle")
    assert (answer.code, answer.out) == (1, "")
    assert "recipe.yaml, line 3, key colour" in answer.err


def test_build_makes_a_bundle_and_shows_its_progress(
    call: Call, bundle: Path, carzero_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    cache = copy_cache(bundle.parent / "cache", tmp_path)
    answer = call("build", carzero_recipe(), "-o", tmp_path / "new.bundle", "--cache", cache, "--json")
    assert answer.code == 0
    (document,) = answer.documents
    assert document["findings"] == len(PROMPTS)
    assert "check: comparing" in answer.err
    assert f"Finished stages are kept in {cache}: " in answer.err
    assert call("verify", tmp_path / "new.bundle").code == 0


def test_inspect_shows_what_a_user_must_know(call: Call, bundle: Path) -> None:
    answer = call("inspect", bundle)
    assert answer.code == 0
    for text in (
        "random weights",
        "tests",
        "CARZero_best_model.ckpt",
        "2e-05",
        "pleural",
        "no change of findings",
        "attention heads (no tensor tells)",
    ):
        assert text.lower() in answer.out.lower()
    (document,) = call("inspect", bundle, "--json", "--no-site").documents
    assert document["site"] is None
    assert document["parity"]["images"] == 16
    assert [item["key"] for item in document["manifest"]["findings"]] == list(PROMPTS)


def test_verify_says_what_was_checked(call: Call, bundle: Path) -> None:
    answer = call("verify", bundle)
    assert answer.code == 0
    assert answer.out.count("OK  ") == 5
    (document,) = call("verify", bundle, "--json").documents
    assert document["verified"] is True
    (head,) = document["golden"]["heads"]
    assert head["score_error"] <= head["score_tolerance"]


@pytest.mark.parametrize(
    "name", ["graphs/head/findings/fp32-20.onnx", "golden/images/003.png", "bundle.json", "parity.json"]
)
def test_verify_refuses_one_flipped_bit_with_file_and_hashes(
    call: Call, bundle: Path, tmp_path: Path, name: str
) -> None:
    changed = Path(shutil.copytree(bundle, tmp_path / "changed.bundle"))
    content = bytearray((changed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (changed / name).write_bytes(content)
    answer = call("verify", changed)
    assert (answer.code, answer.out) == (1, "")
    assert name in answer.err
    assert answer.err.count("sha256") >= 2
    assert "cure" in answer.err


def test_score_prints_a_table(call: Call, bundle: Path, image: Path) -> None:
    answer = call("score", bundle, image, "--modality", "DX")
    assert answer.code == 0
    assert image.name in answer.out
    assert all(key in answer.out for key in PROMPTS)


def test_names_with_brackets_are_shown_as_they_are(
    call: Call, bundle: Path, image: Path, site: Path, tmp_path: Path
) -> None:
    name, key = "[bold]film[x].png", "edema [red]"
    shutil.copy(image, tmp_path / name)
    call("prompts", bundle, "add", key, "There is edema.", "--site", site)
    answer = call("score", bundle, tmp_path / name, "--modality", "DX", "--site", site)
    assert answer.code == 0
    assert name in answer.out
    assert key in answer.out


def test_score_with_json_prints_one_document_for_each_image(
    call: Call, bundle: Path, carzero_checkpoint: Path
) -> None:
    images = sorted((carzero_checkpoint / "images").glob("*.png"))
    answer = call("score", bundle, *images, "--modality", "DX", "--json")
    assert answer.code == 0
    assert answer.images == [path.name for path in images]
    with Scorer.open(bundle, site=None) as scorer:
        expected = [result.scores for result in scorer.score_many(images, modality="DX")]
    found = [{item["key"]: item["score"]["logit"] for item in doc["findings"]} for doc in answer.documents]
    for scores, document in zip(expected, found, strict=True):
        assert document == pytest.approx({key: score.logit for key, score in scores.items()}, abs=2e-5)
    folder = call("score", bundle, carzero_checkpoint / "images", "--modality", "DX", "--json")
    assert folder.images == [path.name for path in images]


def test_a_refused_image_does_not_stop_the_others(
    call: Call, bundle: Path, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:500])
    (tmp_path / "note.txt").write_text("no image")
    files = (tmp_path / "absent.dcm", image, tmp_path / "broken.png", tmp_path / "note.txt", image)
    answer = call("score", bundle, *files, "--modality", "DX", "--json")
    assert answer.code == 1
    assert answer.images == [path.name for path in files]
    codes = [document.get("error", {}).get("code") for document in answer.documents]
    assert (codes[1], codes[4]) == (None, None)
    assert [code for code in codes if code] == ["image.not-found", "image.broken", "image.format"]
    assert "3 of 5 images were refused" in answer.err
    assert set(codes) - {None} <= set(CODES)

    table = call("score", bundle, *files, "--modality", "DX")
    assert table.code == 1
    assert image.name in table.out
    assert "broken.png" not in table.out
    assert "broken.png: no score" in table.err


def test_an_image_without_modality_is_refused(call: Call, bundle: Path, image: Path) -> None:
    answer = call("score", bundle, image)
    assert answer.code == 1
    assert "[image.modality-undeclared]" in answer.err


def test_an_empty_folder_is_wrong_usage(call: Call, bundle: Path, tmp_path: Path) -> None:
    answer = call("score", bundle, tmp_path)
    assert answer.code == 2
    assert "holds no file" in answer.err


def test_overlays_have_the_images_size_and_names_of_their_own(
    call: Call, bundle: Path, image: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "other" / image.name
    twin.parent.mkdir()
    shutil.copy(image, twin)
    maps = tmp_path / "maps"
    arguments = (
        "--modality",
        "DX",
        "--heatmaps",
        maps,
        "--finding",
        "effusion",
        "--finding",
        "two sentences",
    )
    assert call("score", bundle, image, twin, *arguments).code == 0
    names = sorted(path.name for path in maps.iterdir())
    assert names == [
        "tall.png.effusion-2.png",
        "tall.png.effusion.png",
        "tall.png.two_sentences-2.png",
        "tall.png.two_sentences.png",
    ]
    with Image.open(image) as source, Image.open(maps / names[0]) as overlay:
        assert overlay.size == source.size


def test_an_unknown_finding_is_refused_before_the_first_image(
    call: Call, bundle: Path, image: Path, tmp_path: Path
) -> None:
    arguments = ("--modality", "DX", "--heatmaps", tmp_path / "maps", "--finding", "measles")
    answer = call("score", bundle, image, *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert "[prompt.unknown]" in answer.err
    assert not (tmp_path / "maps").exists()


def test_an_unknown_backend_is_refused(call: Call, bundle: Path, image: Path) -> None:
    answer = call("score", bundle, image, "--backend", "abacus")
    assert answer.code == 1
    assert "[backend.unavailable]" in answer.err
