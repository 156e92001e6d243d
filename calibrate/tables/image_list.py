"""A list of images, one to a line: which rows of a table of labels are the test set."""

from __future__ import annotations

import re
from pathlib import Path

from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.labels import Labels
from promptray.calibrate.tables.text_lines import read_lines


def only_listed(labels: Labels, path: Path) -> Labels:
    """Return the labels of the listed images, in the order of the labels.

    Parameters
    ----------
    labels : Labels
    path : Path
        Text file. A line, or its first word, is an image as the labels name it. What follows the word, after
        a space or a tab, is not read, so that lists with labels behind the name can be used as they are.

    Raises
    ------
    TableError
        ``table.not-found``, ``table.format``; ``table.image`` if a listed image has no labels.
    """
    try:
        lines = read_lines(path)
    except OSError as error:
        raise TableError(
            "table.not-found",
            f"the list cannot be read: {error.strerror}",
            artefact=path.name,
            cure="check --only",
        ) from None
    except UnicodeDecodeError:
        raise TableError(
            "table.format", "the list is not UTF-8 text", artefact=path.name, cure="save it as UTF-8"
        ) from None
    labelled = {image.file for image in labels.images}
    listed = {
        line if line in labelled else re.split("[ \t]", line, maxsplit=1)[0]: number
        for number, line in enumerate(map(str.strip, lines), 1)
        if line
    }
    if not listed:
        raise TableError(
            "table.format", "the list names no image", artefact=path.name, cure="write one image to a line"
        )
    rows = [row for row, image in enumerate(labels.images) if image.file in listed]
    unlabelled = set(listed) - labelled
    if unlabelled:
        first = min(unlabelled, key=lambda name: listed[name])
        raise TableError(
            "table.image",
            "the list names images that have no labels",
            artefact=f"{path.name}, line {listed[first]}",
            expected=f"rows of {labels.table}",
            found=f"{len(unlabelled)} of {len(listed)} are not there",
            cure="use the list and the labels of the same collection",
        )
    return labels.select(rows)
