"""Extract triplets from Open-I's reports and compare them with the manual codes.

    python -m benchmarks.reports --data DIR

DIR holds ``reports/openi_reports.csv``. Writes ``benchmarks/results/report_triplets.json`` and ``.md``:
counts only, no word of a report.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reports.openi import CodedReport, CodeMap, code_map, read_reports
from benchmarks.reports.page import page
from benchmarks.timing import machine, save
from promptray.calibrate.reports import Triplet, extract, summarise

Flags = NDArray[np.bool_]  # reports x findings
RESULTS = Path(__file__).parents[1] / "results" / "report_triplets.json"
_TOP, _DRAWS, _SEED = 10, 1000, 20260131


def measure(reports: Sequence[CodedReport], codes: CodeMap) -> dict[str, Any]:
    """Return agreement by half, finding and place, and the extractor's speed."""
    start = time.perf_counter()
    said = [extract(report.text) for report in reports]
    seconds = time.perf_counter() - start
    coded = np.array([[bool(report.codes_of(each)) for each in codes.findings] for report in reports])
    order = np.argsort(-coded.sum(axis=0), kind="stable")
    halves = np.array([report.half for report in reports])
    chosen = {"tuning": halves == "tuning", "untouched": halves == "untouched", "both": halves != ""}
    agreement = {}
    for name, values in (("present", ("present",)), ("present or uncertain", ("present", "uncertain"))):
        flags = _flags(said, codes, values)
        agreement[name] = {
            half: _agreement(coded[rows], flags[rows], codes, order) for half, rows in chosen.items()
        }
    return {
        "reports": {half: int(rows.sum()) for half, rows in chosen.items()},
        "reports_per_second": round(len(reports) / seconds),
        "machine": machine(),
        "draws": _DRAWS,
        "agreement": agreement,
        "places": {half: _places(reports, said, codes, rows) for half, rows in chosen.items()},
    }


def _flags(said: Sequence[list[Triplet]], codes: CodeMap, values: tuple[str, ...]) -> Flags:
    summaries = [summarise(triplets) for triplets in said]
    return np.array(
        [
            [any(summary.get(key) in values for key in each.keys) for each in codes.findings]
            for summary in summaries
        ]
    )


def _agreement(coded: Flags, said: Flags, codes: CodeMap, order: NDArray[np.intp]) -> dict[str, Any]:
    """Return each finding, and the micro and macro mean of the ten most frequent and of all."""
    counts = _counts(coded, said)
    rows = [
        {"finding": codes.findings[k].name, "coded": int(coded[:, k].sum()), **_rates(counts[:, k])}
        for k in order
    ]
    generator = np.random.default_rng(_SEED)
    draws = generator.integers(0, len(coded), (_DRAWS, len(coded)))
    drawn = np.stack([_counts(coded[rows_], said[rows_]) for rows_ in draws])  # draws x 3 x findings
    groups = {f"{_TOP} most frequent": order[:_TOP], "all": order}
    means = {}
    for name, chosen in groups.items():
        means[name] = {
            "micro": _rates(counts[:, chosen].sum(axis=1)),
            "micro_f1_interval": _interval(_f1(drawn[:, :, chosen].sum(axis=2))),
            "macro_f1": round(float(_f1(counts[:, chosen].T).mean()), 3),
            "macro_f1_interval": _interval(_f1(drawn[:, :, chosen].swapaxes(1, 2)).mean(axis=1)),
        }
    return {"findings": rows, "means": means}


def _counts(coded: Flags, said: Flags) -> NDArray[np.int_]:
    """Return true positives, false positives and false negatives of each finding."""
    counts: NDArray[np.int_] = np.stack([coded & said, ~coded & said, coded & ~said]).sum(axis=1)
    return counts


def _rates(counts: NDArray[np.int_]) -> dict[str, float]:
    true, false, missed = (int(count) for count in counts)
    return {
        "precision": round(true / max(1, true + false), 3),
        "recall": round(true / max(1, true + missed), 3),
        "f1": round(2 * true / max(1, 2 * true + false + missed), 3),
    }


def _f1(counts: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return F1 of counts whose last axis is (true positive, false positive, false negative)."""
    true, false, missed = np.moveaxis(counts, -1, 0)
    f1: NDArray[np.float64] = 2 * true / np.maximum(1, 2 * true + false + missed)
    return f1


def _interval(values: NDArray[np.float64]) -> list[float]:
    return [round(float(bound), 3) for bound in np.quantile(values, (0.025, 0.975))]


def _places(
    reports: Sequence[CodedReport], said: Sequence[list[Triplet]], codes: CodeMap, rows: Flags
) -> dict[str, Any]:
    """Return how often a finding that both say has the coded side and region among the extractor's places."""
    tally = {"sides": [0, 0], "regions": [0, 0]}
    for report, triplets, counted in zip(reports, said, rows, strict=True):
        for finding in codes.findings if counted else []:
            places = [
                each.region
                for each in triplets
                if each.existence == "present" and summarise([each]).keys() & set(finding.keys)
            ]
            qualifiers = frozenset().union(*report.codes_of(finding))
            if not places or not qualifiers:
                continue
            sides = [codes.sides[each] for each in qualifiers if each in codes.sides]
            if len(sides) == 1:
                found = {place.partition(" ")[0] for place in places} & {"left", "right", "bilateral"}
                found = {"bilateral"} if {"left", "right"} <= found else found
                tally["sides"][0] += 1
                tally["sides"][1] += found == set(sides)
            for region in (codes.places[each] for each in qualifiers if each in codes.places):
                tally["regions"][0] += 1
                tally["regions"][1] += any(place.endswith(region) for place in places)
    return {kind: {"coded": coded, "same": same} for kind, (coded, same) in tally.items()}


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with reports/openi_reports.csv")
    options = parser.parse_args()
    codes = code_map()
    reports = list(read_reports(options.data / "reports" / "openi_reports.csv", codes.excluded))
    result = measure(reports, codes)
    save(RESULTS, result)
    RESULTS.with_suffix(".md").write_text(page(result), encoding="utf-8", newline="\n")
    print(page(result))


if __name__ == "__main__":
    main()
