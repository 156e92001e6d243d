"""Score an archive: cut it into parts, have those that are not there scored, count what there is."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from promptray.calibrate.batch.images import digest, require_each_once
from promptray.calibrate.batch.parts import Part, cut, read_outcomes, require_no_others
from promptray.calibrate.batch.ray_pool import run_parts
from promptray.calibrate.batch.report import BatchReport
from promptray.calibrate.batch.run import RunFacts, ScorerFacts, claimed
from promptray.calibrate.batch.worker import Work
from promptray.runtime.backends import OF_ENGINES
from promptray.runtime.cores import host_threads
from promptray.runtime.engines.device import gpus_here
from promptray.runtime.errors import PromptRayError
from promptray.runtime.scorer import Scorer

Progress = Callable[[str, str, float], None]
#: Images of one part: what a killed worker loses at most.
PART = 100


def score_batch(
    path: str | os.PathLike[str],
    images: Sequence[Path],
    output: Path,
    *,
    modality: str | None = None,
    frame: int | None = None,
    part: int = PART,
    workers: int | None = None,
    threads: int | None = None,
    address: str | None = None,
    progress: Progress = lambda stage, message, fraction: None,
    open_scorer: Callable[..., Scorer] = Scorer.open,
    **opening: Any,
) -> BatchReport:
    """Score images with workers of Ray Data; a batch that was stopped goes on where it was.

    Every image gets exactly one row in the Parquet files of `output`: its scores, or the code of its refusal.

    Parameters
    ----------
    path : path
        The bundle.
    images : sequence of Path
        Files, each once. Their paths as given are their names in the results.
    output : Path
        Folder of results: a new one, or that of the same batch.
    modality, frame
        Declared of every image, as ``Scorer.prepare`` takes them.
    part : int
        Images of one file of results.
    workers : int, optional
        Processes; each holds the model. By default one for every two cores, or one for each GPU here where
        engines score.
    threads : int, optional
        Of one worker; by default the cores divided by the workers.
    address : str, optional
        Of a Ray cluster; by default workers run on this machine.
    progress : callable
        Called with (stage, message, fraction).
    open_scorer : callable
        Makes a scorer of the bundle, `threads` and `opening`, in every worker.
    **opening
        As ``Scorer.open`` takes them: backend, site, strict, reproducible, prepare, gpu.

    Raises
    ------
    PromptRayError
        ``batch.images``, ``batch.state``, ``batch.worker``; what opening the bundle raises.
    OSError
        The output folder cannot be written.
    """
    start = time.monotonic()
    require_each_once(images)
    cores = host_threads(None)
    threads = threads or max(1, cores // (workers or max(1, cores // 2)))
    opened = partial(open_scorer, os.path.abspath(path), threads=threads, **_absolute(opening))
    reproducible = bool(opening.get("reproducible"))
    progress("open", "the bundle", 0.0)
    with opened() as scorer:
        facts, reason = ScorerFacts.of(scorer, reproducible=reproducible), scorer.backend.reason
    gpus = 1 if facts.backend in OF_ENGINES else 0
    workers = workers or (gpus_here() if gpus else max(1, cores // 2))
    if gpus and address is None:
        _require_gpus(workers)
    run = RunFacts(
        scorer=facts,
        modality=modality,
        frame=frame,
        strict=bool(opening.get("strict")),
        reproducible=reproducible,
        images=len(images),
        images_sha256=digest(images),
        part=part,
    )
    folder = Path(os.path.abspath(output))
    parts = cut(images, part)
    with claimed(folder, run):
        require_no_others(folder, parts)
        there = [each for each in parts if (folder / each.file).exists()]
        outcomes = {each.number: read_outcomes(folder, each, run) for each in there}
        missing = [each for each in parts if each.number not in outcomes]
        before = len(outcomes)
        if missing:
            work = Work(run, folder, Path.cwd(), opened)
            by_number: dict[int, Part] = {each.number: each for each in missing}
            for number in run_parts(
                missing, work, workers=workers, threads=threads, gpus=gpus, address=address
            ):
                outcomes[number] = read_outcomes(folder, by_number[number], run)
                done = sum(each.total() for each in outcomes.values())
                progress("score", f"{done} of {len(images)}", done / len(images))
        # Whatever Ray said is done: each part is counted from its file, or missed.
        outcomes |= {
            each.number: read_outcomes(folder, each, run) for each in parts if each.number not in outcomes
        }
    total = sum(outcomes.values(), Counter[str | None]())
    return BatchReport(
        output=str(output),
        software=facts.software,
        bundle=facts.bundle,
        backend=facts.backend,
        reason=reason,
        images=total.total(),
        scored=total[None],
        refused={code: count for code, count in sorted(total.items(), key=str) if code is not None},
        parts=len(outcomes),
        parts_before=before,
        workers=workers,
        threads=threads,
        seconds=round(time.monotonic() - start, 3),
    )


def _require_gpus(workers: int) -> None:
    """Refuse more workers than GPUs here: those without one could score nothing."""
    here = gpus_here()
    if workers > here:
        raise PromptRayError(
            "batch.worker",
            "each worker takes a GPU of its own, and there are not as many",
            expected=f"at most {here} workers",
            found=f"{workers} workers",
            cure="leave --workers out, or score on the processor with --backend onnxruntime-cpu",
        )


def _absolute(opening: dict[str, Any]) -> dict[str, Any]:
    """Return the options with a site directory that means the same in every process."""
    site = opening.get("site")
    return {**opening, "site": os.path.abspath(site)} if isinstance(site, (str, os.PathLike)) else opening
