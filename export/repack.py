"""A bundle and what a site changed of its findings -> a new bundle. Needs nothing beyond the edge install.

Findings the site added are shipped by the new bundle, those it does not use are left out. Of an added finding
no original model is at hand, so its golden answers are those of the fp32 graphs, which the report says. A
gate of changed graphs (quantised, distilled) was held with just the bundle's bank: such a bundle is refused.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from promptray.export.repacked_engines import RepackedPlan, repacked_engines
from promptray.export.repacked_golden import repacked_golden
from promptray.export.repacked_report import repacked_report
from promptray.runtime.alternatives import require_alternatives
from promptray.runtime.backends.choice import choose_backend
from promptray.runtime.bank_file import pack
from promptray.runtime.bundle import Bundle, write_bundle
from promptray.runtime.bundle.manifest import ALTERNATIVES, Head, Manifest, Repacking
from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.errors import BundleError
from promptray.runtime.fixed_set import fixed_set
from promptray.runtime.golden import check_golden
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.prompts import PromptBank
from promptray.runtime.site import Site
from promptray.runtime.site_calibration import CalibrationFile, SiteCalibration, site_calibrations
from promptray.runtime.site_choice import USER_SITE, SiteChoice, open_site
from promptray.runtime.site_prompts import ActiveFinding, with_site
from promptray.runtime.text_check import check_text

Progress = Callable[[str, str, float], None]


@dataclass(frozen=True)
class Content:
    """The new bundle before it is written: same facts, same files."""

    manifest: Manifest
    files: Mapping[str, bytes | Path]

    @property
    def short_hash(self) -> str:
        """Name for errors."""
        return "repacked"

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        content = self.files[name]
        return content if isinstance(content, bytes) else content.read_bytes()


@dataclass(frozen=True)
class Repacked:
    """What became of a bundle and a site.

    Attributes
    ----------
    bundle : Bundle
        The new one.
    step : Repacking
        From which bundle and revision of the site; what was added and removed.
    groups : tuple of str
        Groups of alternatives that went with a finding of theirs.
    calibrated : tuple of str
        Findings whose calibration the site directory now holds for the new bundle, too.
    uncalibrated : tuple of str
        Those whose calibration does not hold any more: another wording, or no such finding.
    engines : tuple of str
        Keys of the site's engines, which were gated with the old bundle and are left with it.
    plans : tuple of RepackedPlan
        The bundle's plans: kept, or left out where they take fewer prompts than it now has findings.
    """

    bundle: Bundle
    step: Repacking
    groups: tuple[str, ...]
    calibrated: tuple[str, ...]
    uncalibrated: tuple[str, ...]
    engines: tuple[str, ...]
    plans: tuple[RepackedPlan, ...]


def repack(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    site: SiteChoice = USER_SITE,
    progress: Progress = lambda stage, message, fraction: None,
) -> Repacked:
    """Make a new bundle of a bundle and what a site changed of its findings.

    Parameters
    ----------
    path : path
        The bundle. Every file is hashed, and its golden images are scored on this machine, first.
    output : path
        The bundle directory to make; it must not exist.
    site : path or USER_SITE
        The site directory. Its calibrations stay there, for the new bundle under its own hash.
    progress : callable
        Called with (stage, message, fraction).

    Raises
    ------
    BundleError
        ``repack.nothing`` where the site changed no finding; ``repack.ungated`` for a bundle of changed
        graphs; ``bundle.*``; ``site.*``.
    PromptError
        ``prompt.fixed-set`` where no finding can be changed.
    BuildError
        ``gate.failed`` where the new bundle's graphs miss a bound.
    ScoringError
        ``backend.*`` where the bundle's graphs are for another machine.
    PromptRayError
        ``output.in-bundle``.
    """
    require_outside(Path(output).parent)
    if os.path.lexists(output):
        raise BundleError(
            "bundle.exists", "the output exists already", artefact=Path(output).name,
            cure="remove it or choose another output",
        )  # fmt: skip
    progress("verify", "reading every file", 0.0)
    bundle = Bundle.open(path)
    bundle.verify_files()
    manifest, before = bundle.manifest, read_parity(bundle)
    if manifest.free_head is None:
        raise fixed_set(", ".join(head.name for head in manifest.heads))
    local = open_site(site, bundle.hash)
    if local is None or not (local.entries("prompt") or local.entries("removed-prompt")):
        raise _nothing(bundle)
    local.verify()
    calibrations = site_calibrations(local, manifest)
    banks = {head.name: own_bank(bundle, head) for head in manifest.heads}
    active = with_site(_own(manifest, banks), manifest, local)
    step, head = _step(bundle, local, active[manifest.free_head.name]), manifest.free_head
    _require_possible(manifest, head, active[head.name])

    progress("verify", "scoring the golden images", 0.1)
    backend, _ = choose_backend("auto", threads=1, manifest=manifest)
    graphs = Graphs(bundle, backend, prompts_per_batch=None)
    check_golden(bundle, graphs, graphs.bind_all(banks))
    check_text(bundle, graphs)
    made, groups = _manifest(manifest, step, head, active)
    made, plans = _with_engines(made, head)
    dropped = {each.file for each in plans if not each.kept}
    bank = PromptBank(head.bank, [each.entry for each in active[head.name]])
    if head.relation in ALTERNATIVES:
        require_alternatives(bank)
    progress("golden", f"answers of {len(step.added)} added findings", 0.4)
    golden = repacked_golden(bundle, graphs, head, active[head.name])
    files: dict[str, bytes | Path] = {
        name: bundle.path / name for name in manifest.files if name not in dropped
    }
    content = Content(made, {**files, manifest.golden.tensors: golden, head.bank.file: pack(bank)})
    progress("check", "comparing the graphs with the golden answers", 0.5)
    report = repacked_report(content, before, lambda part: progress("check", "comparing", 0.5 + 0.4 * part))
    progress("bundle", f"writing {Path(output).name}", 0.95)
    written = write_bundle(output, made, {**content.files, manifest.parity: report})
    try:
        _require_same(bundle, written, {manifest.golden.tensors, head.bank.file, manifest.parity, *dropped})
        calibrated, left = _carry(calibrations, site, active, bundle.hash, written)
    except BaseException:  # also KeyboardInterrupt: a bundle without its site's calibrations is half the work
        shutil.rmtree(written.path, ignore_errors=True)
        raise
    progress("bundle", "done", 1.0)
    engines = tuple(entry.key for entry in local.entries("engine"))
    return Repacked(written, step, groups, calibrated, left, engines, plans)


def _own(manifest: Manifest, banks: Mapping[str, PromptBank]) -> dict[str, list[ActiveFinding]]:
    return {
        name: [
            ActiveFinding(finding, entry, "bundle")
            for finding, entry in zip(manifest.findings_of(name), bank, strict=True)
        ]
        for name, bank in banks.items()
    }


def _step(bundle: Bundle, local: Site, active: list[ActiveFinding]) -> Repacking:
    return Repacking(
        bundle=bundle.hash,
        site_revision=local.revision,
        added=[each.finding.key for each in active if each.origin == "site"],
        removed=[entry.key for entry in local.entries("removed-prompt")],
    )


def _require_possible(manifest: Manifest, head: Head, active: list[ActiveFinding]) -> None:
    """Refuse what no honest bundle could hold, before the long work."""
    if manifest.gated:
        raise BundleError(
            "repack.ungated",
            "its graphs or bank are not the original's, and its gates were held with its own findings",
            artefact=manifest.name,
            expected="fp32 graphs, which need no gate",
            found=", ".join(each.consumer for each in manifest.gated),
            cure="change the findings in the recipe and run `promptray build`, which gates them; here they "
            "can be used as they are",
        )
    least = 2 if head.relation in ALTERNATIVES else 1
    if len(active) < least:
        raise BundleError(
            "repack.nothing",
            "too few findings would be left",
            artefact=head.name,
            expected=f"at least {least}",
            found=str(len(active)),
            cure="restore one (`promptray prompts BUNDLE restore KEY`) or add another",
        )


def _manifest(
    manifest: Manifest, step: Repacking, head: Head, active: Mapping[str, list[ActiveFinding]]
) -> tuple[Manifest, tuple[str, ...]]:
    """Return the new manifest, and the groups that are left out since a finding of theirs is."""
    keys = {each.finding.key for each in active[head.name]}
    groups = {name: members for name, members in head.groups.items() if keys.issuperset(members)}
    heads = [
        msgspec.structs.replace(each, groups=groups) if each.name == head.name else each
        for each in manifest.heads
    ]
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    provenance = msgspec.structs.replace(
        manifest.provenance, created=now, repacked=[*manifest.provenance.repacked, step]
    )
    findings = [item.finding for each in manifest.heads for item in active[each.name]]
    made = msgspec.structs.replace(manifest, provenance=provenance, heads=heads, findings=findings)
    return made, tuple(name for name in head.groups if name not in groups)


def _with_engines(made: Manifest, head: Head) -> tuple[Manifest, tuple[RepackedPlan, ...]]:
    """Return the manifest with the plans that fit its findings, and what became of all of them."""
    if made.engines is None:
        return made, ()
    engines, plans = repacked_engines(made.engines, len(made.findings_of(head.name)))
    return msgspec.structs.replace(made, engines=engines), plans


def _require_same(bundle: Bundle, written: Bundle, changed: set[str]) -> None:
    """Refuse a copy of a file that was changed since it was hashed."""
    for name, facts in bundle.manifest.files.items():
        if name not in changed and written.manifest.files[name] != facts:
            raise BundleError(
                "bundle.hash",
                "the file was changed while the bundle was repacked; nothing was written",
                artefact=name,
                expected=f"sha256 {facts.sha256}",
                found=f"sha256 {written.manifest.files[name].sha256}",
                cure="run `promptray verify` on the bundle, then repack it again",
            )


def _carry(
    stored: Mapping[tuple[str, str], SiteCalibration],
    choice: SiteChoice,
    active: Mapping[str, list[ActiveFinding]],
    before: str,
    written: Bundle,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Store the site's calibrations for the new bundle, too: same entry, same graphs, so the same logits.

    They are the site's and not the model's, so they do not travel in the bundle.
    """
    entries = {
        (head, item.finding.key): item.entry.fingerprint for head, items in active.items() for item in items
    }
    carried, left = [], []
    for name, each in stored.items():
        if entries.get(name) != each.content.basis.entry:
            left.append(name[1])
            continue
        origin = {"repacked_from": {"bundle": before, "id": each.id}}
        payload = msgspec.json.format(msgspec.json.encode(_of(each.content, written.hash)))
        carried.append((name, payload, origin))
    target = open_site(choice, written.hash)
    for head in dict.fromkeys(name[0] for name, _, _ in carried):
        additions = [(name[1], payload, facts) for name, payload, facts in carried if name[0] == head]
        assert target is not None  # noqa: S101 - the same choice opened the old bundle's
        target.add_all("calibration", head, additions)
    return tuple(name[1] for name, _, _ in carried), tuple(left)


def _of(content: CalibrationFile, bundle: str) -> CalibrationFile:
    """Return a calibration under the name of another bundle."""
    point = content.operating_point
    return msgspec.structs.replace(
        content,
        calibration=msgspec.structs.replace(content.calibration, bundle=bundle),
        operating_point=None if point is None else msgspec.structs.replace(point, bundle=bundle),
    )


def _nothing(bundle: Bundle) -> BundleError:
    return BundleError(
        "repack.nothing",
        "the site neither added a finding to the bundle nor removed one, so there is nothing to repack",
        artefact=f"{bundle.manifest.name} {bundle.short_hash}",
        cure="name the site directory with `--site DIR`; or first `promptray prompts BUNDLE add KEY PROMPT`",
    )
