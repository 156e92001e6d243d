"""``promptray engine``."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from promptray.cli.engine_table import COLUMNS, engine_documents, engine_rows, time_words
from promptray.cli.gate_images import (
    GateReports,
    labels_option,
    read_images,
    report_option,
    source_option,
)
from promptray.cli.named_path import NamedPath
from promptray.cli.output import (
    bundle_argument,
    json_option,
    print_json,
    print_table,
    progress,
    site_choice,
    site_option,
)
from promptray.cli.threads import ScoringCommand
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import EngineBackend, EngineSet, HeadGate
from promptray.runtime.engines.settings import MOST_WORKSPACE, Settings
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.site_choice import open_site

if TYPE_CHECKING:
    from promptray.calibrate.engines.build import Outcome
    from promptray.calibrate.engines.library import Library
    from promptray.calibrate.image_set import ImageSet, Progress

_PATH = NamedPath(path_type=Path)
_BACKENDS: tuple[EngineBackend, ...] = ("tensorrt", "tensorrt_rtx", "onnxruntime-cuda")
_HOW_LONG = {
    "tensorrt": "A first build takes minutes, on a Jetson many; TensorRT gives no estimate.",
    "tensorrt_rtx": "TensorRT-RTX takes seconds to a minute for each graph.",
}


@click.command("engine", cls=ScoringCommand)
@bundle_argument
@click.option("--backend", type=click.Choice(_BACKENDS), help="Default: the first of these that works here.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8-qdq", "fp8-qdq"]),
    help="Default: the narrowest that the bundle has graphs in.",
)
@click.option("--images", type=_PATH, help="Folder of images to hold the gates of docs/gates.md on, as well.")
@labels_option
@source_option
@report_option
@click.option("--rebuild", is_flag=True, help="Build again what the site has, or what the bundle carries.")
@click.option("--without-prepare", is_flag=True, help="Leave out the engine that prepares images.")
@click.option(
    "--workspace",
    type=click.IntRange(1, MOST_WORKSPACE >> 20),
    metavar="MIB",
    help="Most scratch memory of a build.",
)
@click.option(
    "--timing-cache",
    type=NamedPath(),
    metavar="DIR",
    help="Folder of TensorRT's timing caches, or none (default: user cache).",
)
@click.option(
    "--no-cuda-graphs",
    is_flag=True,
    help="Gate and use the engines with every layer queued anew, where they cannot be recorded.",
)
@click.option("--list", "listed", is_flag=True, help="List the engines of the site, and build nothing.")
@click.option("--remove", metavar="KEY", help="Remove engines of the site, and build nothing.")
@site_option
@json_option
def command(
    bundle: str, site: str | None, listed: bool, remove: str | None, as_json: bool, **options: Any
) -> None:
    """Build the engines of a bundle for the GPU of this machine, gate them on it, and keep them.

    All graphs that score are compiled. The engines must then give the golden pictures the original's scores;
    with --images the gates of docs/gates.md are held, too, against the bundle's fp32 graphs on this machine's
    CPU. INT8 and FP8 engines must be faster than FP16 ones. Only engines that pass are kept, in the site
    directory; `promptray score BUNDLE ... --backend tensorrt` uses them. Nothing is ever built again by
    itself: after an update of the library, run this again.

    \b
    Examples:
      promptray engine chest.bundle
      promptray engine chest.bundle --precision fp16 --images films --labels films.csv --report gates
      promptray engine chest.bundle --backend onnxruntime-cuda
      promptray engine chest.bundle --list
      promptray engine chest.bundle --remove tensorrt-0123456789abcdef0123456789abcdef
    """
    given = [name for name, value in options.items() if value and name not in ("source", "timing_cache")]
    removing = remove is not None
    if (listed or removing) and (given or (listed and removing)):
        raise click.UsageError("--list and --remove stand alone: they build nothing")
    if options["labels"] and not options["images"]:
        raise click.UsageError("--labels needs --images, the folder of the images")
    opened = Bundle.open(bundle)
    store = EngineStore(open_site(site_choice(site), opened.hash), opened.manifest)
    if remove is not None:
        store.remove(remove)
        print_json({"removed": remove}) if as_json else click.echo(f"Removed {remove}.")
    elif listed:
        _list(store, as_json)
    else:
        _build(_Command(opened, store, options), as_json)


def _list(store: EngineStore, as_json: bool) -> None:
    found = engine_documents(store)
    if as_json:
        print_json({"engines": found})
    elif found:
        print_table("Engines", COLUMNS, engine_rows(found))
    else:
        click.echo("This site has no engines of the bundle.")


@dataclass(frozen=True)
class _Command:
    """A build that was asked for."""

    bundle: Bundle
    store: EngineStore
    options: dict[str, Any]

    @property
    def settings(self) -> Settings:
        """How engines are built: as the bundle's recipe says, with what was asked for here."""
        engines = self.bundle.manifest.engines
        own = engines.settings if engines else Settings()
        megabytes = self.options["workspace"]
        return own if megabytes is None else msgspec.structs.replace(own, workspace_bytes=megabytes << 20)

    @property
    def timing_caches(self) -> Path | None:
        """Folder of timing caches; None for none."""
        from promptray.calibrate.engines.timing_cache import default_folder

        named = self.options["timing_cache"]
        return None if named == "none" else default_folder() if named is None else Path(named)

    def library(self) -> Library:
        """Find the library that was asked for, or the first that works here."""
        from promptray.calibrate.engines.installed import open_library

        if self.options["backend"]:
            return open_library(self.options["backend"], self.timing_caches)
        refused = {}
        for backend in _BACKENDS:
            try:
                found = open_library(backend, self.timing_caches)
            except PromptRayError as error:
                refused[backend] = error.message
                continue
            click.echo(f"Backend: {backend}, the first that works here.", err=True)
            return found
        raise PromptRayError(
            "engine.unavailable",
            "nothing on this machine builds engines",
            expected=f"a GPU, and one of {', '.join(_BACKENDS)}",
            found="; ".join(f"{backend}: {message}" for backend, message in refused.items()),
            cure="run `promptray doctor`; docs/engines.md says what to install",
        )

    def images(self, folder: Path, report: Progress) -> ImageSet | None:
        """Read the images to gate on; `folder` keeps hashes meanwhile."""
        if self.options["images"] is None:
            return None
        return read_images(self.bundle.manifest, self.options, folder, report)


def _build(asked: _Command, as_json: bool) -> None:
    from promptray.calibrate.engines.build import Asked, build_set

    library = asked.library()
    with tempfile.TemporaryDirectory() as folder, progress("building engines") as report:
        reports = GateReports(asked.options["report"], asked.bundle.manifest)
        wanted = Asked(
            precision=asked.options["precision"],
            settings=asked.settings,
            images=asked.images(Path(folder), report),
            rebuild=asked.options["rebuild"],
            prepare=not asked.options["without_prepare"],
            cuda_graphs=not asked.options["no_cuda_graphs"],
        )
        outcome = build_set(
            asked.bundle,
            asked.store,
            library,
            wanted,
            progress=_warning_first(report, library),
            reported=reports.write,
        )
    used = asked.store.find(library.backend, library.version, library.device).facts
    _tell(outcome, used, as_json)
    on_images = [each.key for each in asked.store.sets if each.gate.images]
    if on_images and not outcome.facts.gate.images:
        click.echo(
            f"Note: these engines passed on golden pictures alone, others of this site on images, too "
            f"({', '.join(on_images)}): --images DIR gates these as well.",
            err=True,
        )


def _warning_first(report: Progress, library: Library) -> Progress:
    """Return a progress that says, before the first graph is compiled, that it takes long."""
    said = False

    def told(stage: str, message: str, fraction: float) -> None:
        nonlocal said
        if stage == "compile" and not said:
            said = True
            how_long = _HOW_LONG[library.backend]
            click.echo(f"Building for {library.device.title}. {how_long} Ctrl-C ends it cleanly.", err=True)
        report(stage, message, fraction)

    return told


def _share(head: HeadGate) -> float:
    """Return how much of its bound a head's error takes; of a bound of 0, which it kept, nothing."""
    return head.score_error / head.score_tolerance if head.score_tolerance else 0.0


def _tell(outcome: Outcome, used: EngineSet, as_json: bool) -> None:
    facts = outcome.facts
    if as_json:
        print_json(
            {
                "key": facts.key,
                "gate_title": facts.gate.title,
                "plans": outcome.plans,
                "gated_now": outcome.gated,
                "used_key": used.key,
                "engine": msgspec.to_builtins(facts),
            }
        )
        return
    if not outcome.gated:
        click.echo(f"The site has these engines, built {facts.built}: {facts.title}")
    else:
        click.echo(f"Engines {outcome.plans}, gated on this device: {facts.title}")
    click.echo(f"key   {facts.key}")
    for head in facts.gate.heads:
        maps = "" if head.map_error is None else f", of a map {head.map_error:.2g} ({head.map_tolerance:.2g})"
        click.echo(
            f"gate  {head.head}: golden scores are off by {head.score_error:.2g} at most (bound "
            f"{head.score_tolerance:.2g}){maps}"
        )
    if prepare := facts.gate.prepare:
        worst = max(prepare.heads, key=_share)
        click.echo(
            f"gate  prepared on the device: pixels are off by {prepare.level_error:.2g} grey levels at most, "
            f"golden scores of {worst.head} by {worst.score_error:.2g} (bound {worst.score_tolerance:.2g})"
        )
    if facts.gate.images:
        click.echo(f"gate  {facts.gate.title}: every gate of docs/gates.md passed")
    click.echo(f"time  {time_words(facts.speed)} for one image")
    if not facts.cuda_graphs:
        click.echo("      without CUDA graphs: every layer is queued anew for each call")
    if used.key == facts.key:
        click.echo(f"Use it: promptray score BUNDLE IMAGE --backend {facts.backend}")
    else:
        better = "passed gates on images" if used.gate.images and not facts.gate.images else "is faster"
        click.echo(f"Scoring uses another set of this site, which {better}: {used.key}")
