"""How a bundle is opened: here, with other threads, in a new process, or its backend alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptray.runtime.backends import Backend, GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.image_preparation import Where
from promptray.runtime.measured_scorer import open_measured
from promptray.runtime.opened_parts import site_backend
from promptray.runtime.scorer import Scorer
from promptray.runtime.site_choice import USER_SITE, SiteChoice, open_site


@dataclass(frozen=True)
class Opening:
    """The arguments of ``Scorer.open``."""

    bundle: Path
    backend: str = "auto"
    site: SiteChoice = USER_SITE
    threads: int | None = None
    strict: bool = False
    gpu: GpuOptions | None = None
    prepare: Where = "cpu"
    reduced_decode: bool = False
    reproducible: bool = False

    def scorer(self) -> Scorer:
        """Open the bundle; a lower resolution is measured whether or not it passed its gate."""
        return open_measured(
            self.bundle, backend=self.backend, site=self.site, threads=self.threads, strict=self.strict,
            gpu=self.gpu, prepare=self.prepare, reduced_decode=self.reduced_decode,
            reproducible=self.reproducible,
        )  # fmt: skip

    def scorer_alike(self, like: Scorer, threads: int) -> Scorer:
        """Open the bundle on an open scorer's backend of the processor, as it is but for its threads."""
        return open_measured(
            self.bundle, backend=like.backend.name, site=self.site, threads=threads, strict=self.strict,
            host=like.backend.settings, reduced_decode=self.reduced_decode,
            reproducible=self.reproducible,
        )  # fmt: skip

    def engine_room(self, bundle: Bundle) -> Backend:
        """Return the backend that scores, without a scorer."""
        local = open_site(self.site, bundle.hash)
        return site_backend(
            self.backend, bundle, local, threads=self.threads, gpu=self.gpu, prepares=False,
            reproducible=self.reproducible,
        )[0]  # fmt: skip

    @property
    def plain(self) -> Mapping[str, Any]:
        """The same as plain values, without `bundle` and `gpu`: what a new process can be told."""
        found = {
            "backend": self.backend,
            "threads": self.threads,
            "strict": self.strict,
            "prepare": self.prepare,
            "reduced_decode": self.reduced_decode,
            "reproducible": self.reproducible,
        }
        if self.site is not USER_SITE:
            found["site"] = None if self.site is None else str(self.site)
        return found

    @property
    def plain_gpu(self) -> Mapping[str, Any] | None:
        """The fields of `gpu`."""
        return None if self.gpu is None else asdict(self.gpu)
