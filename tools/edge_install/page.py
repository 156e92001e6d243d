"""The measured part of docs/edge-install.md, from what ``python -m tools.edge_install`` saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.edge_install.environment import MEGABYTE

MARKS = ("<!-- measured: begin, written by tools/write_docs.py -->", "<!-- measured: end -->")


def measured(text: str, result: Mapping[str, Any]) -> str:
    """Return the page `text` with the part between the marks written anew.

    Parameters
    ----------
    text : str
        The page.
    result : mapping
        Content of benchmarks/results/edge_install.json.
    """
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    installs = result["installs"]
    where = result["machine"]
    parts = [
        f"{where['system']}, {where['cores']} shared cores, load average {where['load_average']:.1f}; times "
        f"are medians (range) of {result['rounds']} cold processes with the demo bundle; "
        "MB as `du -m` counts.",
        _table(
            [
                "Python",
                "distributions",
                "size",
                "`from promptray import Scorer`",
                "opening",
                "start to score",
            ],
            [[version, *_summary(install)] for version, install in installs.items()],
        ),
        "Everything it brings, and MB on the disk:",
        _table(["distribution", "licence", *installs], _distributions(installs)),
        "Every file over 5 MB:",
        _table(["Python", "file", "MB"], _files(installs)),
    ]
    return before + MARKS[0] + "\n" + "\n\n".join(parts) + "\n" + MARKS[1] + after


def _summary(install: Mapping[str, Any]) -> list[str]:
    def time(name: str) -> str:
        found = install["seconds"][name]
        return f"{found['median']:.2f} s ({found['min']:.2f} to {found['max']:.2f})"

    times = [time(name) for name in ("import", "open", "whole process")]
    return [str(len(install["distributions"])), f"{_megabytes(install['size'])} MB", *times]


def _distributions(installs: Mapping[str, Any]) -> list[list[str]]:
    sizes = {
        version: {each["name"]: each["size"] for each in install["distributions"]}
        for version, install in installs.items()
    }
    licences = {
        each["name"]: each["licence"] for install in installs.values() for each in install["distributions"]
    }
    return [
        [name, licence, *(_megabytes(found[name]) if name in found else "-" for found in sizes.values())]
        for name, licence in sorted(licences.items())
    ]


def _files(installs: Mapping[str, Any]) -> list[list[str]]:
    return [
        [version, f"`{path}`", _megabytes(size)]
        for version, install in installs.items()
        for path, size in sorted(install["files_over_5_mb"].items(), key=lambda item: -item[1])
    ]


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
