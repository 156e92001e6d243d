"""A batch of small images of the tiny bundle, without Ray."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from promptray.calibrate.batch.images import digest
from promptray.calibrate.batch.run import RunFacts, ScorerFacts
from promptray.calibrate.batch.worker import Work
from promptray.runtime.scorer import Scorer

#: As an archive may name its files. It is nowhere but in results.
PATIENT = "DOE^JANE"


def facts(images: list[Path], part: int = 3, **changes: Any) -> RunFacts:
    """Those of a run whose scorer is made up."""
    scorer = ScorerFacts(
        software="promptray 0", bundle="0" * 64, site_revision=None, findings=2, findings_sha256="1" * 64,
        backend="onnxruntime-cpu", backend_version="1", precision="fp32", gated_as=None, threads=None,
        settings=None, engines=None,
        prepare="cpu",
    )  # fmt: skip
    run = RunFacts(
        scorer=scorer, modality="DX", frame=None, strict=False, reproducible=False, images=len(images),
        images_sha256=digest(images), part=part,
    )  # fmt: skip
    own = {name: changes.pop(name) for name in list(changes) if name in ScorerFacts.__struct_fields__}
    return msgspec.structs.replace(run, scorer=msgspec.structs.replace(scorer, **own), **changes)


def archive(folder: Path, source: Path, images: int, broken: int = 1) -> list[Path]:
    """Make images, the last of them broken, in a folder that is named after a patient."""
    own = folder / PATIENT
    own.mkdir(parents=True)
    files = [own / f"{PATIENT}-{number:03}.png" for number in range(images)]
    for file in files:
        shutil.copy(source, file)
    for file in files[len(files) - broken :]:
        file.write_bytes(source.read_bytes()[:200])
    return files


def work(bundle: Path, images: list[Path], folder: Path, part: int = 3) -> Work:
    """What a worker is told of a run on the tiny bundle."""
    opened = partial(Scorer.open, bundle, site=None, threads=1, backend="onnxruntime-cpu")
    with opened() as scorer:
        scored_by = ScorerFacts.of(scorer, reproducible=False)
    run = msgspec.structs.replace(facts(images, part), scorer=scored_by)
    folder.mkdir()
    return Work(run, folder, Path.cwd(), opened)
