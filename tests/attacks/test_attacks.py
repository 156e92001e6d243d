"""Every attack gets the refusal that ``expected.csv`` states, at the public doors and on the command line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptray.cli import run
from promptray.runtime.errors import CODES, PromptRayError
from promptray.runtime.scorer import Scorer
from promptray.runtime.verify import verify
from tests.attacks import bundles, prompts
from tests.attacks.catalogue import FOLDER, IMAGES, Refusal, expected, made_images
from tests.fuzz.small_bundle import write_small

RECIPES = Path(__file__).parents[1] / "data" / "recipes"
PLANT = "PLANTED"
#: What one call may take at its peak, bytes traced by Python; the file itself is read whole.
MEMORY = 320 * 2**20
#: What a whole process may take, MB: the interpreter, ONNX Runtime and one picture at a time.
PROCESS_MB = 1000

IMAGE_ATTACKS, BUNDLE_ATTACKS, PROMPT_ATTACKS = (expected(kind) for kind in ("image", "bundle", "prompt"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small(folder)
    return folder / "small.bundle"


@pytest.fixture(scope="module")
def scorer(small: Path) -> Iterator[Scorer]:
    with Scorer.open(small, site=None, threads=1) as opened:
        yield opened


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def require(error: PromptRayError, refusal: Refusal) -> None:
    assert error.code == refusal.code, error
    assert error.message.startswith(refusal.message)
    assert PLANT not in f"{error}{error.to_json()}{error.__cause__!r}{error.__context__!r}"
    assert len(str(error)) < 1000


# The table


def test_the_table_is_whole() -> None:
    assert IMAGE_ATTACKS.keys() == {path.name for path in IMAGES.iterdir()}
    assert BUNDLE_ATTACKS.keys() == bundles.ATTACKS.keys()
    assert PROMPT_ATTACKS.keys() == prompts.TEXTS.keys() | prompts.EXPORTS.keys()
    for refusal in (*IMAGE_ATTACKS.values(), *BUNDLE_ATTACKS.values(), *PROMPT_ATTACKS.values()):
        assert refusal.code in CODES
        assert refusal.message
    with (FOLDER / "expected.csv").open(encoding="utf-8", newline="") as table:
        rows = [(row["kind"], row["attack"]) for row in csv.DictReader(table)]
    assert len(rows) == len(set(rows)) == len(IMAGE_ATTACKS) + len(BUNDLE_ATTACKS) + len(PROMPT_ATTACKS)


def test_the_images_are_those_that_the_code_makes() -> None:
    """Byte by byte, but for what another version of zlib may compress otherwise."""
    made = made_images()
    assert made.keys() <= IMAGE_ATTACKS.keys()
    for name, content in made.items():
        committed = (IMAGES / name).read_bytes()
        deflated = name.endswith(".png") or name.startswith("deflated-")
        if deflated and zlib.ZLIB_RUNTIME_VERSION != "1.2.13":
            assert committed[:24] == content[:24], name
        else:
            assert committed == content, name


# Images


@pytest.mark.parametrize("name", IMAGE_ATTACKS)
def test_an_image(scorer: Scorer, name: str) -> None:
    with pytest.raises(PromptRayError) as caught:
        scorer.score(IMAGES / name, modality="CR")
    require(caught.value, IMAGE_ATTACKS[name])
    assert caught.value.artefact == name


@pytest.mark.parametrize(
    "name",
    [name for name in IMAGE_ATTACKS if any(word in name for word in ("bomb", "size", "deflated", "items"))],
)
def test_the_memory_of_a_bomb(scorer: Scorer, name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PromptRayError) as caught:
            scorer.prepare(IMAGES / name, modality="CR")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    if caught.value.code == "image.too-large":
        assert any(digit.isdigit() for digit in str(caught.value.expected)), "the limit is named"


#: Runs its arguments, then writes exit status and peak memory. A process inherits the peak of the one that
#: forks it, and a test runner's is large.
MEASURED = """
import os, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, file=file)
"""


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the memory of a process is not told here")
def test_all_images_on_the_command_line(small: Path, tmp_path: Path) -> None:
    """One process for all of them: no traceback, no score, nothing planted, and bounded memory."""
    command = [sys.executable, "-m", "promptray", "score", small, IMAGES, "--modality", "CR", "--json"]
    out, err, measured = (tmp_path / name for name in ("out", "err", "measured"))
    wrapped = [sys.executable, "-c", MEASURED, str(measured), *map(str, command), "--no-site"]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        subprocess.run(wrapped, stdout=stdout, stderr=stderr, check=True)
    code, peak = map(int, measured.read_text().split())
    documents = [json.loads(line) for line in out.read_text().splitlines()]
    answers = {document["file"]: document["error"] for document in documents}
    assert code == 1
    assert answers.keys() == IMAGE_ATTACKS.keys()
    for name, refusal in IMAGE_ATTACKS.items():
        assert answers[name]["code"] == refusal.code, name
        assert answers[name]["message"].startswith(refusal.message), name
    for text in (out.read_text(), err.read_text()):
        assert not any(word in text for word in (PLANT, "Traceback", "Internal fault", "Error:"))
    unit = 1 if sys.platform == "darwin" else 1024
    assert peak * unit < PROCESS_MB * 2**20


# Bundles


def verify_and_use(bundle: Path) -> None:
    """Verify a bundle, and use what `verify` does not: the text side."""
    verify(bundle, site=None, threads=1)
    with Scorer.open(bundle, site=None, threads=1) as scorer:
        scorer.prompts.add("rib fracture", "There is a rib fracture.")


@pytest.mark.parametrize("name", BUNDLE_ATTACKS)
def test_a_bundle(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    bundle, refusal = tmp_path / "attacked.bundle", BUNDLE_ATTACKS[name]
    shutil.copytree(small, bundle)
    bundles.ATTACKS[name](bundle)
    assert bundles.sealed(bundle)
    with pytest.raises(PromptRayError) as caught:
        verify_and_use(bundle)
    require(caught.value, refusal)
    codes = [run(["verify", str(bundle), "--json"]), run(["prompts", str(bundle), "add", "rib fracture"])]
    captured = capsys.readouterr()
    assert 1 in codes
    assert not {*codes} - {0, 1}
    assert f"[{refusal.code}]" in captured.err
    for line in captured.out.splitlines():
        if line.startswith("{"):
            json.loads(line)
    assert "Traceback" not in captured.err + captured.out
    assert "EP Error" not in captured.out


# Prompts


@pytest.mark.parametrize("name", prompts.TEXTS)
def test_a_prompt(scorer: Scorer, name: str) -> None:
    before = [finding.key for finding in scorer.prompts]
    with pytest.raises(PromptRayError) as caught:
        scorer.prompts.add(*prompts.TEXTS[name])
    require(caught.value, PROMPT_ATTACKS[name])
    assert [finding.key for finding in scorer.prompts] == before


@pytest.fixture(scope="module")
def export(scorer: Scorer) -> bytes:
    scorer.prompts.add("rib fracture", "There is a rib fracture.")
    try:
        return scorer.prompts.export(["rib fracture"])
    finally:
        scorer.prompts.remove("rib fracture")


@pytest.mark.parametrize("name", prompts.EXPORTS)
def test_a_file_of_prompts(small: Path, site: Path, export: bytes, tmp_path: Path, name: str,
                           capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    content = prompts.EXPORTS[name](export)
    assert content != export
    with Scorer.open(small, site=site, threads=1) as scorer:
        before = [finding.key for finding in scorer.prompts]
        with pytest.raises(PromptRayError) as caught:
            scorer.prompts.import_(content)
        require(caught.value, PROMPT_ATTACKS[name])
        assert [finding.key for finding in scorer.prompts] == before
    (tmp_path / "prompts.safetensors").write_bytes(content)
    arguments = ["prompts", str(small), "import", str(tmp_path / "prompts.safetensors"), "--site", str(site)]
    assert run(arguments) == 1
    captured = capsys.readouterr()
    assert f"[{PROMPT_ATTACKS[name].code}]" in captured.err
    assert "Traceback" not in captured.err


# Recipes


@pytest.mark.parametrize("name", json.loads((RECIPES / "expected.json").read_text(encoding="utf-8")))
def test_a_recipe_on_the_command_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What each recipe is told is in ``expected.json`` there; here, that a build leaves nothing behind."""
    code = run(["build", str(RECIPES / name), "-o", str(tmp_path / "made.bundle")])
    captured = capsys.readouterr()
    assert code == 1
    assert "[recipe.invalid]" in captured.err
    assert "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())


def test_padding_is_no_bomb(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets for thousands of rows make much of few bytes; the limit comes before the memory."""
    monkeypatch.setattr("promptray.runtime.limits.MAX_BANK_TENSOR_BYTES", 100)
    with pytest.raises(PromptRayError) as caught:
        Scorer.open(small, site=None, threads=1)
    require(caught.value, Refusal("bundle.format", "a tensor of the prompt bank, padded to its row bucket"))
    assert "at most 100 bytes" in str(caught.value)
