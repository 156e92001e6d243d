"""Options and fixtures that every test may use."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with the larger real data sets; tests that use it also run on the committed subset",
    )


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path | None:
    """The folder given as ``--data DIR``, or None: then only the committed subset is tested."""
    folder: Path | None = request.config.getoption("--data")
    if folder is None:
        return None
    if not folder.is_dir():
        raise pytest.UsageError(f"--data {folder}: no such folder")
    return folder.resolve()
