"""Print the licence of everything the edge install brings, and fail on one that is not permissive.

The list is resolved from the installed metadata, starting at promptray's own requirements without
extras, so that a dependency of a dependency counts, too.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

# SPDX names, then the spellings of metadata older than SPDX.
PERMISSIVE = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-CMU",
    "MPL-2.0",  # binds changes to its own files only (tqdm)
    "PSF-2.0",
    "Unlicense",
    "Zlib",
    "3-Clause BSD License",
    "Apache Software License",
    "BSD License",
    "ISC License (ISCL)",
    "MIT License",
    "Mozilla Public License 2.0 (MPL 2.0)",
    "Python Software Foundation License",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def edge_install(root: str) -> Iterator[Distribution]:
    """Everything that installing `root` without extras needs on this machine, `root` included."""
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    given: set[str] = set()
    while waiting:
        name, extras = item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        found = distribution(name)
        for line in found.requires or []:
            requirement = Requirement(line)
            wanted = [{"extra": extra} for extra in ["", *extras]]
            if requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in wanted):
                waiting.append((canonical(requirement.name), frozenset(requirement.extras)))
        if name not in given:
            given.add(name)
            yield found


def licence(found: Distribution) -> str:
    """The licence as the distribution states it: SPDX expression, else classifiers, else free text."""
    classifiers = found.metadata.get_all("Classifier") or []
    named = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License :: ")]
    named = [name for name in named if name != "OSI Approved"]  # a heading, not a licence
    free_text = (found.metadata["License"] or "unknown").strip().split("\n")[0]
    return found.metadata["License-Expression"] or " AND ".join(named) or free_text


def is_permissive(expression: str) -> bool:
    """Whether every part of an SPDX expression is permissive, or offers a permissive choice.

    Brackets that bind only some names are dropped, which can only make the answer stricter where
    AND and OR are mixed.
    """
    if expression in PERMISSIVE:
        return True
    terms = re.sub(r"[()]", " ", expression).split(" AND ")
    return all(any(name.strip() in PERMISSIVE for name in term.split(" OR ")) for term in terms)


def main() -> int:
    try:
        found = sorted(edge_install("promptray"), key=lambda each: canonical(each.name))
    except PackageNotFoundError as error:
        print(f"{error.name} is required by the edge install but is not installed here: run `make setup`")
        return 1
    refused = []
    for each in found:
        stated = licence(each)
        if not is_permissive(stated):
            refused.append(each.name)
        print(f"{each.name:24} {each.version:14} {stated}{'   <-- REFUSED' if each.name in refused else ''}")
    print(f"{len(found)} distributions in the edge install, {len(refused)} not permissive")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
