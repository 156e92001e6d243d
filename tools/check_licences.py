"""Print the licence of everything the edge install brings, and fail on one that is not permissive.

The list is resolved from the installed metadata, starting at promptray's own requirements without
extras, so that a dependency of a dependency counts, too. What the extra `openvino` brings beside it must be
permissive, too; what those for engines bring may also be under the GPU vendor's own licence. What is not
installed is named as not looked at.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
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
    "OSI Approved :: Apache Software License",
    "BSD License",
    "ISC License (ISCL)",
    "MIT License",
    "Mozilla Public License 2.0 (MPL 2.0)",
    "Python Software Foundation License",
}

#: Extras that bring libraries of the GPU's vendor, and how their metadata names its licence.
ENGINE_EXTRAS = ("rtx", "tensorrt")
#: Extras of other backends.
OTHER_EXTRAS = ("openvino",)
VENDOR = {"Other/Proprietary License", "Proprietary"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(
    root: str,
    requires: Callable[[str], Iterable[str]],
    environment: Mapping[str, str],
    extras: Iterable[str] = (),
) -> dict[str, list[Requirement]]:
    """Every distribution that installing `root` with these extras needs, with what is required of it.

    `requires` gives the requirements of a distribution by its canonical name; their markers are
    evaluated in `environment`.
    """
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    found: dict[str, list[Requirement]] = {root: []}
    while waiting:
        name, extras = item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        for line in requires(name):
            requirement = Requirement(line)
            wanted = [{**environment, "extra": extra} for extra in ["", *extras]]
            if requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in wanted):
                child = canonical(requirement.name)
                found.setdefault(child, []).append(requirement)
                waiting.append((child, frozenset(requirement.extras)))
    return found


def brought_by(root: str, extras: Iterable[str]) -> tuple[list[Distribution], list[str]]:
    """What extras bring beyond the edge install: distributions, and names of absent ones."""
    edge = {canonical(each.name) for each in edge_install(root)}

    def requires(name: str) -> list[str]:
        found = _here(name)
        return (found.requires or []) if found else []

    names = needed(root, requires, {}, extras)
    extra = [name for name in names if name not in edge]
    here = [found for name in extra if (found := _here(name))]
    return here, [name for name in extra if _here(name) is None]


def _here(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def edge_install(root: str) -> list[Distribution]:
    """Everything that installing `root` without extras needs on this machine, `root` included."""
    names = needed(root, lambda name: distribution(name).requires or [], {})
    return [distribution(name) for name in names]


def licence(found: Distribution) -> str:
    """The licence as the distribution states it: SPDX expression, else classifiers, else free text."""
    said = found.metadata
    named = [
        line.split(" :: ")[-1] for line in said.get_all("Classifier") or [] if line.startswith("License :: ")
    ]
    named = [name for name in named if name != "OSI Approved"]  # a heading, not a licence
    if "License-Expression" in said:
        return said["License-Expression"]
    free_text = said["License"].strip() if "License" in said else ""
    return " AND ".join(named) or free_text.split("\n")[0] or "unknown"


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
    refused = [each for each in found if not print_licence(each, is_permissive)]
    print(f"{len(found)} distributions in the edge install, {len(refused)} not permissive\n")
    for extras, accepts in ((ENGINE_EXTRAS, is_permissive_or_vendors), (OTHER_EXTRAS, is_permissive)):
        brought, absent = brought_by("promptray", extras)
        refused += [each for each in brought if not print_licence(each, accepts)]
        missing = f"; not installed here, so not looked at: {', '.join(absent)}" if absent else ""
        print(f"{len(brought)} more in the extras {', '.join(extras)}{missing}")
    return 1 if refused else 0


def is_permissive_or_vendors(expression: str) -> bool:
    """Whether it is permissive, or the GPU vendor's own."""
    return expression in VENDOR or is_permissive(expression)


def print_licence(found: Distribution, accepts: Callable[[str], bool]) -> bool:
    """Print a distribution with its licence; return whether that is accepted."""
    stated = licence(found)
    accepted = accepts(stated)
    print(f"{found.name:24} {found.version:14} {stated}{'' if accepted else '   <-- REFUSED'}")
    return accepted


if __name__ == "__main__":
    sys.exit(main())
