"""Lay out the edge install for a machine without a network: wheels, their hashes and how to install them.

    python -m tools.edge_install.wheelhouse PLATFORM PYTHON [FOLDER]

`make wheelhouse PLATFORM=linux-aarch64 PYTHON_VERSION=3.10 [DIR=...]` calls it. The folder holds

    wheels/             promptray's own wheel and all that it needs, for that platform and Python
    requirements.txt    every version with the sha256 of its wheel, for ``pip install --require-hashes``
    README.md           the commands to check and to install, and the licence of everything
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

from tools.check_licences import canonical, is_permissive, licence
from tools.edge_install.own_wheel import own_wheel
from tools.edge_install.pip import pip
from tools.edge_install.resolve import own_requirements, read_pins, resolve
from tools.edge_install.targets import PLATFORMS, PYTHONS, Refused, Target, target


@dataclass(frozen=True)
class Wheel:
    """A wheel in the folder: its file name, size in bytes and what it says of itself."""

    file: str
    size: int
    sha256: str
    name: str
    version: str
    licence: str


def read_wheel(path: Path) -> Wheel:
    """Read a wheel's metadata and hash its bytes."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        found = PathDistribution(zipfile.Path(archive, f"{folder}/"))
        name, version, stated = canonical(found.name), found.version, licence(found)
    return Wheel(path.name, len(content), hashlib.sha256(content).hexdigest(), name, version, stated)


def fetch(target: Target, into: Path) -> list[Wheel]:
    """Build promptray's wheel and download the others into the folder `into`.

    Raises
    ------
    Refused
        If they do not resolve, a licence is not permissive, or pip or setuptools fails.
    """
    print(f"Looking for the wheels of {target}", flush=True)
    needed = resolve(target, own_requirements(), read_pins(target))
    into.mkdir()
    own_wheel(into)
    print(f"Downloading {len(needed)} wheels", flush=True)
    exact = [f"{name}=={version}" for name, version in needed]
    pip("download", "--no-deps", "--dest", into, *target.pip_options, *exact, doing="Downloading the wheels")
    wheels = [read_wheel(path) for path in sorted(into.iterdir())]
    refused = [f"{each.name} ({each.licence})" for each in wheels if not is_permissive(each.licence)]
    if refused:
        raise Refused(f"{target}: no permissive licence: {', '.join(refused)}; see tools/check_licences.py")
    return wheels


def requirements(wheels: list[Wheel]) -> str:
    """Return requirements.txt: with ``--require-hashes``, pip installs these bytes or nothing."""
    return "".join(f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n" for each in wheels)


_README = """\
# PromptRay {version} for {target}

{count} wheels, {megabytes:.0f} MB: all that scoring needs. Install them on a machine without a network.

1. Check that `requirements.txt` is the one that was made. Its sha256, which you should have been given by
   another way than this folder:

       {check}

   {sha256}

2. Install, in this folder, with Python {python}:

       {create}
       {install}

   pip compares every wheel with its sha256 in `requirements.txt` and installs nothing if one differs.

3. See that it runs, then verify your bundle on this machine:

       {program} doctor
       {program} verify chest.bundle

## What is in it

| distribution | version | licence | bytes |
| --- | --- | --- | --- |
{rows}
The licence texts are in the wheels (`*.dist-info`).
"""


def readme(target: Target, wheels: list[Wheel], sha256: str) -> str:
    """Return the page for whoever installs it, in the words of the target's shell."""
    (version,) = (each.version for each in wheels if each.name == "promptray")
    if target.windows:
        python, folder = f"py -{target.python}", "promptray-env\\Scripts\\"
        check = "(Get-FileHash requirements.txt).Hash.ToLower()"
    else:
        python, folder = f"python{target.python}", "promptray-env/bin/"
        check = "sha256sum requirements.txt"
    install = "-m pip install --no-index --find-links wheels --require-hashes -r requirements.txt"
    rows = [f"| {each.name} | {each.version} | {each.licence} | {each.size} |\n" for each in wheels]
    return _README.format(
        version=version,
        target=target,
        python=target.python,
        count=len(wheels),
        megabytes=sum(each.size for each in wheels) / 1e6,
        check=check,
        sha256=sha256,
        create=f"{python} -m venv promptray-env",
        install=f"{folder}python {install}",
        program=f"{folder}promptray",
        rows="".join(rows),
    )


def wheelhouse(target: Target, folder: Path) -> str:
    """Write the folder, whole or not at all, and return the sha256 of its requirements.txt.

    Raises
    ------
    Refused
        If the folder exists, or its content cannot be had.
    """
    if os.path.lexists(folder):
        raise Refused(f"{folder} exists already; remove it, or name another folder with DIR=...")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheelhouse-", dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        wheels = fetch(target, made / "wheels")
        content = requirements(wheels).encode()
        sha256 = hashlib.sha256(content).hexdigest()
        (made / "requirements.txt").write_bytes(content)
        page = readme(target, wheels, sha256)
        (made / "README.md").write_text(page, encoding="utf-8", newline="\n")
        made.rename(folder)
    return sha256


def main() -> int:
    """Make one wheelhouse."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("platform", help=", ".join(PLATFORMS))
    parser.add_argument("python", help=", ".join(PYTHONS))
    parser.add_argument("folder", nargs="?", type=Path, help="default: dist/wheelhouse-PLATFORM-PYTHON")
    options = parser.parse_args()
    folder = options.folder or Path("dist") / f"wheelhouse-{options.platform}-{options.python}"
    try:
        sha256 = wheelhouse(target(options.platform, options.python), folder)
    except (Refused, OSError) as error:
        print(f"No wheelhouse was made. {error}", file=sys.stderr)
        return 1
    print(f"Made {folder}; its README.md says how to install it.")
    print(f"Tell the one who installs it, by another way, the sha256 of requirements.txt: {sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
