"""Broken and hostile bundles, each with the refusal it must get.

A refusal has a stable code, names the file, says expected and found where both exist, and gives a cure.
"""

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.names import check_names
from promptray.runtime.bundle.parse import parse_manifest
from tests import bundle_factory as factory
from tests.runtime.bundle.refusals import opening, refused

FLIPS = 200


# A changed byte


def flips(content: bytes, seed: str) -> Iterator[bytes]:
    """The content with one bit of one byte changed, at seeded places; all places where there are few."""
    generator = random.Random(seed)
    places = range(len(content))
    for place in places if len(content) <= FLIPS else generator.sample(places, FLIPS):
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        yield bytes(changed)


@pytest.mark.parametrize("name", sorted(factory.plain_files()))
def test_a_flipped_byte_in_a_listed_file(bundle: Bundle, name: str) -> None:
    content = (bundle.path / name).read_bytes()
    listed = bundle.manifest.files[name].sha256
    for changed in flips(content, name):
        (bundle.path / name).write_bytes(changed)
        error = refused("bundle.hash", lambda: bundle.read(name))
        assert error.artefact == name
        assert listed in str(error.expected)
        assert "sha256" in str(error.found)
        assert listed not in str(error.found)


def test_a_flipped_byte_in_the_manifest(bundle: Bundle) -> None:
    content = (bundle.path / "bundle.json").read_bytes()
    for changed in flips(content, "bundle.json"):
        (bundle.path / "bundle.json").write_bytes(changed)
        error = refused("bundle.seal", opening(bundle))
        assert error.artefact == "bundle.json"
        assert bundle.hash in str(error.expected)
        assert "sha256" in str(error.found)


def test_a_flipped_byte_in_the_manifests_white_space(bundle: Bundle) -> None:
    content = (bundle.path / "bundle.json").read_bytes()
    blanks = [place for match in re.finditer(rb"\n *", content) for place in range(*match.span())]
    for place in random.Random(7).sample(blanks, FLIPS):
        changed = content[:place] + (b"\t" if place % 2 else b"\r") + content[place + 1 :]
        assert json.loads(changed) == json.loads(content)
        (bundle.path / "bundle.json").write_bytes(changed)
        refused("bundle.seal", opening(bundle))


def test_a_flipped_byte_in_the_seal(bundle: Bundle) -> None:
    content = (bundle.path / "bundle.sha256").read_bytes()
    for changed in flips(content, "seal"):
        (bundle.path / "bundle.sha256").write_bytes(changed)
        error = refused("bundle.seal", opening(bundle))
        assert "bundle.sha256" in str(error)
        assert bundle.hash in str(error)


@pytest.mark.parametrize("name", ["bundle.json", "bundle.sha256", factory.BANK, "golden/images/003.png"])
@pytest.mark.parametrize("change", ["shorter", "longer", "empty", "line ending"])
def test_a_file_of_another_length(bundle: Bundle, name: str, change: str) -> None:
    path = bundle.path / name
    content = path.read_bytes()
    changes = {
        "shorter": content[:-1],
        "longer": content + b"\n",
        "empty": b"",
        "line ending": content[:-1] + b"\r\n",
    }
    path.write_bytes(changes[change])
    code = "bundle.seal" if name.startswith("bundle.") else "bundle.hash"
    error = refused(code, opening(bundle))
    assert error.found


def test_a_file_changed_after_opening(bundle: Bundle) -> None:
    """What is loaded is hashed: an earlier look at the directory is not trusted."""
    path = bundle.path / factory.BANK
    content = path.read_bytes()
    for changed in (content + b"x", content[:-1], b"", content[:-1] + bytes([content[-1] ^ 1])):
        path.write_bytes(changed)
        error = refused("bundle.hash", lambda: bundle.read(factory.BANK))
        assert f"{len(changed)} bytes" in str(error.found)
    path.unlink()
    refused("bundle.missing-file", lambda: bundle.read(factory.BANK))
    refused("bundle.missing-file", bundle.verify_files)


def test_two_files_exchanged(bundle: Bundle) -> None:
    one, two = bundle.path / "golden/images/000.png", bundle.path / "golden/images/001.png"
    one.rename(bundle.path / "x")
    two.rename(one)
    (bundle.path / "x").rename(two)
    refused("bundle.hash", opening(bundle))


# The set of files


@pytest.mark.parametrize("name", ["bundle.sha256", *sorted(factory.plain_files())])
def test_a_missing_file(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    assert refused("bundle.missing-file", opening(bundle)).artefact == name


@pytest.mark.parametrize(
    "name", [".DS_Store", "notes.txt", "golden/images/Thumbs.db", "bundle.json.bak", "x/y.txt"]
)
def test_an_extra_file(bundle: Bundle, name: str) -> None:
    (bundle.path / name).parent.mkdir(exist_ok=True)
    (bundle.path / name).write_bytes(b"")
    error = refused("bundle.unlisted-file", opening(bundle))
    assert str(error.artefact).rstrip("/") in name
    refused("bundle.unlisted-file", bundle.verify_files)


def test_an_extra_empty_folder(bundle: Bundle) -> None:
    (bundle.path / "golden" / "more").mkdir()
    assert refused("bundle.unlisted-file", opening(bundle)).artefact == "golden/more/"


def test_a_signature_that_nobody_checks(bundle: Bundle) -> None:
    (bundle.path / "bundle.sig").write_bytes(b"looks trustworthy")
    error = refused("bundle.unlisted-file", opening(bundle))
    assert "signature" in error.message
    (bundle.path / "bundle.sig").unlink()
    assert Bundle.open(bundle.path).hash == bundle.hash


def test_no_bundle_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        assert str(path) in str(refused("bundle.not-found", lambda path=path: Bundle.open(path)).artefact)


def test_a_file_that_is_a_folder(bundle: Bundle) -> None:
    (bundle.path / "parity.json").unlink()
    (bundle.path / "parity.json").mkdir()
    refused("bundle.unlisted-file", opening(bundle))


# Links and names


@pytest.mark.parametrize("name", ["parity.json", "bundle.json", "bundle.sha256", "golden/images/003.png"])
def test_a_link_to_the_right_content(bundle: Bundle, tmp_path: Path, name: str) -> None:
    path = bundle.path / name
    path.rename(tmp_path / "elsewhere")
    _link(path, tmp_path / "elsewhere")
    error = refused("bundle.unsafe-path", opening(bundle))
    assert error.artefact == name
    assert "link" in error.message


def test_a_linked_folder(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "golden").rename(tmp_path / "golden")
    _link(bundle.path / "golden", tmp_path / "golden")
    assert refused("bundle.unsafe-path", opening(bundle)).artefact == "golden"


def test_an_extra_link_in_a_loop(bundle: Bundle) -> None:
    _link(bundle.path / "golden" / "again", bundle.path)
    refused("bundle.unsafe-path", opening(bundle))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", ["parity.json", "bundle.json", "bundle.sha256"])
def test_a_pipe_does_not_hang(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    os.mkfifo(bundle.path / name)
    assert refused("bundle.unsafe-path", opening(bundle)).artefact == name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_file_that_became_a_pipe_after_opening_does_not_hang(bundle: Bundle) -> None:
    opened = Bundle.open(bundle.path)
    (bundle.path / "parity.json").unlink()
    os.mkfifo(bundle.path / "parity.json")
    refused("bundle.unsafe-path", lambda: opened.read("parity.json"))


def test_a_path_too_long_for_the_system() -> None:
    refused("bundle.not-found", lambda: Bundle.open("a" * 5000))


def _link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("links need a privilege on this system")


UNSAFE = [
    "", "/etc/passwd", "../outside", "a/../../outside", "a/./b", "a//b", "a/", "/", ".", "..", "C:/x", "C:x",
    "c:\\x", "\\\\server\\share", "a\\b", "//server/share", "file:stream", "nul", "NUL", "con.json",
    "a/COM1.onnx", "lpt9", "dot.", "space ", " space", ".hidden", "-rf", "a\x00b", "a\nb", "é.json",
    "a" * 201,
    "/".join("abcdefghi"), "a?b", "a*", "bundle.json", "BUNDLE.JSON", "bundle.sha256", "bundle.sig",
    "~/x", "a|b", "a\u2215b", "a\n",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
def test_an_unsafe_name_in_files(bundle: Bundle, name: str) -> None:
    factory.edited(bundle.path, lambda doc: doc["files"].update({name: {"sha256": "0" * 64, "size": 0}}))
    assert repr(name) in str(refused("bundle.unsafe-path", opening(bundle)).artefact)


@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
def test_an_unsafe_name_elsewhere(bundle: Bundle, name: str) -> None:
    factory.edited(bundle.path, lambda doc: doc["golden"]["images"].__setitem__(3, name))
    refused("bundle.format" if name == "" else "bundle.unsafe-path", opening(bundle))


@pytest.mark.parametrize("names", [["a", "A"], ["x/a", "X/b", "x"], ["golden", "golden/a"]])
def test_names_that_collide_on_some_system(names: list[str]) -> None:
    refused("bundle.format", lambda: check_names(names))


def test_too_many_files() -> None:
    error = refused("bundle.format", lambda: parse_manifest(_with_files(5000)))
    assert "4096" in str(error)


def _with_files(count: int) -> bytes:
    document = json.loads(factory.listed(factory.document()))
    document["files"].update({f"extra/{n}": {"sha256": "0" * 64, "size": 0} for n in range(count)})
    return json.dumps(document).encode()


# A bank of another model


def test_a_bank_of_another_bundle_put_in_its_place(bundle: Bundle) -> None:
    facts = bundle.manifest.files[factory.BANK]
    (bundle.path / factory.BANK).write_bytes(b"x" * facts.size)
    refused("bundle.hash", lambda: Bundle.open(bundle.path).read(factory.BANK))


def test_a_bank_id_that_is_not_its_identity(bundle: Bundle) -> None:
    factory.edited(bundle.path, lambda doc: doc["heads"][0]["bank"]["identity"].update(weights="1f" * 32))
    assert "$.heads[0].bank.id is" in refused("bundle.format", opening(bundle)).message


def test_wrong_hash_or_size_in_a_manifest_sealed_again(bundle: Bundle) -> None:
    factory.edited(bundle.path, lambda doc: doc["files"]["parity.json"].update(sha256="0" * 64))
    refused("bundle.hash", lambda: Bundle.open(bundle.path).read("parity.json"))
    factory.edited(bundle.path, lambda doc: doc["files"]["parity.json"].update(size=0))
    refused("bundle.hash", opening(bundle))
    factory.edited(bundle.path, lambda doc: doc["files"]["parity.json"].update(size=10**6))
    refused("bundle.hash", opening(bundle))
