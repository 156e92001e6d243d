"""The scorer: open a bundle once, then score images against its cached prompts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from promptray.runtime.active_prompts import require_open
from promptray.runtime.active_set import ActiveSet
from promptray.runtime.backends import GpuOptions
from promptray.runtime.backends.host_settings import HostSettings
from promptray.runtime.bound_heads import HeadScores
from promptray.runtime.deadline import Deadline
from promptray.runtime.door import Halvings, Source, open_picture, source_name
from promptray.runtime.errors import ScoringError
from promptray.runtime.exam import score_exam
from promptray.runtime.exam_result import ExamResult
from promptray.runtime.golden import GoldenReport, check_golden
from promptray.runtime.graphs import own_bank
from promptray.runtime.image_preparation import Where
from promptray.runtime.opened_parts import Parts, open_parts, require_device_prepares
from promptray.runtime.pending_result import PendingResult
from promptray.runtime.picture import Picture
from promptray.runtime.pixel_scores import PixelScores, pixel_scores
from promptray.runtime.prepared import Prepared
from promptray.runtime.result import Refused, Result
from promptray.runtime.result_document import result_document, timed
from promptray.runtime.score_ahead import score_ahead
from promptray.runtime.site_choice import USER_SITE, SiteChoice
from promptray.runtime.text_check import check_text


class Scorer:
    """Scores images with a bundle. Make one with :meth:`open`; it is a context manager.

    Thread safety: every method may be called from any thread. :meth:`score` calls run side by side; a change
    of prompts takes effect for calls that begin after it. :meth:`close` lets calls under way finish, later
    ones raise ``score.closed``.

    Examples
    --------
    >>> from promptray import Scorer
    >>> with Scorer.open("chest.bundle") as scorer:                      # doctest: +SKIP
    ...     result = scorer.score("image.dcm")
    ...     print(result.scores["pneumonia"].logit)
    """

    def __init__(self, parts: Parts) -> None:
        self.bundle = parts.bundle
        self.backend = parts.backend
        self.prompts = parts.prompts
        self.strict = parts.strict
        self._graphs = parts.graphs
        self._closed = parts.closed
        self._preparing = parts.preparing

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
        gpu: GpuOptions | None = None,
        prepare: Where = "cpu",
        reduced_decode: bool = False,
        host: HostSettings | None = None,
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
            added or removed. Slower for few prompts. ``"auto"`` does not follow what was measured.
        strict : bool
            Refuse images whose tags are absent, instead of noting it.
        gpu : GpuOptions, optional
            Of a backend of a GPU: images under way at once, CUDA graphs.
        prepare : {"cpu", "device"}
            Where images are brought to the network's input. ``"device"`` needs a set of engines that does it,
            within one grey level of the CPU; an image that it cannot take (colour, size, more than 16 bits)
            is prepared on the CPU and has the notice ``prepared-on-cpu``.
        reduced_decode : bool
            Decode JPEG 2000 no finer than the network needs: several times as fast. Scores differ a little;
            `promptray gate-decode` must have shown on the site's films that it is little enough. Such an
            image has the notice ``reduced-decode``, and calibrations made without it do not hold. Not with
            ``prepare="device"``.
        host : HostSettings, optional
            Of a backend of the processor that is asked for by name; by default those of the gates. What
            `promptray tune` measured as the fastest here is what ``"auto"`` takes.

        Raises
        ------
        BundleError
            The bundle or the site was changed, is incomplete or is of another version, or the golden picture
            gets other scores on this machine.
        ScoringError
            ``backend.*``; ``engine.*`` where there are no engines for this GPU that passed their gate, or
            none among them that prepares images; ``decode.*`` where `reduced_decode` passed no gate here.
        """
        return cls(
            open_parts(
                path,
                backend=backend,
                site=site,
                threads=threads,
                reproducible=reproducible,
                strict=strict,
                gpu=gpu,
                prepare=prepare,
                reduced_decode=reduced_decode,
                host=host,
            )
        )

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
        picture = self._picture(source, self._preparing.halvings, name=called, **declared)
        start = time.perf_counter()
        image, notices = self._preparing.image(picture)
        timing = {**picture.timing, "resize": _milliseconds(start)}
        return Prepared(image, picture.source, notices, timing, called, self.bundle.hash)

    def picture(self, source: Source, **declared: Any) -> Picture:
        """Read an image at its original size and check it at the door (see :meth:`prepare`)."""
        return self._picture(source, None, **declared)

    def _picture(self, source: Source, halvings: Halvings | None, **declared: Any) -> Picture:
        self._require_open()
        manifest = self.bundle.manifest
        rule = manifest.preprocessing
        return open_picture(
            source,
            manifest.door,
            rule.greyscale,
            keep_colour=rule.colour == "rgb",
            keep_stored=self._preparing.on_device,
            halvings=halvings,
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
        return self.submit(prepared, deadline=deadline, cancel=cancel).result()

    def submit(
        self, prepared: Prepared, *, deadline: float | None = None, cancel: threading.Event | None = None
    ) -> PendingResult[Result]:
        """Begin to score a prepared image, and return while a GPU is at work.

        On a processor the work is done before this returns. At most ``GpuOptions.streams`` images are under
        way: one more takes the oldest one's answer from the device first.

        Parameters
        ----------
        prepared, deadline, cancel
            As for :meth:`infer`; they hold for the result, too.

        Raises
        ------
        ScoringError
            As :meth:`infer`, here or from the result.
        """
        limit = Deadline(deadline, cancel)
        self._require_open()
        self._require_own(prepared)
        state = self.prompts.state
        pending = state.submit(prepared.incoming, limit)
        return PendingResult(pending, partial(self._result, prepared, state))

    def _result(
        self, prepared: Prepared, state: ActiveSet, scores: list[HeadScores], timing: Mapping[str, float]
    ) -> Result:
        start = time.perf_counter()
        answers = state.answers(scores)
        document = result_document(self.bundle, self.backend, prepared, state, answers)
        stages = {**prepared.timing, **timing}
        stages["post"] += _milliseconds(start)
        document = timed(document, {**stages, "total": sum(stages.values())})
        maps = [grid for answer in answers for grid in answer.maps_of_findings]
        return Result(document, maps, prepared.geometry)

    def submit_pixels(
        self, pixels: Any, *, deadline: float | None = None, cancel: threading.Event | None = None
    ) -> PendingResult[PixelScores]:
        """Begin to score network input that the caller made. Nothing looks at what it shows.

        Parameters
        ----------
        pixels : float32 (images, channels, height, width), contiguous
            A NumPy array; on a backend of a GPU also what has ``__dlpack__`` or version 3 of
            ``__cuda_array_interface__`` and lies on CUDA device 0. It is waited for on the stream that its
            producer names, read where it lies, and must not be written before the result is there. Where
            its address is no multiple of 256 it is copied within the device.
        deadline, cancel
            As for :meth:`infer`.

        Raises
        ------
        ScoringError
            ``score.input``, and as :meth:`infer`, here or from the result.
        """
        limit = Deadline(deadline, cancel)
        self._require_open()
        state = self.prompts.state
        return PendingResult(state.submit(pixels, limit), partial(pixel_scores, self.backend, state))

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
            Most images decoded ahead of inference, at the same time where there are cores; bounds the memory.
        seen : callable, optional
            Called with each image as the network will see it, just before it is scored.
        **declared
            As for :meth:`prepare`, applied to every image.

        Yields
        ------
        Result or Refused
        """
        self._require_open()
        yield from score_ahead(self, sources, ahead=ahead, seen=seen, declared=declared)

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

    def check_golden(self) -> GoldenReport:
        """Score every golden picture, encode a finding again, and compare with what the bundle holds.

        Where the device prepares images, it prepares every golden image, too.

        Raises
        ------
        BundleError
            ``bundle.golden``.
        """
        self._require_open()
        banks = {head.name: own_bank(self.bundle, head) for head in self.bundle.manifest.heads}
        report = check_golden(self.bundle, self._graphs, self._graphs.bind_all(banks))
        return replace(
            report,
            text_error=check_text(self.bundle, self._graphs),
            level_error=require_device_prepares(self.bundle, self._graphs, whole=True),
        )

    def close(self) -> None:
        """Close the scorer and give back what it holds of a GPU. Later calls raise ``score.closed``."""
        self._closed.set()
        self._graphs.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        require_open(self._closed)
        self._graphs.require_usable()

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


def _milliseconds(start: float) -> float:
    return (time.perf_counter() - start) * 1000.0
