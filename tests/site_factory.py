"""A site directory for tests, and what every refusal of it must carry."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from promptray.runtime.errors import PromptRayError
from promptray.runtime.site import Site

HEAD = "chest"
BUNDLE = hashlib.sha256(b"some bundle").hexdigest()
PAYLOAD = bytes(range(256)) * 3


def filled(root: Path) -> Site:
    """Two prompts and a removal: revision 4."""
    site = Site.open(root, BUNDLE)
    site.add("prompt", HEAD, "rib fracture", PAYLOAD, {"display": "Rib fracture", "code": None})
    site.add("prompt", HEAD, "Rippenbruch", PAYLOAD[::-1])
    site.add("removed-prompt", HEAD, "hernia")
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
