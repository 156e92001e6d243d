"""Images in order, each scored while the next ones are read and decoded, on as many cores as there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

from promptray.runtime.cores import host_threads
from promptray.runtime.door import Source, require_several, source_name
from promptray.runtime.errors import PromptRayError, ScoringError
from promptray.runtime.prepared import Prepared
from promptray.runtime.result import Refused, Result

if TYPE_CHECKING:
    from promptray.runtime.scorer import Scorer


def score_ahead(
    scorer: Scorer,
    sources: Iterable[Source],
    *,
    ahead: int,
    seen: Callable[[Prepared], None] | None,
    declared: Mapping[str, Any],
) -> Iterator[Result | Refused]:
    """Score images as :meth:`promptray.runtime.scorer.Scorer.score_many` says."""
    if ahead < 1:
        raise ValueError("ahead must be at least 1")
    require_several(sources)
    waiting: deque[tuple[Future[Prepared], str]] = deque()
    pending = iter(sources)
    workers = min(ahead, host_threads(None))
    with ThreadPoolExecutor(workers, thread_name_prefix="promptray-prepare") as pool:

        def fill() -> None:
            for source in islice(pending, ahead - len(waiting)):
                waiting.append((pool.submit(scorer.prepare, source, **declared), source_name(source)))

        try:
            fill()
            while waiting:
                future, name = waiting.popleft()
                fill()  # before the image is scored: threads that prepare never wait for that
                yield _outcome(scorer, future, name, seen)
        finally:
            for future, _ in waiting:
                future.cancel()


def _outcome(
    scorer: Scorer, future: Future[Prepared], name: str, seen: Callable[[Prepared], None] | None
) -> Result | Refused:
    try:
        prepared = future.result()
        if seen:
            seen(prepared)
        return scorer.infer(prepared)
    except PromptRayError as error:
        return Refused(error, name)
    except Exception as error:  # noqa: BLE001 - one image's fault must not lose the studies after it
        return Refused(_fault(error, name), name)


def _fault(error: Exception, name: str) -> ScoringError:
    """Wrap an unforeseen fault without its text, which may hold patient data."""
    return ScoringError(
        "score.fault",
        f"an internal fault ({type(error).__name__}) while this image was being scored",
        artefact=name,
        cure="report it with the output of `promptray doctor`",
    )
