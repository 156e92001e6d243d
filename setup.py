"""Packages and package data; everything else is in pyproject.toml.

The repository keeps `runtime/`, `export/` and `calibrate/` beside `promptray/`, but they install
as `promptray.runtime` and so on. setuptools can map folders to packages statically, yet then it
wants every sub-package listed by hand (its automatic discovery names a package after its folder).
A forgotten line would only be noticed in the wheel, so the list is computed here.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "promptray": "promptray",
    "promptray.runtime": "runtime",
    "promptray.export": "export",
    "promptray.calibrate": "calibrate",
}

DATA = ["py.typed", "*.csv", "*.json", "*.md", "*.png", "*.txt", "*.yaml"]

packages = [
    name
    for package, folder in FOLDERS.items()
    for name in [package, *(f"{package}.{child}" for child in find_packages(folder))]
]

setup(
    packages=packages,
    package_dir=FOLDERS,
    # Data folders (golden inputs, schemas) hold no Python, hence the ** forms.
    package_data={name: [*DATA, *(f"**/{pattern}" for pattern in DATA)] for name in FOLDERS},
    include_package_data=False,
)
