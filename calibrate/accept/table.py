"""The report as rows for people: the same on the terminal and in HTML."""

from __future__ import annotations

from collections.abc import Iterator

from promptray.calibrate.accept.report import AcceptanceReport, HeadAgreement, Images, SiteState
from promptray.calibrate.bench import table as bench_table
from promptray.calibrate.evaluation_table import Section
from promptray.calibrate.gates import table as gates_table
from promptray.runtime.golden import GoldenReport

_SHOUTED = {"passed": "passed", "refused": "REFUSED", "inconclusive": "INCONCLUSIVE", "not run": "NOT RUN"}


def headline(report: AcceptanceReport) -> str:
    """Return the verdict in one line."""
    said = "ACCEPTED" if report.verdict == "accepted" else "NOT ACCEPTED"
    return f"{report.bundle.name}: {said}"


def parts(report: AcceptanceReport) -> Section:
    """Return the verdict of every part."""
    rows = [[part.name, _SHOUTED[part.verdict], part.reason] for part in report.parts]
    return Section("Accepted only where every part passed", ["part", "verdict", "reason"], rows)


def facts(report: AcceptanceReport) -> list[str]:
    """Return what identifies the report."""
    backend = report.backend
    return [
        f"Made {report.created} ({report.time_zone}) by {report.software}",
        f"Bundle {report.bundle.name} ({report.bundle.family}), sha256 {report.bundle.sha256}",
        f"Intended use: {report.bundle.model.intended_use}",
        f"Licence of the model: {report.bundle.model.licence}",
        f"Training data: {report.bundle.model.training_data}",
        "Backend: not opened"
        if backend is None
        else f"Backend: {backend.name} {backend.version} on {backend.device}, {backend.precision}, "
        f"{backend.threads} threads; {backend.reason}",
        f"Machine: {report.machine.system}; {report.machine.cpu}",
    ]


def sections(report: AcceptanceReport) -> Iterator[Section]:
    """Yield every table but that of the parts."""
    yield _provenance(report)
    yield _site(report.site)
    if report.golden is not None:
        yield _golden(report.golden)
    if report.images is not None:
        yield from _images(report.images)
    yield from _agreement(report)
    if report.latency is not None:
        yield from bench_table.sections(report.latency)
    yield _command(report)
    rows = [[name, version] for name, version in report.versions.items()]
    yield Section("Software", ["package", "version"], rows)


def _provenance(report: AcceptanceReport) -> Section:
    made = report.bundle.provenance
    files = [
        ("checkpoint", made.checkpoint),
        ("recipe", made.recipe),
        *(("read", each) for each in made.sources),
    ]
    rows = [["made", made.created]]
    rows += [[what, f"{file.name}, sha256 {file.sha256}"] for what, file in files]
    if made.distilled is not None:
        rows.append(["student", f"{made.distilled.student}, sha256 {made.distilled.weights}"])
    return Section("Where the bundle comes from", ["", ""], rows)


def _site(site: SiteState | None) -> Section:
    if site is None:
        return Section("Site directory: none was used, or it was not read", ["", ""], [])
    rows = [[each.kind, each.head, each.key, each.sha256 or "facts only"] for each in site.entries]
    title = f"Site directory, revision {site.revision}: {len(rows)} entries"
    return Section(title, ["entry", "head", "key", "sha256"], rows)


def _golden(golden: GoldenReport) -> Section:
    rows = [
        [
            head.head,
            head.against,
            f"{head.score_error:.2g} (bound {head.score_tolerance:.2g})",
            "no maps" if head.map_error is None else f"{head.map_error:.2g} (bound {head.map_tolerance:.2g})",
        ]
        for head in golden.heads
    ]
    if golden.level_error is not None:
        rows.append(
            ["pixels, prepared on the device", "the CPU", f"{golden.level_error:.2g} grey levels", ""]
        )
    columns = ["head", "against", "largest difference of a score", "of a map"]
    return Section(f"Golden self-test: {golden.pictures} pictures", columns, rows)


def _images(images: Images) -> Iterator[Section]:
    rows = [
        ["given, scored", f"{images.given}, {images.scored}"],
        ["sha256 of the files' hashes, in order", images.files_sha256],
        ["sha256 of the pictures' hashes, in order", images.pictures_sha256],
    ]
    rows += [[f"refused: {code}", str(count)] for code, count in images.refused_by_code.items()]
    yield Section("Images of the site, by number; no names are kept", ["", ""], rows)
    if images.refused:
        refused = [[each.image, each.code] for each in images.refused]
        yield Section("Images that the door refused", ["image", "code"], refused)


def _agreement(report: AcceptanceReport) -> Iterator[Section]:
    agreement = report.agreement
    if agreement is None:
        return
    if agreement.reference is None:
        yield Section(f"Agreement: {agreement.against}", ["", ""], [])
        return
    reference = agreement.reference
    rows = [["reference", f"{reference.name}, sha256 {reference.sha256}"]]
    rows.append(
        ["on", f"{reference.backend.name} {reference.backend.version}, {reference.backend.precision}"]
    )
    rows.append(["images that it refused", str(len(reference.refused))])
    rows += [["not compared", key] for key in agreement.not_compared]
    yield Section("Agreement with the fp32 original", ["", ""], rows)
    for head in agreement.heads:
        yield from _head(head)


def _head(head: HeadAgreement) -> Iterator[Section]:
    for section in gates_table.sections(head.gates):
        yield section._replace(title=f"{head.head}, limits of {head.kind}: {section.title}")
    yield Section(f"{head.head}: what to know of these numbers", [""], [[note] for note in head.gates.notes])


def _command(report: AcceptanceReport) -> Section:
    asked = report.parameters
    rows = [[name.replace("_", " "), _said(getattr(asked, name))] for name in asked.__struct_fields__]
    return Section("What the command was given", ["", ""], rows)


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not given" if value is None else f"{value}"
