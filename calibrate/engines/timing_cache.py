"""TensorRT's timing cache between builds: what it measured once on this device, it need not measure again.

It is a help and no promise: one that is damaged or of another device is left out, and no engine is believed
for its sake.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from promptray.runtime.disk import write_new
from promptray.runtime.engines.facts import Device

_LARGEST = 1 << 30
_DIGEST = hashlib.sha256().digest_size


def default_folder() -> Path:
    """Return the folder of timing caches in the user's cache folder; it need not exist."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("promptray", appauthor=False)) / "tensorrt"


class TimingCache:
    """The timing cache of one library version and device: a SHA-256, and the content that has it.

    Parameters
    ----------
    folder : Path or None
        None: nothing is read, and nothing kept.
    backend, version, device
        Whose it is.
    """

    def __init__(self, folder: Path | None, backend: str, version: str, device: Device) -> None:
        facts = (backend, version, device.name, device.compute_capability, str(device.multiprocessors))
        name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]
        self._path = None if folder is None else folder / f"{name}.timing"

    def read(self) -> bytes | None:
        """Return what was kept, or None where there is none or it was damaged."""
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                raw = file.read(_LARGEST + 1)
        except OSError:
            return None
        content = raw[_DIGEST:]
        whole = len(raw) <= _LARGEST and content and hashlib.sha256(content).digest() == raw[:_DIGEST]
        return content if whole else None

    def keep(self, content: bytes | None) -> None:
        """Keep what a build measured. A folder that cannot be written is no reason to lose an engine."""
        if self._path is None or not content:
            return
        partial = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_new(partial, hashlib.sha256(content).digest() + content)
                os.replace(partial, self._path)
            finally:
                partial.unlink(missing_ok=True)
