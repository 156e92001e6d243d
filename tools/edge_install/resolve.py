"""Resolve the edge install, with the pins of constraints.txt, for machines other than this one.

    python -m tools.edge_install.resolve [--platform NAME]... [--python X.Y]...

`make resolve` asks the package index whether every pinned distribution has a wheel on every platform and
Python that PromptRay promises; on Linux, where Jetsons are, with the extra ``tensorrt``, on x86-64 with the
extra ``rtx``, and for JetPack 6 with its own ``cuda-bindings``. Nothing is installed, and as a rule nothing
is downloaded but metadata.

pip can choose another machine's wheels (``pip install --platform``) but evaluates markers for its own, so
colorama would be missing on Windows. Here the pins are the resolution: pip only fetches the metadata of
one ``name==version`` after the other, and the markers in it are evaluated for the target.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from tools.check_licences import canonical, needed
from tools.edge_install.pip import pip
from tools.edge_install.targets import PLATFORMS, PYTHONS, Refused, Target, every_target

ROOT = Path(__file__).resolve().parents[2]
OWN = "promptray"
#: JetPack 6 has CUDA 12: there docs/jetson.md installs this instead of what is pinned.
JETPACK_6 = Target("linux-aarch64", "3.10")
JETPACK_6_PINS = {"cuda-bindings": "12.9.10"}


def pins(target: Target, constraints: str) -> dict[str, str]:
    """Return the versions that the text of constraints.txt chooses for a target, by canonical name."""
    chosen = {}
    for line in constraints.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(target.markers):
            (specifier,) = requirement.specifier
            chosen[canonical(requirement.name)] = specifier.version
    return chosen


Metadata = dict[tuple[str, str], list[str]]
"""Canonical name and version of distributions, and what each requires."""


def resolve(
    target: Target,
    own: Sequence[str],
    pinned: Mapping[str, str],
    guess: Metadata | None = None,
    extras: Sequence[str] = (),
) -> Metadata:
    """Find everything that the edge install needs on a target.

    Parameters
    ----------
    target : Target
        The machine.
    own : sequence of str
        promptray's own requirements.
    pinned : mapping of str to str
        Version of every distribution for this target, by canonical name.
    guess : dict, optional
        Metadata that other targets' wheels of the same versions had. It only tells what to ask pip for in
        one go; the answer rests on the target's own metadata.
    extras : sequence of str
        Of promptray, to find as well.

    Returns
    -------
    dict
        Every distribution but promptray, sorted by name.

    Raises
    ------
    Refused
        If a distribution is not pinned, its pin is not what another one requires, there is no wheel of
        it for the target, or the index does not answer.
    """
    known: Metadata = {}

    def requires(name: str) -> Sequence[str]:
        if name == OWN:
            return own
        key = name, pinned.get(name, "")
        return known.get(key) or (guess or {}).get(key) or ()

    while True:
        found = needed(OWN, requires, target.markers, extras)
        wanted = {(name, pinned[name]) for name in found if name in pinned}
        if wanted <= known.keys():
            _check_pins(target, found, pinned)
            return {key: known[key] for key in sorted(wanted)}
        known |= _metadata(target, sorted(wanted - known.keys()))


def _check_pins(
    target: Target, found: Mapping[str, Sequence[Requirement]], pinned: Mapping[str, str]
) -> None:
    for name in found.keys() - pinned.keys() - {OWN}:
        raise Refused(f"{target}: constraints.txt does not pin {name}; run `make constraints`")
    for name, requirements in found.items():
        for requirement in requirements:
            if not requirement.specifier.contains(pinned[name], prereleases=True):
                raise Refused(
                    f"{target}: constraints.txt pins {name} {pinned[name]}, but {requirement} is required; "
                    "run `make constraints`"
                )


def _metadata(target: Target, wanted: Sequence[tuple[str, str]]) -> Metadata:
    """Ask the index what each of the target's wheels requires."""
    exact = [f"{name}=={version}" for name, version in wanted]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        only_look = ("install", "--quiet", "--dry-run", "--ignore-installed", "--report", report, "--no-deps")
        where = ("--target", Path(folder) / "target")  # pip wants one; a dry run leaves it empty
        pip(*only_look, *where, *target.pip_options, *exact, doing=f"{target}: looking for wheels")
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    answers = {canonical(item["metadata"]["name"]): item["metadata"] for item in items}
    return {(name, version): list(answers[name].get("requires_dist", ())) for name, version in wanted}


def own_requirements() -> list[str]:
    """Return what promptray, as installed here, requires."""
    return list(distribution(OWN).requires or ())


def read_pins(target: Target) -> dict[str, str]:
    """Return the committed pins for a target."""
    return pins(target, (ROOT / "constraints.txt").read_text(encoding="utf-8"))


def main() -> int:
    """Resolve every target that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--platform", action="append", choices=PLATFORMS, help="default: all")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="default: all")
    options = parser.parse_args()
    platforms, pythons = options.platform or PLATFORMS, options.python or PYTHONS
    asked: list[tuple[Target, dict[str, str]]] = [(each, {}) for each in every_target()]
    asked.append((JETPACK_6, JETPACK_6_PINS))
    jobs = [each for each in asked if each[0].platform in platforms and each[0].python in pythons]
    guess: Metadata = {}

    def outcome(job: tuple[Target, dict[str, str]]) -> Refused | int:
        target, other = job
        try:
            pinned = read_pins(target) | other
            found = resolve(target, own_requirements(), pinned, guess, target.extras)
        except Refused as error:
            return error
        guess.update(found)
        return len(found)

    failed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for (target, other), found in zip(jobs, pool.map(outcome, jobs), strict=True):
            if isinstance(found, Refused):
                failed += 1
                print(f"{target!s:32} FAILED\n  {found}", flush=True)
            else:
                what = [*target.extras, *(f"{name} {version}" for name, version in other.items())]
                print(
                    f"{target!s:32} {found} distributions with {', '.join(what)}, each with a wheel",
                    flush=True,
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
