"""Opening, reading and verifying a bundle that is in order."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import BundleError
from tests import bundle_factory as factory


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return factory.write_plain(tmp_path / "chest.bundle")


def test_open_gives_manifest_and_hash(bundle: Bundle) -> None:
    opened = Bundle.open(str(bundle.path))
    raw = (bundle.path / "bundle.json").read_bytes()
    assert opened.hash == hashlib.sha256(raw).hexdigest() == bundle.hash
    assert opened.short_hash == opened.hash[:12]
    assert opened.manifest == bundle.manifest
    assert opened.path == bundle.path


def test_read_gives_the_bytes(bundle: Bundle) -> None:
    for name, content in factory.plain_files().items():
        assert bundle.read(name) == content


def test_read_refuses_what_is_not_listed(bundle: Bundle) -> None:
    for name in ("bundle.json", "../chest.bundle/parity.json", "nothing"):
        with pytest.raises(BundleError, match=r"lists no such file") as caught:
            bundle.read(name)
        assert caught.value.code == "bundle.unlisted-file"


def test_verify_hashes_everything_and_reports_progress(bundle: Bundle) -> None:
    seen: list[tuple[str, int, int]] = []
    checked = bundle.verify_files(lambda name, done, total: seen.append((name, done, total)))
    assert [file.name for file in checked] == ["bundle.json", *sorted(factory.plain_files())]
    assert all(
        file.sha256 == hashlib.sha256((bundle.path / file.name).read_bytes()).hexdigest() for file in checked
    )
    total = sum(map(len, factory.plain_files().values()))
    assert seen[-1][1:] == (total, total)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_verify_names_every_wrong_file(bundle: Bundle) -> None:
    for name in ("parity.json", "tokenizer.json"):
        content = bytearray((bundle.path / name).read_bytes())
        content[0] ^= 1
        (bundle.path / name).write_bytes(content)
    with pytest.raises(BundleError, match=r"2 files are wrong: parity\.json, tokenizer\.json") as caught:
        bundle.verify_files()
    assert caught.value.code == "bundle.hash"
    assert caught.value.expected is not None
    assert bundle.manifest.files["parity.json"].sha256 in caught.value.expected


def test_verify_notices_another_bundle_in_its_place(bundle: Bundle) -> None:
    factory.edited(bundle.path, lambda document: document.update(name="another"))
    with pytest.raises(BundleError, match="replaced by another"):
        bundle.verify_files()


def test_a_bundle_may_be_moved_and_copied(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    assert Bundle.open(tmp_path / "copy").hash == bundle.hash
    assert len(Bundle.open(tmp_path / "copy").verify_files()) == len(factory.plain_files()) + 1


def test_the_bundle_itself_may_be_reached_by_a_link(bundle: Bundle, tmp_path: Path) -> None:
    link = tmp_path / "current"
    try:
        link.symlink_to(bundle.path, target_is_directory=True)
    except OSError:
        pytest.skip("links need a privilege on this system")
    assert Bundle.open(link).hash == bundle.hash


def test_opening_reads_no_listed_file_and_writes_nothing(bundle: Bundle) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*")}
    for path in bundle.path.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    Bundle.open(bundle.path).verify_files()
    assert {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*")} == before


@pytest.mark.parametrize("fault", [PermissionError, FileNotFoundError])
@pytest.mark.parametrize("call", ["scandir", "lstat"])
def test_a_folder_that_cannot_be_listed_is_refused_by_name(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, call: str, fault: type[OSError]
) -> None:
    original = getattr(os, call)

    def fail(path: Any, *rest: Any, **options: Any) -> Any:
        if Path(path).name == {"scandir": "images", "lstat": "003.png"}[call]:
            raise fault(1, "not today")
        return original(path, *rest, **options)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(BundleError, match="cannot be listed") as caught:
        Bundle.open(bundle.path)
    assert (caught.value.code, caught.value.artefact) == ("bundle.missing-file", "golden/images/")


def test_the_seal_is_in_the_format_of_sha256sum(bundle: Bundle) -> None:
    assert (bundle.path / "bundle.sha256").stat().st_size == 78
    if not shutil.which("sha256sum"):
        pytest.skip("no sha256sum here")
    subprocess.run(["sha256sum", "-c", "bundle.sha256"], cwd=bundle.path, check=True, capture_output=True)


def test_a_manifest_of_another_layout_is_read(bundle: Bundle) -> None:
    """Another writer may indent differently or write defaults; only the seal's hash counts."""
    factory.edited(bundle.path, lambda document: document["door"].pop("minimum_side"))
    assert Bundle.open(bundle.path).manifest.door.minimum_side == 32


def test_relative_paths_and_dots_are_understood(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.path)
    assert Bundle.open(os.path.join("graphs", "..")).path == bundle.path
