"""The site directory: what is added stays, what is changed is refused, what a crash leaves does no harm."""

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs
import pytest
from promptray.runtime import site_files
from promptray.runtime.bundle.manifest import bank_id
from promptray.runtime.errors import BundleError, PromptError, PromptRayError
from promptray.runtime.prompts import BankEntry, PromptBank, pack, unpack
from promptray.runtime.site import Site, SiteEntry

from tests import bundle_factory as factory

BUNDLE = hashlib.sha256(b"some bundle").hexdigest()
PAYLOAD = bytes(range(256)) * 3


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Two prompts and a removal: revision 4."""
    site = Site.open(tmp_path, BUNDLE)
    site.add("prompt", "rib fracture", PAYLOAD, {"display": "Rib fracture", "code": None})
    site.add("prompt", "Rippenbruch", PAYLOAD[::-1])
    site.add("removed-prompt", "hernia")
    return site


def index_of(site: Site) -> Path:
    (path,) = site.folder.glob("site.*.json")
    return path


def reopened(site: Site) -> Site:
    return Site.open(site.folder.parent, BUNDLE)


def refused(code: str, action: Callable[[], object]) -> PromptRayError:
    with pytest.raises(PromptRayError) as caught:
        action()
    assert caught.value.code == code, caught.value
    assert caught.value.cure
    assert caught.value.artefact
    return caught.value


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
    site.remove("prompt", "rib fracture")
    site.remove("removed-prompt", "hernia")
    assert [entry.key for entry in reopened(site).verify()] == ["Rippenbruch"]
    assert len(list((site.folder / "entries").iterdir())) == 1


def test_equal_payloads_are_stored_once_and_kept_while_used(site: Site) -> None:
    site.add("prompt", "costal fracture", PAYLOAD)
    assert len(list((site.folder / "entries").iterdir())) == 2
    site.remove("prompt", "rib fracture")
    assert reopened(site).read(site.entries("prompt")[-1]) == PAYLOAD


def test_a_bundle_without_site_has_nothing_and_nothing_is_written(tmp_path: Path) -> None:
    site = Site.open(tmp_path, BUNDLE)
    assert (site.revision, site.entries("prompt"), site.verify()) == (0, (), [])
    assert list(tmp_path.iterdir()) == []


def test_sites_of_two_bundles_do_not_meet(site: Site) -> None:
    other = Site.open(site.folder.parent, hashlib.sha256(b"another").hexdigest())
    assert other.revision == 0
    other.add("prompt", "rib fracture", b"other")
    assert reopened(site).read(site.entries("prompt")[0]) == PAYLOAD


def test_the_default_root_is_in_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name, **_: tmp_path / "data" / name)
    site = Site.open(None, BUNDLE)
    assert not (tmp_path / "data").exists()
    site.add("prompt", "key", b"payload")
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
    error = refused("prompt.exists", lambda: site.add("prompt", "rib fracture", b"other"))
    assert error.artefact == "rib fracture"
    assert reopened(site).revision == 4
    site.add("removed-prompt", "rib fracture")  # another kind: no clash


def test_an_unknown_key(site: Site) -> None:
    refused("prompt.unknown", lambda: site.remove("prompt", "hernia"))
    assert reopened(site).revision == 4


@pytest.mark.parametrize(
    "key", ["", " x", "a/b", "a\\b", "a\nb", "a\n", "a\x00", "x" * 129, "\ud800"], ids=ascii
)
def test_a_key_that_cannot_be_stored(site: Site, key: str) -> None:
    with pytest.raises(PromptError) as caught:
        site.add("prompt", key, b"payload")
    assert caught.value.code == "prompt.invalid"
    assert reopened(site).revision == 4


@pytest.mark.parametrize("facts", [{"x": float("nan")}, {"x": "\udcff"}])
def test_facts_that_are_no_json(site: Site, facts: dict[str, Any]) -> None:
    with pytest.raises(PromptError) as caught:
        site.add("prompt", "key", b"payload", facts)
    assert caught.value.code == "prompt.invalid"
    assert reopened(site).revision == 4


def test_payloads_belong_to_prompts(site: Site) -> None:
    with pytest.raises(ValueError, match="needs a payload"):
        site.add("prompt", "key")
    with pytest.raises(ValueError, match="has no payload"):
        site.add("removed-prompt", "key", b"payload")
    with pytest.raises(ValueError, match="has no payload"):
        site.read(site.entries("removed-prompt")[0])
    with pytest.raises(ValueError, match="sha256"):
        Site.open(site.folder.parent, "../elsewhere")


def test_a_mistyped_site_is_not_an_empty_one(tmp_path: Path) -> None:
    refused("site.not-found", lambda: Site.open(tmp_path / "typo", BUNDLE))


def test_a_site_opened_for_reading(site: Site) -> None:
    readonly = Site.open(site.folder.parent, BUNDLE, readonly=True)
    error = refused("site.unwritable", lambda: readonly.add("prompt", "key", b"payload"))
    assert "--site" in str(error.cure)
    refused("site.unwritable", lambda: readonly.remove("prompt", "rib fracture"))


def test_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    site = Site.open(tmp_path, BUNDLE)
    monkeypatch.setattr(Path, "mkdir", fail)
    refused("site.unwritable", lambda: site.add("prompt", "key", b"payload"))
    assert site.revision == 0


def test_a_writer_waits_then_says_busy(site: Site) -> None:
    impatient = Site.open(site.folder.parent, BUNDLE, timeout=0.05)
    with filelock.FileLock(site.folder / "site.lock"):
        refused("site.busy", lambda: impatient.add("prompt", "key", b"payload"))
    impatient.add("prompt", "key", b"payload")


# Changed bytes


def flips(content: bytes, seed: str) -> Iterator[bytes]:
    generator = random.Random(seed)
    for place in generator.sample(range(len(content)), 200):
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        yield bytes(changed)


def test_a_flipped_byte_in_the_index(site: Site) -> None:
    path = index_of(site)
    content = path.read_bytes()
    for changed in flips(content, "index"):
        path.write_bytes(changed)
        error = refused("site.corrupt", lambda: reopened(site))
        assert error.artefact == str(path)
        assert hashlib.sha256(content).hexdigest() in str(error.expected)
        assert hashlib.sha256(changed).hexdigest() in str(error.found)
        refused("site.corrupt", lambda: site.add("prompt", "key", b"payload"))


def test_a_flipped_byte_in_a_payload(site: Site) -> None:
    for entry in site.entries("prompt"):
        assert entry.payload
        path = site.folder / "entries" / entry.payload.sha256
        content = path.read_bytes()
        for changed in flips(content, entry.key):
            path.write_bytes(changed)
            error = refused("site.corrupt", lambda entry=entry: site.read(entry))
            assert error.artefact == str(path)
            assert entry.payload.sha256 in str(error.expected)
            assert hashlib.sha256(changed).hexdigest() in str(error.found)
        path.write_bytes(content)


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"\n", lambda raw: b""])
def test_another_length(site: Site, change: Callable[[bytes], bytes]) -> None:
    entry = site.entries("prompt")[0]
    assert entry.payload
    path = site.folder / "entries" / entry.payload.sha256
    path.write_bytes(change(path.read_bytes()))
    refused("site.corrupt", lambda: site.read(entry))
    refused("site.corrupt", reopened(site).verify)
    index_of(site).write_bytes(change(index_of(site).read_bytes()))
    refused("site.corrupt", lambda: reopened(site))


def test_a_missing_payload(site: Site) -> None:
    entry = site.entries("prompt")[0]
    assert entry.payload
    (site.folder / "entries" / entry.payload.sha256).unlink()
    error = refused("site.corrupt", lambda: site.read(entry))
    assert entry.payload.sha256 in str(error.artefact)
    assert "remove" in str(error.cure)
    site.remove("prompt", entry.key)  # the cure works
    assert [entry.key for entry in reopened(site).verify()] == ["Rippenbruch", "hernia"]


def test_a_missing_index(site: Site) -> None:
    index_of(site).unlink()
    assert "no index" in refused("site.corrupt", lambda: reopened(site)).message
    refused("site.corrupt", lambda: site.add("prompt", "key", b"payload"))


def test_an_older_revision_is_never_taken_instead(site: Site) -> None:
    older = index_of(site).read_bytes()
    name = index_of(site).name
    site.add("prompt", "key", b"payload")
    (site.folder / name).write_bytes(older)
    assert reopened(site).revision == 5
    newest = next(path for path in site.folder.glob("site.00000005.*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    error = refused("site.corrupt", lambda: reopened(site))
    assert error.artefact == str(newest)


def test_two_indexes_of_one_revision(site: Site) -> None:
    raw = index_of(site).read_bytes().replace(b"hernia", b"edema")
    _seal_index(site, raw, 4, keep=True)
    assert "two indexes" in refused("site.corrupt", lambda: reopened(site)).message


# Foreign and hostile content


def _seal_index(site: Site, raw: bytes, revision: int, *, keep: bool = False) -> None:
    if not keep:
        index_of(site).unlink()
    (site.folder / f"site.{revision:08}.{hashlib.sha256(raw).hexdigest()}.json").write_bytes(raw)


def _edited(site: Site, **changes: object) -> bytes:
    return json.dumps({**json.loads(index_of(site).read_bytes()), **changes}).encode()


def test_the_site_of_another_bundle_under_this_name(site: Site) -> None:
    other = hashlib.sha256(b"another").hexdigest()
    shutil.copytree(site.folder, site.folder.parent / other)
    error = refused("site.corrupt", lambda: Site.open(site.folder.parent, other))
    assert BUNDLE in str(error.found)
    assert other in str(error.expected)


ENTRY = {"kind": "prompt", "key": "k", "payload": {"sha256": "0" * 64, "size": 1}, "facts": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 3}, {"revision": "4"}, {"format": "promptray-bundle"}, {"more": 1}, {"entries": None},
        {"entries": [{**ENTRY, "kind": "engine"}]}, {"entries": [ENTRY, ENTRY]},
        {"entries": [{**ENTRY, "payload": None}]},
        {"entries": [{**ENTRY, "kind": "removed-prompt"}]}, {"entries": [{**ENTRY, "key": "../../x"}]},
        {"entries": [{**ENTRY, "payload": {"sha256": "../../../etc/passwd", "size": 1}}]},
    ],
    ids=ascii,
)  # fmt: skip
def test_an_index_that_is_sealed_but_wrong(site: Site, changes: dict[str, Any]) -> None:
    _seal_index(site, _edited(site, **changes), 4)
    refused("site.corrupt", lambda: reopened(site))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version(site: Site, version: object) -> None:
    _seal_index(site, _edited(site, format_version=version, entries="of another kind"), 4)
    error = refused("bundle.version", lambda: reopened(site))
    assert repr(version) in str(error.found)
    assert "upgrade" in str(error.cure)


def test_a_key_twice_in_the_index(site: Site) -> None:
    raw = index_of(site).read_bytes()
    _seal_index(site, raw.replace(b'"revision": 4', b'"revision": 9, "revision": 4'), 4)
    assert "twice" in refused("site.corrupt", lambda: reopened(site)).message


@pytest.mark.parametrize(
    "name", ["notes.txt", "site.json", "entries/notes.txt", "entries/x/", "site.00000004.x.json", "x/"]
)
def test_what_does_not_belong(site: Site, name: str) -> None:
    path = site.folder / name
    path.mkdir() if name.endswith("/") else path.write_bytes(b"")
    assert refused("site.corrupt", lambda: reopened(site)).artefact == str(path)


@pytest.mark.parametrize("name", ["index", "entries", "payload"])
def test_links(site: Site, tmp_path: Path, name: str) -> None:
    payload = next((site.folder / "entries").iterdir())
    path = {"index": index_of(site), "entries": site.folder / "entries", "payload": payload}[name]
    path.rename(tmp_path / "elsewhere")
    try:
        path.symlink_to(tmp_path / "elsewhere", target_is_directory=name == "entries")
    except OSError:
        pytest.skip("links need a privilege on this system")
    refused("site.corrupt", lambda: reopened(site))


def test_a_file_where_the_site_should_be(tmp_path: Path) -> None:
    (tmp_path / BUNDLE).write_bytes(b"")
    refused("site.corrupt", lambda: Site.open(tmp_path, BUNDLE))


def test_a_prompt_of_another_bank(tmp_path: Path) -> None:
    """Its shapes fit and its hash is right; only its identity tells."""
    rule = factory.manifest().bank
    assert rule
    rows = {"prompts": 1, "rows": 3}
    tensors = {
        tensor.name: np.ones([rows.get(str(dim), dim) for dim in tensor.dims[1:]], np.float32)  # type: ignore[misc]
        for tensor in rule.tensors
    }
    entry = BankEntry(key="k", prompt="p", cleaned="p", words=1, truncated=False, tensors=tensors)
    site = Site.open(tmp_path, BUNDLE)
    stored = site.add("prompt", "k", pack(PromptBank(rule, [entry])))
    assert unpack(site.read(stored), rule, artefact="k").keys == ("k",)
    identity = {**rule.identity, "weights": "another"}
    other = factory.manifest(
        bank={**factory.document()["bank"], "identity": identity, "id": bank_id(identity)}
    ).bank
    assert other
    error = refused("bundle.foreign-bank", lambda: unpack(site.read(stored), other, artefact="site prompt k"))
    assert other.id[:12] in str(error.expected)
    assert rule.id[:12] in str(error.found)


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
        site.add("prompt", "new", b"new payload")
    monkeypatch.undo()
    after = _state(site)
    assert _keys(after) in (_keys(before), [*_keys(before), "new"])
    reopened(site).add("prompt", "next", b"next payload")  # and the site is not bricked
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
    site.add("prompt", "key", b"payload")
    assert not (tmp_path / BUNDLE / "tmp.0123").exists()


def test_an_orphaned_payload_is_ignored_then_removed(site: Site) -> None:
    orphan = site.folder / "entries" / hashlib.sha256(b"orphan").hexdigest()
    orphan.write_bytes(b"orph")
    assert len(reopened(site).verify()) == 3
    site.add("prompt", "key", b"payload")
    assert not orphan.exists()


def test_a_damaged_orphan_is_written_anew(site: Site) -> None:
    (site.folder / "entries" / hashlib.sha256(b"payload").hexdigest()).write_bytes(b"payl")
    entry = site.add("prompt", "key", b"payload")
    assert reopened(site).read(entry) == b"payload"


def test_writers_of_two_openings_do_not_lose_each_others_entries(site: Site) -> None:
    other = reopened(site)
    site.add("prompt", "one", b"1")
    other.add("prompt", "two", b"2")
    assert _keys(_state(site))[-2:] == ["one", "two"]
    assert other.revision == 6


def test_an_entry_removed_by_another_process(site: Site) -> None:
    other = reopened(site)
    site.remove("prompt", "rib fracture")
    error = refused("site.changed", lambda: other.read(other.entries("prompt")[0]))
    assert "open it again" in str(error.cure)
    assert other.read(other.entries("prompt")[1]) == PAYLOAD[::-1]


def test_many_threads_write_and_read(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            site = Site.open(tmp_path, BUNDLE, timeout=60)
            for n in range(5):
                site.add("prompt", f"{name} {n}", f"{name} {n}".encode())
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
