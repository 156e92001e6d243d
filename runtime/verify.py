"""Verify a bundle on this machine: every byte, then the golden images from file to score."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.door import open_picture
from promptray.runtime.errors import BundleError
from promptray.runtime.golden import GoldenReport, read_golden
from promptray.runtime.image_preparation import Where
from promptray.runtime.preprocess import preprocess
from promptray.runtime.scorer import Scorer
from promptray.runtime.site_choice import USER_SITE, SiteChoice, open_site

Progress = Callable[[str, str, float], None]

#: How far a level of 0..255 may be off where a bundle keeps fractions.
FRACTION = 1e-3


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and found right.

    Attributes
    ----------
    name, sha256 : str
        The bundle.
    files : int
        Files whose hash was compared.
    site_entries : int
        Entries of the site directory whose hash was compared.
    golden : GoldenReport
        Largest differences on this machine, with their bounds.
    backend : str
        What ran.
    """

    name: str
    sha256: str
    files: int
    site_entries: int
    golden: GoldenReport
    backend: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain containers."""
        return {"verified": True, **asdict(self)}


def verify(
    path: str | os.PathLike[str],
    *,
    site: SiteChoice = USER_SITE,
    backend: str = "auto",
    threads: int | None = None,
    prepare: Where = "cpu",
    progress: Progress = lambda stage, message, fraction: None,
) -> VerifyReport:
    """Check everything of a bundle that can be checked on this machine.

    Parameters
    ----------
    path : path
        The bundle.
    site : path, USER_SITE or None
        As ``Scorer.open``.
    backend, threads, prepare
        As ``Scorer.open``. ``"device"`` prepares the golden images there, too.
    progress : callable
        Called with (stage, message, fraction).

    Raises
    ------
    BundleError
        Whatever was found wrong, naming the file, expected and found hash, and the cure.
    """
    bundle = Bundle.open(path)
    progress("hashes", "reading every file", 0.05)
    files = bundle.verify_files()
    read_parity(bundle)
    local = open_site(site, bundle.hash)
    entries = 0 if local is None else len(local.verify())
    progress("golden", "preprocessing the golden images", 0.4)
    _check_preprocessing(bundle)
    progress("golden", "scoring the golden images", 0.6)
    with Scorer.open(path, backend=backend, site=site, threads=threads, prepare=prepare) as scorer:
        report = scorer.check_golden()
        backend_text = f"{scorer.backend.name} {scorer.backend.version}, {scorer.backend.threads} threads"
    return VerifyReport(bundle.manifest.name, bundle.hash, len(files), entries, report, backend_text)


def _check_preprocessing(bundle: Bundle) -> None:
    """Read every golden image file through the door and compare with the stored picture, pixel by pixel."""
    manifest, rule = bundle.manifest, bundle.manifest.preprocessing
    stored = read_golden(bundle).pictures
    for number, name in enumerate(manifest.golden.images):
        picture = open_picture(
            BytesIO(bundle.read(name)), manifest.door, rule.greyscale,
            keep_colour=rule.colour == "rgb", modality=manifest.door.modalities[0], name=name,
        )  # fmt: skip
        made = preprocess(picture.shown, rule).picture
        # Fractions may differ in their last bits between builds of the resizer; whole levels may not.
        allowed = 0 if rule.levels == "uint8" else FRACTION
        different = int(
            np.count_nonzero(~(np.abs(np.subtract(made, stored[number], dtype=float)) <= allowed))
        )
        if different:
            raise BundleError(
                "bundle.golden",
                "on this machine a golden image becomes another picture",
                artefact=name,
                expected="every pixel equal to the stored picture",
                found=f"{different} pixels differ",
                cure="run `promptray doctor`; reinstall numpy, pillow, simplejpeg; do not use this machine "
                "until it passes",
            )
