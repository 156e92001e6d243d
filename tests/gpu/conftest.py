"""`pytest -m gpu` without a GPU, or without a library for it, has shown nothing: it fails."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where every test that needs a GPU was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("markexpr") == "gpu" and reporter and not reporter.stats.get("passed"):
        reporter.write_line("no test ran on a GPU", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
