"""Which way of running a bundle was the fastest on a machine, as `promptray tune` measured it.

The record is an entry of the site directory (``docs/bundle-format.md``, section 8). It holds for the machine
and the software that it was taken with: elsewhere it is not followed, and results say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.backends.host_settings import GATED, HostSettings
from promptray.runtime.bundle.fields import Text
from promptray.runtime.cores import host_threads
from promptray.runtime.errors import BundleError
from promptray.runtime.machine_class import machine_class, processor_name
from promptray.runtime.site import Site
from promptray.runtime.site_files import SiteEntry, corrupt

KIND: Literal["tuning"] = "tuning"
Positive = Annotated[float, Meta(gt=0)]
_COUNT = Annotated[int, Meta(ge=1)]
_ABSENT = "not installed"
_PACKAGES = ("promptray", "onnxruntime", "openvino")


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structures: immutable, keyword-only, closed."""


class Machine(_Struct, frozen=True, kw_only=True):
    """What a time depends on beside the software."""

    machine_class: Text
    processor: Text
    cores: _COUNT
    """That the process may use."""
    system: Text

    @property
    def key(self) -> str:
        """Name of its entry."""
        stated = json.dumps(msgspec.to_builtins(self), sort_keys=True)
        return f"{self.machine_class}-{hashlib.sha256(stated.encode()).hexdigest()[:32]}"


class Way(_Struct, frozen=True, kw_only=True):
    """A way of running a bundle on the processor."""

    backend: Literal["onnxruntime-cpu", "openvino"]
    threads: _COUNT
    settings: HostSettings

    @property
    def title(self) -> str:
        """What people call it: settings are named where they are not those of the gates."""
        own, usual = msgspec.to_builtins(self.settings), msgspec.to_builtins(GATED)
        other = [f"{name} {str(own[name]).lower()}" for name in own if own[name] != usual[name]]
        threads = f"{self.threads} threads" if self.threads > 1 else "1 thread"
        return ", ".join([self.backend, threads, *other])


class Measured(_Struct, frozen=True, kw_only=True):
    """Times of one image with all its findings."""

    way: Way
    milliseconds: Positive
    """Median."""
    ratio: Positive
    """Of its time to the usual way's in the same round: median, then quartiles."""
    low: Positive
    high: Positive


class LeftOut(_Struct, frozen=True, kw_only=True):
    """A way that was not measured, and why."""

    way: Way
    reason: Text


class Tuning(_Struct, frozen=True, kw_only=True):
    """All of an entry's facts."""

    format_version: Literal[1] = 1
    machine: Machine
    software: dict[Text, Text | None]
    """Versions; None where a package is not installed."""
    date: Text
    images: _COUNT
    findings: _COUNT
    rounds: _COUNT
    chosen: Way
    measured: Annotated[list[Measured], Meta(min_length=1)]
    """The usual way first."""
    left_out: list[LeftOut] = []

    @property
    def reason(self) -> str:
        """Why the chosen way was chosen, in one sentence."""
        usual, best = self.measured[0], next(each for each in self.measured if each.way == self.chosen)
        taken = f"measured by `promptray tune` on {self.date}"
        if best == usual:
            return f"{usual.way.title}: none of {len(self.measured)} ways was faster here, {taken}"
        spread = f"{best.ratio:.2f} ({best.low:.2f} to {best.high:.2f})"
        return f"{best.way.title}: {spread} of the time of {usual.way.title} here, {taken}"

    @property
    def stale(self) -> str | None:
        """What is here no longer as it was when this was measured; None where all is."""
        here = {**msgspec.to_builtins(machine_here()), **software_here()}
        then = {**msgspec.to_builtins(self.machine), **self.software}
        changed = [
            f"{name.replace('_', ' ')} was {then.get(name) or _ABSENT} and is {now or _ABSENT}"
            for name, now in here.items()
            if then.get(name) != now
        ]
        return "; ".join(changed) or None

    @property
    def document(self) -> dict[str, Any]:
        """All of it as JSON values, with its key, its reason, and why ``"auto"`` does not follow it here."""
        stated: dict[str, Any] = msgspec.to_builtins(self)
        return {"key": self.machine.key, "reason": self.reason, "stale": self.stale, **stated}


def machine_here() -> Machine:
    """Return the facts of this machine."""
    return Machine(
        machine_class=machine_class(),
        processor=processor_name(),
        cores=host_threads(None),
        system=platform.system() or "unknown",
    )


def software_here() -> dict[str, str | None]:
    """Return the versions that a time depends on."""
    return {name: _version(name) for name in _PACKAGES}


def read_tuning(site: Site | None) -> Tuning | None:
    """Return what was measured on this machine, else what was measured last on another one; None: nothing.

    It may be :attr:`Tuning.stale`. Records of other machines that cannot be read are passed over: none
    is ever followed.

    Raises
    ------
    BundleError
        ``site.corrupt``, of this machine's entry.
    """
    entries = {entry.key: entry for entry in site.entries(KIND)} if site is not None else {}
    if site is None or not entries:
        return None
    own = entries.get(machine_here().key)
    if own is not None:
        return _read(site, own)
    for entry in reversed(entries.values()):
        with contextlib.suppress(BundleError):
            return _read(site, entry)
    return None


def read_tunings(site: Site) -> dict[str, Tuning]:
    """Return what was measured on every machine, by the key of its entry.

    Raises
    ------
    BundleError
        ``site.corrupt``.
    """
    return {entry.key: _read(site, entry) for entry in site.entries(KIND)}


def write_tuning(site: Site, tuning: Tuning) -> None:
    """Store it in the place of what was measured on this machine before.

    Raises
    ------
    BundleError
        ``site.busy``, ``site.unwritable``, ``site.corrupt``.
    """
    site.add_all(KIND, "", [(tuning.machine.key, b"", msgspec.to_builtins(tuning))], replace=True)


def _read(site: Site, entry: SiteEntry) -> Tuning:
    try:
        tuning = msgspec.convert(entry.facts, Tuning)
    except msgspec.ValidationError as error:
        raise _damaged(site, entry, f"its facts cannot be read: {error}") from error
    if tuning.machine.key != entry.key:
        raise _damaged(site, entry, f"its facts are of the machine {tuning.machine.key}")
    if tuning.chosen not in [each.way for each in tuning.measured]:
        raise _damaged(site, entry, "the way that it chose was not measured")
    return tuning


def _damaged(site: Site, entry: SiteEntry, message: str) -> BundleError:
    return corrupt(
        f"a record of times is damaged: {message}",
        site.folder,
        found=entry.key,
        cure=f"`promptray tune BUNDLE --remove {entry.key}`, then measure again",
    )


def _version(name: str) -> str | None:
    import importlib.metadata  # only where something was measured

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
