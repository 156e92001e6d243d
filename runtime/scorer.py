"""The scorer: open a bundle once, then score images against its cached prompts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any

from promptray.runtime.active_prompts import ActivePrompts, require_open
from promptray.runtime.backends import BackendFacts, choose_backend
from promptray.runtime.bundle import Bundle, Manifest
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.deadline import Deadline
from promptray.runtime.door import Source, open_picture, require_several, source_name
from promptray.runtime.errors import PromptRayError, ScoringError
from promptray.runtime.exam import score_exam
from promptray.runtime.exam_result import ExamResult
from promptray.runtime.golden import GoldenReport, check_golden
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS, Graphs, own_bank
from promptray.runtime.machine_class import consumers_here
from promptray.runtime.picture import Picture
from promptray.runtime.prepared import Prepared
from promptray.runtime.preprocess import preprocess
from promptray.runtime.result import Refused, Result
from promptray.runtime.result_document import result_document
from promptray.runtime.site_calibration import Calibrations
from promptray.runtime.site_choice import USER_SITE, SiteChoice, open_site
from promptray.runtime.text_check import check_text


class Scorer:
    """Scores images with a bundle. Make one with :meth:`open`; it is a context manager.

    Thread safety: every method may be called from any thread. :meth:`score` calls run side by side; a change
    of prompts takes effect for calls that begin after it. :meth:`close` waits for nothing: calls under way
    finish, later ones raise ``score.closed``.

    Examples
    --------
    >>> from promptray import Scorer
    >>> with Scorer.open("chest.bundle") as scorer:                      # doctest: +SKIP
    ...     result = scorer.score("image.dcm")
    ...     print(result.scores["pneumonia"].logit)
    """

    def __init__(
        self,
        bundle: Bundle,
        graphs: Graphs,
        prompts: ActivePrompts,
        backend: BackendFacts,
        *,
        strict: bool,
        closed: threading.Event,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.prompts = prompts
        self._graphs = graphs
        self.strict = strict
        self._closed = closed

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        site: SiteChoice = USER_SITE,
        threads: int | None = None,
        reproducible: bool = False,
        strict: bool = False,
    ) -> Scorer:
        """Open a bundle: check its seal, hash what is loaded, compile, and score a golden picture.

        Parameters
        ----------
        path : path
            The bundle directory.
        backend : str
            ``"auto"`` or a name of ``promptray doctor``. What ran, and why, is in every result.
        site : path, USER_SITE or None
            Site directory with what this site added; by default in the user's data folder. None: no site.
        threads : int, optional
            Threads of one call; by default every core this process may use.
        reproducible : bool
            Fix all shapes, so that a score is bit-equal alone, in :meth:`score_many` and after prompts were
            added or removed. Slower for few prompts.
        strict : bool
            Refuse images whose tags are absent, instead of noting it.

        Raises
        ------
        BundleError
            The bundle or the site was changed, is incomplete or is of another version, or the golden picture
            gets other scores on this machine.
        ScoringError
            ``backend.*``.
        """
        bundle = Bundle.open(path)
        manifest = bundle.manifest
        if manifest.gated:  # before anything runs: changed graphs that did not pass are not used
            read_parity(bundle)
        chosen, reason = choose_backend(backend, threads=threads, manifest=manifest)
        graphs = Graphs(bundle, chosen, prompts_per_batch=REPRODUCIBLE_PROMPTS if reproducible else None)
        banks = {head.name: own_bank(bundle, head) for head in manifest.heads}
        # The warm-up is the golden check: the first call is paid once, and a broken install is found at once.
        check_golden(bundle, graphs, graphs.bind_all(banks), pictures=1)
        local = open_site(site, bundle.hash)
        facts = BackendFacts(
            chosen.name,
            chosen.version,
            chosen.device,
            _precision(manifest, chosen.name),
            chosen.threads,
            reason,
            _gated_as(manifest, chosen.name),
        )
        closed = threading.Event()
        calibrations = Calibrations(local, manifest, facts, strict=strict)
        prompts = ActivePrompts(bundle, graphs, banks, local, closed, calibrations)
        return cls(bundle, graphs, prompts, facts, strict=strict, closed=closed)

    def prepare(self, source: Source, *, name: str | None = None, **declared: Any) -> Prepared:
        """Read an image, check it at the door and bring it to the network's input. Runs in any thread.

        Parameters
        ----------
        source : path, binary file, bytes, pydicom Dataset or 2-D array
            DICOM, PNG or JPEG by content, or pixels.
        name : str, optional
            What errors and results call it; by default the file's base name.
        **declared
            What the caller knows and the source does not say: ``modality``, ``frame`` (counted from 1),
            ``photometric`` (for arrays).

        Raises
        ------
        ImageError
            ``image.*`` or ``dicom.*``; the image gets no score.
        """
        called = name or source_name(source)
        picture = self.picture(source, name=called, **declared)
        start = time.perf_counter()
        network_input = preprocess(picture.shown, self.bundle.manifest.preprocessing)
        timing = {**picture.timing, "resize": _milliseconds(start)}
        return Prepared(network_input, picture.source, picture.notices, timing, called, self.bundle.hash)

    def picture(self, source: Source, **declared: Any) -> Picture:
        """Read an image at its original size and check it at the door (see :meth:`prepare`)."""
        self._require_open()
        manifest = self.bundle.manifest
        rule = manifest.preprocessing
        return open_picture(
            source,
            manifest.door,
            rule.greyscale,
            keep_colour=rule.colour == "rgb",
            strict=self.strict,
            **declared,
        )

    def infer(
        self, prepared: Prepared, *, deadline: float | None = None, cancel: threading.Event | None = None
    ) -> Result:
        """Score a prepared image against every finding.

        Parameters
        ----------
        prepared : Prepared
        deadline : float, optional
            Seconds from now. A score that would come later is an error, not a late answer. It is checked
            between the stages; a stage that has begun runs to its end.
        cancel : threading.Event, optional
            Set it in another thread to stop between two stages.

        Raises
        ------
        ScoringError
            ``score.deadline``, ``score.cancelled``, ``score.not-finite``, ``score.closed`` or
            ``backend.failed``.
        """
        limit = Deadline(deadline, cancel)
        self._require_open()
        self._require_own(prepared)
        state = self.prompts.state
        limit.check("before the image graph")
        start = time.perf_counter()
        features = self._graphs.features(prepared.network_input.pixels)
        image_ms = _milliseconds(start)
        limit.check("after the image graph")
        start = time.perf_counter()
        answers = state.run(features)
        timing = {**prepared.timing, "image": image_ms, "head": _milliseconds(start)}
        limit.check("after the head")
        timing["total"] = sum(timing.values())
        document = result_document(self.bundle, self.backend, prepared, state, answers, timing)
        maps = [grid for answer in answers for grid in answer.maps_of_findings]
        return Result(document, maps, prepared.network_input.geometry)

    def score(
        self,
        source: Source,
        *,
        name: str | None = None,
        deadline: float | None = None,
        cancel: threading.Event | None = None,
        **declared: Any,
    ) -> Result:
        """Prepare and infer (see both for parameters and errors)."""
        limit = Deadline(deadline, cancel)
        limit.check("before reading")
        prepared = self.prepare(source, name=name, **declared)
        return self.infer(prepared, deadline=limit.left(), cancel=cancel)

    def score_many(
        self,
        sources: Iterable[Source],
        *,
        ahead: int = 2,
        seen: Callable[[Prepared], None] | None = None,
        **declared: Any,
    ) -> Iterator[Result | Refused]:
        """Score images in order while the next ones are being read and decoded.

        An image that cannot be scored gives a :class:`Refused` in its place, and the others go on: no study
        is lost, and reading a refused image's scores raises its error.

        Parameters
        ----------
        sources : iterable
            As for :meth:`prepare`.
        ahead : int
            Most images decoded ahead of inference; bounds the memory.
        seen : callable, optional
            Called with each image as the network will see it, just before it is scored.
        **declared
            As for :meth:`prepare`, applied to every image.

        Yields
        ------
        Result or Refused
        """
        if ahead < 1:
            raise ValueError("ahead must be at least 1")
        require_several(sources)
        self._require_open()
        waiting: list[tuple[Future[Prepared], str]] = []
        pending = iter(sources)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="promptray-prepare") as pool:
            try:
                while True:
                    for source in islice(pending, ahead - len(waiting)):
                        waiting.append((pool.submit(self.prepare, source, **declared), source_name(source)))
                    if not waiting:
                        return
                    future, name = waiting.pop(0)
                    yield self._outcome(future, name, seen)
            finally:
                for future, _ in waiting:
                    future.cancel()

    def score_exam(
        self, sources: Iterable[Source], *, views: Sequence[str | None] | None = None, **declared: Any
    ) -> ExamResult:
        """Score the images of one examination together, by the rule that the bundle stores.

        Parameters
        ----------
        sources : iterable
            As for :meth:`prepare`, in any order: images of one study.
        views : sequence of str or None, optional
            For each source the view that it shows, for example ``"L CC"``, or None where its tags say it.
            Needed for PNG, JPEG and arrays; never overrules a tag.
        **declared
            As for :meth:`prepare`, applied to every image.

        Returns
        -------
        ExamResult
            Scores of each side and of the whole, the views they were made of, views that are missing and
            images that did not enter, each with its reason: refused at the door, of an unknown view, of one
            that the rule does not name, or no plain view (an implant displaced, a spot compression).

        Raises
        ------
        ScoringError
            ``exam.no-rule``, ``exam.findings``, and what :meth:`infer` raises.
        ImageError
            ``exam.view``, ``exam.mixed``, ``exam.incomplete``; ``image.tag-missing`` in strict mode.
        """
        return score_exam(self, sources, views, strict=self.strict, declared=declared)

    def _outcome(
        self, future: Future[Prepared], name: str, seen: Callable[[Prepared], None] | None
    ) -> Result | Refused:
        try:
            prepared = future.result()
            if seen:
                seen(prepared)
            return self.infer(prepared)
        except PromptRayError as error:
            return Refused(error, name)
        except Exception as error:  # noqa: BLE001 - one image's fault must not lose the studies after it
            return Refused(_fault(error, name), name)

    def check_golden(self) -> GoldenReport:
        """Score every golden picture, encode a finding again, and compare with what the bundle holds.

        Raises
        ------
        BundleError
            ``bundle.golden``.
        """
        self._require_open()
        banks = {head.name: own_bank(self.bundle, head) for head in self.bundle.manifest.heads}
        report = check_golden(self.bundle, self._graphs, self._graphs.bind_all(banks))
        return replace(report, text_error=check_text(self.bundle, self._graphs))

    def close(self) -> None:
        """Close the scorer. Later calls raise ``score.closed``."""
        self._closed.set()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        require_open(self._closed)

    def _require_own(self, prepared: Prepared) -> None:
        """Another bundle has another door and another preprocessing."""
        if prepared.bundle != self.bundle.hash:
            raise ScoringError(
                "score.foreign-input",
                "the image was prepared by the scorer of another bundle",
                artefact=prepared.name,
                expected=f"prepared with bundle {self.bundle.short_hash}",
                found=f"prepared with bundle {prepared.bundle[:12]}",
                cure="prepare it with the scorer that scores it",
            )


def _precision(manifest: Manifest, backend: str) -> str:
    """Name the precision of what runs: one word where image side and heads agree."""
    consumers = consumers_here(backend)
    used = [manifest.graph_for("image", consumers)]
    used += [manifest.graph_for("head", consumers, head.name) for head in manifest.heads]
    stated = {graph.title: graph.precision for graph in used if graph is not None}
    if len(set(stated.values())) == 1:
        return stated["image"]
    return ", ".join(f"{title} {precision}" for title, precision in stated.items())


def _gated_as(manifest: Manifest, backend: str) -> str | None:
    gated = manifest.gated_for(consumers_here(backend))
    return gated.consumer if gated is not None and gated.heads else None


def _fault(error: Exception, name: str) -> ScoringError:
    """Wrap an unforeseen fault without its text, which may hold patient data."""
    return ScoringError(
        "score.fault",
        f"an internal fault ({type(error).__name__}) while this image was being scored",
        artefact=name,
        cure="report it with the output of `promptray doctor`",
    )


def _milliseconds(start: float) -> float:
    return (time.perf_counter() - start) * 1000.0
