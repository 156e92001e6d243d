"""What the report says of the images: how many, which were refused, and proof of what was given."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from promptray.calibrate.accept.images import Scored, images_report
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage

GIVEN = ("a.png", "absent.png", "b.png")


def test_every_file_that_can_be_read_is_in_the_hash(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "b.png")  # nobody writes to it
    images = [LabelledImage(name, line) for line, name in enumerate(GIVEN, 2)]
    codes = {"line 3": "image.not-found", "line 4": "image.not-found"}
    scored = Scored({}, set(), pictures={0: "0" * 64}, refused=codes)
    report, part = images_report(images, ImageFolder(tmp_path), scored, 0.7)
    expected = f"{hashlib.sha256(b'one').hexdigest()}\n\n"
    assert report.files_sha256 == hashlib.sha256(expected.encode()).hexdigest()
    assert (report.given, report.scored, report.refused_by_code) == (3, 1, {"image.not-found": 2})
    assert [each.image for each in report.refused] == ["line 3", "line 4"]
    assert part.verdict == "passed"
    assert "2 of 3 images refused (66.7%, 2 x image.not-found)" in part.reason
    assert images_report(images, ImageFolder(tmp_path), scored, 0.6)[1].verdict == "refused"
