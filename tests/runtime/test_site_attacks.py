"""A changed, foreign or hostile site directory, each with the refusal it must get."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bundle.manifest import bank_id
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.site import Site
from promptray.runtime.wording import Wording
from tests import bundle_factory as factory
from tests.site_factory import BUNDLE, HEAD, filled, index_of, refused, reopened


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return filled(tmp_path)


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
        refused("site.corrupt", lambda: site.add("prompt", HEAD, "key", b"payload"))


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
    site.remove("prompt", HEAD, entry.key)  # the cure works
    assert [entry.key for entry in reopened(site).verify()] == ["Rippenbruch", "hernia"]


def test_a_missing_index(site: Site) -> None:
    index_of(site).unlink()
    assert "no index" in refused("site.corrupt", lambda: reopened(site)).message
    refused("site.corrupt", lambda: site.add("prompt", HEAD, "key", b"payload"))


def test_an_older_revision_is_never_taken_instead(site: Site) -> None:
    older = index_of(site).read_bytes()
    name = index_of(site).name
    site.add("prompt", HEAD, "key", b"payload")
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


ENTRY = {"kind": "prompt", "head": HEAD, "key": "k", "payload": {"sha256": "0" * 64, "size": 1}, "facts": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 3}, {"revision": "4"}, {"format": "promptray-bundle"}, {"more": 1}, {"entries": None},
        {"entries": [{**ENTRY, "kind": "plugin"}]}, {"entries": [ENTRY, ENTRY]},
        {"entries": [{**ENTRY, "kind": "engine"}]}, {"entries": [{**ENTRY, "head": ""}]},
        {"entries": [{**ENTRY, "payload": None}]},
        {"entries": [{**ENTRY, "kind": "removed-prompt"}]}, {"entries": [{**ENTRY, "key": "../../x"}]},
        {"entries": [{**ENTRY, "payload": {"sha256": "../../../etc/passwd", "size": 1}}]},
    ],
    ids=ascii,
)  # fmt: skip
def test_an_index_that_is_sealed_but_wrong(site: Site, changes: dict[str, Any]) -> None:
    _seal_index(site, _edited(site, **changes), 4)
    refused("site.corrupt", lambda: reopened(site))


@pytest.mark.parametrize("version", [0, 3, 5, "1", None])
def test_an_unknown_version(site: Site, version: object) -> None:
    _seal_index(site, _edited(site, format_version=version, entries="of another kind"), 4)
    error = refused("bundle.version", lambda: reopened(site))
    assert repr(version) in str(error.found)
    assert ("calibrate and build" if version in (0, 3) else "upgrade") in str(error.cure)


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
    rule = factory.manifest().heads[0].bank
    rows = {"prompts": 1, "rows": 3}
    tensors = {
        tensor.name: np.ones([rows.get(str(dim), dim) for dim in tensor.dims[1:]], np.float32)  # type: ignore[misc]
        for tensor in rule.tensors
    }
    entry = BankEntry("k", (Wording(text="p", cleaned="p", words=1, truncated=False),), tensors)
    site = Site.open(tmp_path, BUNDLE)
    stored = site.add("prompt", HEAD, "k", pack(PromptBank(rule, [entry])))
    assert unpack(site.read(stored), rule, artefact="k").keys == ("k",)
    identity = {**rule.identity, "weights": "another"}
    own = factory.head()
    own["bank"].update(identity=identity, id=bank_id(identity))
    other = factory.manifest(heads=[own]).heads[0].bank
    error = refused("bundle.foreign-bank", lambda: unpack(site.read(stored), other, artefact="site prompt k"))
    assert other.id[:12] in str(error.expected)
    assert rule.id[:12] in str(error.found)
