"""Options and fixtures that every test may use."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before torch and NumPy are imported, and for every process that a test starts: in networks this small their
# threads only wait for each other, and the workers of a run share the cores already.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with the larger real data sets; tests that use it also run on the committed subset",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin a run of several workers with the files of few tests, as ``make test`` hands them out.

    Those are the long tests: what comes last is what one worker does while the other has nothing left.
    """
    if hasattr(config, "workerinput"):
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: tests[item.path])


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path | None:
    """The folder given as ``--data DIR``, or None: then only the committed subset is tested."""
    folder: Path | None = request.config.getoption("--data")
    if folder is None:
        return None
    if not folder.is_dir():
        raise pytest.UsageError(f"--data {folder}: no such folder")
    return folder.resolve()


def _move_user_folders(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Point every variable that platformdirs reads, on Linux, macOS and Windows, below `home`."""
    home.mkdir(parents=True, exist_ok=True)
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA"):
        patch.setenv(name, str(home))
    for name in ("WIN_PD_OVERRIDE_LOCAL_APPDATA", "WIN_PD_OVERRIDE_APPDATA"):
        patch.setenv(name, str(home))
    patch.setenv("XDG_DATA_HOME", str(home / "data"))
    patch.setenv("XDG_CACHE_HOME", str(home / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _session_user_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Session-scoped fixtures never touch the user's own data and cache folders."""
    with pytest.MonkeyPatch.context() as patch:
        _move_user_folders(patch, tmp_path_factory.mktemp("session-home"))
        yield


@pytest.fixture(autouse=True)
def _user_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins with empty user folders, so that no site directory outlives its test."""
    _move_user_folders(monkeypatch, tmp_path.with_name(f"{tmp_path.name}-home"))


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder that all workers of one test run share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if hasattr(request.config, "workerinput") else base) / "shared"


@pytest.fixture(scope="session")
def carzero_checkpoint() -> Path:
    """Folder of the tiny CARZero checkpoint, its text model and the original's tensors."""
    from tests.carzero_tiny import FOLDER

    return FOLDER


@pytest.fixture
def carzero_recipe(tmp_path: Path) -> Callable[..., Path]:
    """``carzero_recipe(**changes)`` writes a recipe with 16 golden images and returns its path."""
    from tests.carzero_tiny import write_recipe

    return lambda **changes: write_recipe(tmp_path, **changes)


@pytest.fixture(scope="session")
def carzero_bundle(shared_dir: Path) -> Path:
    """The bundle of the tiny CARZero checkpoint; its findings are those of ``prompts.json``. Read only."""
    from tests.carzero_tiny import shared_bundle

    return shared_bundle(shared_dir, "carzero")


@pytest.fixture(scope="session")
def carzero_bundle_no_text(shared_dir: Path) -> Path:
    """The same bundle without its text graph. Read only."""
    from tests.carzero_tiny import shared_bundle

    return shared_bundle(shared_dir, "carzero-no-text", text_graph=False)


@pytest.fixture(scope="session")
def reference_bundle(shared_dir: Path) -> Path:
    """The bundle of the committed reference model, as ``make demo`` builds it. Read only."""
    from tests.carzero_tiny import build_once

    recipe = Path(__file__).parents[1] / "reference" / "recipe.yaml"
    return build_once(shared_dir, "reference", lambda folder: recipe)


@pytest.fixture(scope="session")
def open_clip_bundle(shared_dir: Path) -> Path:
    """The bundle of the tiny BiomedCLIP folder; its findings, alternatives, are the oracle's. Read only."""
    from tests.open_clip_tiny import shared_bundle

    return shared_bundle(shared_dir, "open-clip")


@pytest.fixture(scope="session")
def open_clip_pair_bundle(shared_dir: Path) -> Path:
    """The same model, each finding asked against its negative. Read only."""
    from tests.open_clip_tiny import pair_findings, shared_bundle

    return shared_bundle(shared_dir, "open-clip-pair", relation="pair", findings=pair_findings())


@pytest.fixture(scope="session")
def asg_bundle(shared_dir: Path) -> Path:
    """The bundle of the tiny ASG checkpoint's prompts. Read only."""
    from tests.asg_tiny import shared_bundle

    return shared_bundle(shared_dir, "asg")


@pytest.fixture(scope="session")
def asg_tags_bundle(shared_dir: Path) -> Path:
    """The bundle of the same checkpoint's tags, in the reverse of their published order. Read only."""
    from tests.asg_tiny import shared_bundle, tags_recipe

    return shared_bundle(shared_dir, "asg-tags", **tags_recipe())


@pytest.fixture(scope="session")
def asg_both_bundle(shared_dir: Path) -> Path:
    """The tiny ASG checkpoint as a bundle with both heads."""
    from tests.asg_tiny import both_recipe, shared_bundle

    return shared_bundle(shared_dir, "asg-both", **both_recipe())


@pytest.fixture(scope="session")
def open_clip_independent_bundle(shared_dir: Path) -> Path:
    """The same model with independent findings. Read only."""
    from tests.open_clip_tiny import shared_bundle

    return shared_bundle(shared_dir, "open-clip-independent", relation="independent")
