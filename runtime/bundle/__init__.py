"""The bundle: an immutable directory that holds one model ready to score (``docs/bundle-format.md``)."""

from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.bundle.reader import Bundle
from promptray.runtime.bundle.writer import write_bundle

__all__ = ["Bundle", "Manifest", "write_bundle"]
