"""The site directory: what is added stays, what is changed is refused, what a crash leaves does no harm."""

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import pytest

from promptray.runtime import site_files
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.site import Site, SiteEntry
from tests.site_factory import BUNDLE, HEAD, PAYLOAD, filled, index_of, refused, reopened


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return filled(tmp_path)


# What works


def test_what_is_added_is_there_again(site: Site) -> None:
    again = reopened(site)
    assert again.revision == site.revision == 4
    assert [entry.key for entry in again.entries("prompt")] == ["rib fracture", "Rippenbruch"]
    assert [again.read(entry) for entry in again.entries("prompt")] == [PAYLOAD, PAYLOAD[::-1]]
    assert again.entries("prompt")[0].facts == {"display": "Rib fracture", "code": None}
    assert [entry.key for entry in again.entries("removed-prompt")] == ["hernia"]
    assert len(again.verify()) == 3


def test_what_is_removed_is_gone(site: Site) -> None:
    site.remove("prompt", HEAD, "rib fracture")
    site.remove("removed-prompt", HEAD, "hernia")
    assert [entry.key for entry in reopened(site).verify()] == ["Rippenbruch"]
    assert len(list((site.folder / "entries").iterdir())) == 1


def test_equal_payloads_are_stored_once_and_kept_while_used(site: Site) -> None:
    site.add("prompt", HEAD, "costal fracture", PAYLOAD)
    assert len(list((site.folder / "entries").iterdir())) == 2
    site.remove("prompt", HEAD, "rib fracture")
    assert reopened(site).read(site.entries("prompt")[-1]) == PAYLOAD


def test_a_bundle_without_site_has_nothing_and_nothing_is_written(tmp_path: Path) -> None:
    site = Site.open(tmp_path, BUNDLE)
    assert (site.revision, site.entries("prompt"), site.verify()) == (0, (), [])
    assert list(tmp_path.iterdir()) == []


def test_sites_of_two_bundles_do_not_meet(site: Site) -> None:
    other = Site.open(site.folder.parent, hashlib.sha256(b"another").hexdigest())
    assert other.revision == 0
    other.add("prompt", HEAD, "rib fracture", b"other")
    assert reopened(site).read(site.entries("prompt")[0]) == PAYLOAD


def test_the_default_root_is_in_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name, **_: tmp_path / "data" / name)
    site = Site.open(None, BUNDLE)
    assert not (tmp_path / "data").exists()
    site.add("prompt", HEAD, "key", b"payload")
    assert site.folder == tmp_path / "data" / "promptray" / "sites" / BUNDLE
    assert len(Site.open(None, BUNDLE).verify()) == 1


def test_no_path_is_recorded(site: Site) -> None:
    assert str(site.folder.parent).encode() not in index_of(site).read_bytes()


def test_reading_writes_nothing_and_needs_no_lock(site: Site) -> None:
    (site.folder / "site.lock").unlink(missing_ok=True)
    before = {path: path.stat().st_mtime_ns for path in site.folder.rglob("*")}
    reopened(site).verify()
    assert {path: path.stat().st_mtime_ns for path in site.folder.rglob("*")} == before


def test_the_index_is_canonical_and_names_its_own_hash(site: Site) -> None:
    path = index_of(site)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"site.00000004.{digest}.json"
    assert json.loads(path.read_bytes())["bundle"] == BUNDLE


# Refusals of the caller


def test_a_key_twice(site: Site) -> None:
    error = refused("prompt.exists", lambda: site.add("prompt", HEAD, "rib fracture", b"other"))
    assert error.artefact == "rib fracture"
    assert reopened(site).revision == 4
    site.add("removed-prompt", HEAD, "rib fracture")  # another kind: no clash


def test_a_key_of_another_head_is_another_entry(tmp_path: Path) -> None:
    site = filled(tmp_path)
    site.add("prompt", "tags", "rib fracture", b"other")
    assert [(entry.head, entry.key) for entry in reopened(site).entries("prompt")] == [
        (HEAD, "rib fracture"), (HEAD, "Rippenbruch"), ("tags", "rib fracture"),
    ]  # fmt: skip
    site.remove("prompt", HEAD, "rib fracture")
    left = reopened(site).entries("prompt")
    assert [(entry.head, entry.key) for entry in left] == [(HEAD, "Rippenbruch"), ("tags", "rib fracture")]
    refused("prompt.unknown", lambda: site.remove("prompt", "tags", "Rippenbruch"))
    with pytest.raises(PromptError, match="cannot be stored"):
        site.add("prompt", "../tags", "key", b"payload")


def test_an_unknown_key(site: Site) -> None:
    refused("prompt.unknown", lambda: site.remove("prompt", HEAD, "hernia"))
    assert reopened(site).revision == 4


@pytest.mark.parametrize(
    "key", ["", " x", "a/b", "a\\b", "a\nb", "a\n", "a\x00", "x" * 129, "\ud800"], ids=ascii
)
def test_a_key_that_cannot_be_stored(site: Site, key: str) -> None:
    with pytest.raises(PromptError) as caught:
        site.add("prompt", HEAD, key, b"payload")
    assert caught.value.code == "prompt.invalid"
    assert reopened(site).revision == 4


@pytest.mark.parametrize("facts", [{"x": float("nan")}, {"x": "\udcff"}])
def test_facts_that_are_no_json(site: Site, facts: dict[str, Any]) -> None:
    with pytest.raises(PromptError) as caught:
        site.add("prompt", HEAD, "key", b"payload", facts)
    assert caught.value.code == "prompt.invalid"
    assert reopened(site).revision == 4


def test_every_entry_but_a_removal_has_a_payload(site: Site) -> None:
    with pytest.raises(ValueError, match="every entry has a payload"):
        site.add("prompt", HEAD, "key")
    with pytest.raises(ValueError, match="every entry has a payload"):
        site.add("removed-prompt", HEAD, "key", b"payload")
    with pytest.raises(ValueError, match="has no payload"):
        site.read(site.entries("removed-prompt")[0])
    with pytest.raises(ValueError, match="sha256"):
        Site.open(site.folder.parent, "../elsewhere")


def test_a_mistyped_site_is_not_an_empty_one(tmp_path: Path) -> None:
    refused("site.not-found", lambda: Site.open(tmp_path / "typo", BUNDLE))
    refused("site.not-found", lambda: Site.open("a" * 5000, BUNDLE))


def test_a_site_opened_for_reading(site: Site) -> None:
    readonly = Site.open(site.folder.parent, BUNDLE, readonly=True)
    error = refused("site.unwritable", lambda: readonly.add("prompt", HEAD, "key", b"payload"))
    assert "--site" in str(error.cure)
    refused("site.unwritable", lambda: readonly.remove("prompt", HEAD, "rib fracture"))


def test_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    site = Site.open(tmp_path, BUNDLE)
    monkeypatch.setattr(Path, "mkdir", fail)
    refused("site.unwritable", lambda: site.add("prompt", HEAD, "key", b"payload"))
    assert site.revision == 0


def test_a_writer_waits_then_says_busy(site: Site) -> None:
    impatient = Site.open(site.folder.parent, BUNDLE, timeout=0.05)
    with filelock.FileLock(site.folder / "site.lock"):
        refused("site.busy", lambda: impatient.add("prompt", HEAD, "key", b"payload"))
    impatient.add("prompt", HEAD, "key", b"payload")


# Crashes and company


class PowerCut(BaseException):
    """Ends a write at once; unlike the exception of a killed process, nothing after it is cleaned up here."""


def _state(site: Site) -> list[SiteEntry]:
    return reopened(site).verify()


@pytest.mark.parametrize("step", range(8))
def test_a_crash_at_every_step_of_a_write(site: Site, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    before = _state(site)
    left = step
    unlink, replace = Path.unlink, os.replace

    def counted(action: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerCut
            return action(*arguments, **named)

        return call

    monkeypatch.setattr(site_files, "write_new", counted(site_files.write_new))
    monkeypatch.setattr(os, "replace", counted(replace))
    monkeypatch.setattr(Path, "unlink", counted(unlink))
    with pytest.raises(PowerCut) if step < 5 else contextlib.nullcontext():
        site.add("prompt", HEAD, "new", b"new payload")
    monkeypatch.undo()
    after = _state(site)
    assert _keys(after) in (_keys(before), [*_keys(before), "new"])
    reopened(site).add("prompt", HEAD, "next", b"next payload")  # and the site is not bricked
    assert _state(site)[-1].key == "next"
    assert not list(site.folder.rglob("tmp.*"))
    assert len(list(site.folder.glob("site.*.json"))) == 1


def _keys(entries: list[SiteEntry]) -> list[str]:
    return [entry.key for entry in entries]


def test_a_crash_before_the_first_index(tmp_path: Path) -> None:
    (tmp_path / BUNDLE).mkdir()
    (tmp_path / BUNDLE / "site.lock").write_bytes(b"")
    (tmp_path / BUNDLE / "tmp.0123").write_bytes(b"half")
    site = Site.open(tmp_path, BUNDLE)
    assert site.revision == 0
    site.add("prompt", HEAD, "key", b"payload")
    assert not (tmp_path / BUNDLE / "tmp.0123").exists()


def test_an_orphaned_payload_is_ignored_then_removed(site: Site) -> None:
    orphan = site.folder / "entries" / hashlib.sha256(b"orphan").hexdigest()
    orphan.write_bytes(b"orph")
    assert len(reopened(site).verify()) == 3
    site.add("prompt", HEAD, "key", b"payload")
    assert not orphan.exists()


def test_a_damaged_orphan_is_written_anew(site: Site) -> None:
    (site.folder / "entries" / hashlib.sha256(b"payload").hexdigest()).write_bytes(b"payl")
    entry = site.add("prompt", HEAD, "key", b"payload")
    assert reopened(site).read(entry) == b"payload"


def test_writers_of_two_openings_do_not_lose_each_others_entries(site: Site) -> None:
    other = reopened(site)
    site.add("prompt", HEAD, "one", b"1")
    other.add("prompt", HEAD, "two", b"2")
    assert _keys(_state(site))[-2:] == ["one", "two"]
    assert other.revision == 6


def test_an_entry_removed_by_another_process(site: Site) -> None:
    other = reopened(site)
    site.remove("prompt", HEAD, "rib fracture")
    error = refused("site.changed", lambda: other.read(other.entries("prompt")[0]))
    assert "open it again" in str(error.cure)
    assert other.read(other.entries("prompt")[1]) == PAYLOAD[::-1]


def test_many_threads_write_and_read(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            site = Site.open(tmp_path, BUNDLE, timeout=60)
            for n in range(5):
                site.add("prompt", HEAD, f"{name} {n}", f"{name} {n}".encode())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must show it
            failures.append(error)

    def read() -> None:
        try:
            while any(writer.is_alive() for writer in writers):
                site = Site.open(tmp_path, BUNDLE)
                assert all(site.read(entry) == entry.key.encode() for entry in site.entries("prompt"))
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in (*writers, reader):
        thread.join()
    assert failures == []
    site = Site.open(tmp_path, BUNDLE)
    assert len(site.verify()) == 20
    assert site.revision == 21


def test_errors_are_of_one_class(site: Site) -> None:
    index_of(site).write_bytes(b"")
    with pytest.raises(BundleError):
        reopened(site)
