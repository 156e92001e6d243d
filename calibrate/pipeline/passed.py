"""Every gate passed, or no bundle: the reports are left beside the output either way."""

from __future__ import annotations

from collections.abc import Sequence

from promptray.calibrate.gates.table import gate_text, headline, unpassed
from promptray.calibrate.pipeline.gate import Held, as_json
from promptray.calibrate.pipeline.gate_folder import GateFolder
from promptray.export.draft import GATED_ON
from promptray.runtime.errors import BuildError


def require_passed(held: Sequence[Held], folder: GateFolder, artefact: str, cure: str) -> None:
    """Leave the reports, and refuse candidates of which a gate was not passed.

    Raises
    ------
    BuildError
        ``gate.failed`` or ``gate.inconclusive``, with the gates that were not passed; ``output.*`` where the
        reports cannot be written.
    """
    files = {}
    for each in held:
        stem = each.name if each.backend == GATED_ON else f"{each.backend}-{each.name}"
        files[f"{stem}.json"] = as_json(each.report)
        files[f"{stem}.html"] = each.page.encode()
        files[f"{stem}.txt"] = gate_text(each.report).encode()
    said = [headline(each.report) for each in held if each.report.verdict != "passed"]
    try:
        folder.replace(files)
    except BuildError as error:
        verdict = "; ".join(said) or "every gate was passed"
        fields = {**error.to_json(), "found": f"{error.found}; {verdict}" if error.found else verdict}
        raise BuildError(str(fields.pop("code")), str(fields.pop("message")), **fields) from error
    if not said:
        return
    refused = any(each.report.verdict == "refused" for each in held)
    needed = _needed(held)
    more = (
        f"{needed} patients would settle it if nothing else changes; add images" if needed else "add images"
    )
    raise BuildError(
        "gate.failed" if refused else "gate.inconclusive",
        f"{'; '.join(said)}; no bundle was written",
        artefact=artefact,
        expected="every gate passed",
        found="\n".join(line for each in held for line in unpassed(each.report, each.name)),
        cure=f"the reports are in {folder.name}; {cure}"
        if refused
        else f"{more} to the section 'gate' (reports in {folder.name})",
    )


def _needed(held: Sequence[Held]) -> int | None:
    found = [
        gate.patients_needed for each in held for gate in each.report.gates if gate.verdict == "inconclusive"
    ]
    known = [number for number in found if number is not None]
    return max(known) if known else None
