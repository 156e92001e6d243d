"""Calls into pydicom that let nothing out: no warning, no log record, no exception text.

pydicom quotes tag values in all three, and tag values are patient data. Its own switches are
process-wide, and so is :func:`warnings.catch_warnings`; both would change the host application and race
between threads. So a context variable says which thread is inside a call, and two passive hooks ask it:
a filter on pydicom's loggers, and one entry of the warnings filter list whose message matcher answers
"is this thread reading?". Outside a call both are without effect.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from promptray.runtime.errors import ImageError

Result = TypeVar("Result")

_reading: ContextVar[bool] = ContextVar("promptray_reading", default=False)


class _WhileReading:
    """Stands where the warnings machinery expects a compiled message pattern."""

    def match(self, _text: str) -> bool:
        return _reading.get()


class _LogFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _reading.get()


_ENTRY: Any = ("ignore", _WhileReading(), Warning, None, 0)
_LOG_FILTER = _LogFilter()
_LOGGERS = ("pydicom", "openjpeg", "openjpeg.utils", "pylibjpeg", "pylibjpeg.utils")


def quietly(call: Callable[[], Result], refusal: Callable[[], ImageError]) -> Result:
    """Return `call()`; whatever it raises is dropped and `refusal()` is raised instead.

    The refusal is raised outside the handler, so that the original exception, whose text may quote a
    tag, is not even chained to it. PromptRay's own refusals and `MemoryError` pass.
    """
    _install()
    token = _reading.set(True)
    try:
        return call()
    except (ImageError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - hostile bytes raise anything; all of it means "refused"
        failed = refusal
    finally:
        _reading.reset(token)
    raise failed()


def _install() -> None:
    """Put both hooks in place; again whenever a test runner or the host has reset its filters."""
    if not any(entry is _ENTRY for entry in warnings.filters):
        warnings.filters.insert(0, _ENTRY)  # type: ignore[attr-defined]
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_LOG_FILTER)  # adding twice is one filter
