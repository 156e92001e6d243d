"""A bundle is written whole or not at all."""

import os
from pathlib import Path

import pytest

from promptray.runtime.bundle import Bundle, write_bundle, writer
from promptray.runtime.errors import BundleError
from tests import bundle_factory as factory


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    files = factory.plain_files()
    first = write_bundle(tmp_path / "a.bundle", factory.manifest(), files)
    second = write_bundle(tmp_path / "b.bundle", factory.manifest(), dict(reversed(files.items())))
    assert first.hash == second.hash
    assert first.path == tmp_path / "a.bundle"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bundle", "b.bundle"]


def test_files_may_be_given_as_paths_which_are_not_recorded(tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = dict(factory.plain_files())
    source = tmp_path / "private place" / "large.onnx"
    source.parent.mkdir()
    source.write_bytes(b"\0" * (5 << 20))
    files["graphs/image/fp32-20.onnx"] = source
    bundle = write_bundle(tmp_path / "a.bundle", factory.manifest(), files)
    assert bundle.read("graphs/image/fp32-20.onnx") == source.read_bytes()
    assert b"private place" not in (bundle.path / "bundle.json").read_bytes()
    assert str(tmp_path).encode() not in (bundle.path / "bundle.json").read_bytes()


def test_what_nobody_refers_to_may_be_listed(tmp_path: Path) -> None:
    files = {**factory.plain_files(), "MODEL_CARD.md": b"# Card\n"}
    assert write_bundle(tmp_path / "a.bundle", factory.manifest(), files).read("MODEL_CARD.md") == b"# Card\n"


@pytest.mark.parametrize("kind", ["bundle", "file", "empty folder", "dangling link"])
def test_an_existing_output_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "a.bundle"
    if kind == "bundle":
        factory.write_plain(target)
    elif kind == "file":
        target.write_bytes(b"mine")
    elif kind == "empty folder":
        target.mkdir()
    else:
        try:
            target.symlink_to(tmp_path / "nowhere")
        except OSError:
            pytest.skip("links need a privilege on this system")
    with pytest.raises(BundleError) as caught:
        factory.write_plain(target)
    assert caught.value.code == "bundle.exists"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bundle"]


def test_an_output_made_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bundle"
    content = writer._write_content

    def slow(*arguments: object) -> None:
        content(*arguments)  # type: ignore[arg-type]
        target.mkdir()

    monkeypatch.setattr(writer, "_write_content", slow)
    with pytest.raises(BundleError) as caught:
        factory.write_plain(target)
    assert caught.value.code == "bundle.exists"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bundle"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("calls", [0, 1, 10, 24])
def test_nothing_stays_of_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, calls: int
) -> None:
    left = calls

    def failing(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise error

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(type(error)):
        factory.write_plain(tmp_path / "a.bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    files = factory.plain_files()
    del files["tokenizer.json"]
    with pytest.raises(BundleError, match=r"tokenizer\.json") as caught:
        write_bundle(tmp_path / "a.bundle", factory.manifest(), files)
    assert caught.value.code == "bundle.missing-file"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "C:/evil", "a\\b", "bundle.json", "bundle.sig", "con.txt"]
)
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "a.bundle", factory.manifest(), {**factory.plain_files(), name: b""})
    assert caught.value.code == "bundle.unsafe-path"
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_breaks_the_schema_is_refused(tmp_path: Path) -> None:
    """Structs built in code are not checked when they are made, so the writer reads back what it wrote."""
    model = {"licence": "", "intended_use": "x", "training_data": "y"}
    broken = factory.unchecked_model(factory.manifest(), **model)
    with pytest.raises(BundleError, match="licence") as caught:
        write_bundle(tmp_path / "a.bundle", broken, factory.plain_files())
    assert caught.value.code == "bundle.format"
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_opens(tmp_path: Path) -> None:
    bundle = factory.write_plain(tmp_path / "a.bundle")
    assert Bundle.open(bundle.path).hash == bundle.hash
    assert bundle.verify_files()
