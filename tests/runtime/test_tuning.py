"""What was measured is followed where it holds, and where it does not the result says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from promptray.runtime import machine_class, tuning
from promptray.runtime.backends import HOST, OPENVINO
from promptray.runtime.backends.host_settings import GATED, HostSettings
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import BundleError, ScoringError
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.tuning import Measured, Tuning, Way, machine_here, software_here, write_tuning
from tests.fuzz.small_bundle import write_small
from tests.openvino_bundle import for_openvino

USUAL = Way(backend=HOST, threads=2, settings=GATED)
OTHER = Way(backend=OPENVINO, threads=1, settings=HostSettings(hint="throughput"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The miniature bundle, for both backends of the processor. Read only."""
    folder = tmp_path_factory.mktemp("tuned")
    write_small(folder)
    return for_openvino(folder / "small.bundle", folder / "both.bundle")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def made(chosen: Way = OTHER, **changes: Any) -> Tuning:
    measured = [
        Measured(way=USUAL, milliseconds=10.0, ratio=1.0, low=1.0, high=1.0),
        Measured(way=OTHER, milliseconds=7.0, ratio=0.7, low=0.69, high=0.72),
    ]
    facts = {
        "machine": machine_here(), "software": software_here(), "date": "2026-11-23", "images": 16,
        "findings": 2, "rounds": 21, "chosen": chosen, "measured": measured,
    }  # fmt: skip
    return Tuning(**{**facts, **changes})


def store(bundle: Bundle, site: Path, tuned: Tuning) -> None:
    write_tuning(Site.open(site, bundle.hash), tuned)


def backend(bundle: Bundle, site: Path, **options: Any) -> Any:
    with Scorer.open(bundle.path, site=site, **options) as scorer:
        return scorer.backend


def test_auto_follows_what_was_measured_and_says_so(both: Bundle, site: Path) -> None:
    store(both, site, made())
    found = backend(both, site)
    assert (found.name, found.threads) == (OPENVINO, 1)
    assert found.settings == OTHER.settings
    assert found.reason == (
        "auto: openvino, 1 thread, hint throughput: 0.70 (0.69 to 0.72) of the time of onnxruntime-cpu, "
        "2 threads here, measured by `promptray tune` on 2026-11-23"
    )


def test_a_usual_way_that_was_the_fastest_is_followed_too(both: Bundle, site: Path) -> None:
    store(both, site, made(USUAL))
    found = backend(both, site)
    assert (found.name, found.threads) == (HOST, 2)
    assert "none of 2 ways was faster here" in found.reason


def test_a_backend_that_is_asked_for_is_the_one_that_runs(both: Bundle, site: Path) -> None:
    store(both, site, made())
    assert backend(both, site, backend=HOST, threads=1).reason == "asked for by the caller"
    assert backend(both, site, backend=HOST, threads=1).name == HOST


def test_measured_again_takes_the_place_of_what_was_measured_before(both: Bundle, site: Path) -> None:
    store(both, site, made(date="2026-01-01"))
    store(both, site, made())
    (entry,) = Site.open(site, both.hash).entries("tuning")
    assert entry.facts["date"] == "2026-11-23"


OLD: list[tuple[Callable[[], Tuning], str]] = [
    (
        lambda: made(software={**software_here(), "onnxruntime": "1.0"}),
        "onnxruntime was 1.0 and is ",
    ),
    (
        lambda: made(software={**software_here(), "openvino": None}),
        "openvino was not installed and is ",
    ),
    (
        lambda: made(machine=msgspec.structs.replace(machine_here(), cores=999)),
        "cores was 999 and is ",
    ),
    (
        lambda: made(machine=msgspec.structs.replace(machine_here(), processor="Another one")),
        "processor was Another one and is ",
    ),
]


@pytest.mark.parametrize(("old", "said"), OLD)
def test_what_no_longer_holds_is_not_followed_and_that_is_said(
    both: Bundle, site: Path, old: Callable[[], Tuning], said: str
) -> None:
    store(both, site, old())
    found = backend(both, site)
    assert found.name == HOST
    assert "the times measured on 2026-11-23 are not followed" in found.reason
    assert said in found.reason


def test_threads_that_the_caller_asked_for_come_first(both: Bundle, site: Path) -> None:
    store(both, site, made())
    found = backend(both, site, threads=2)
    assert (found.name, found.threads) == (HOST, 2)
    assert "they are of 1 threads, and the caller asked for 2" in found.reason
    assert backend(both, site, threads=1).name == OPENVINO


def test_reproducible_scores_do_not_change_with_what_was_measured(both: Bundle, site: Path) -> None:
    store(both, site, made())
    found = backend(both, site, reproducible=True)
    assert found.name == HOST
    assert "the times measured on 2026-11-23 are not followed: measured again they may choose" in found.reason
    assert backend(both, site).name == OPENVINO


def test_a_backend_that_the_bundle_is_not_for_is_not_followed(both: Bundle, site: Path) -> None:
    """The entry was put there by hand: a bundle's own measurement can't have it."""
    bundle = Bundle.open(both.path.with_name("small.bundle"))
    store(bundle, site, made())
    found = backend(bundle, site)
    assert found.name == HOST
    assert "were not gated on openvino" in found.reason


def test_a_record_of_another_machine_does_not_hide_that_of_this_one(both: Bundle, site: Path) -> None:
    store(both, site, made())
    store(both, site, made(machine=msgspec.structs.replace(machine_here(), cores=999)))
    assert backend(both, site).name == OPENVINO


DAMAGE: list[Callable[[dict[str, Any]], Any]] = [
    lambda facts: facts.update(format_version=2),
    lambda facts: facts.update(more=1),
    lambda facts: facts.pop("software"),
    lambda facts: facts.update(measured=[]),
    lambda facts: facts["measured"][0].update(ratio=0),
    lambda facts: facts["chosen"].update(backend="tensorrt"),
    lambda facts: facts["chosen"].update(threads=3),
    lambda facts: facts["chosen"]["settings"].update(hint="fast"),
    lambda facts: facts["machine"].update(cores=999),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_refused(
    both: Bundle, site: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    facts = msgspec.to_builtins(made())
    damage(facts)
    key = machine_here().key
    Site.open(site, both.hash).add("tuning", "", key, facts=facts)
    with pytest.raises(BundleError) as refusal:
        backend(both, site)
    assert refusal.value.code == "site.corrupt"
    assert f"promptray tune BUNDLE --remove {key}" in str(refusal.value.cure)


def test_a_damaged_record_stops_nothing_that_does_not_follow_it(both: Bundle, site: Path) -> None:
    """Another backend that is asked for, and "auto" on another machine."""
    local, facts = Site.open(site, both.hash), msgspec.to_builtins(made())
    local.add("tuning", "", "of-another-machine", facts={**facts, "format_version": 2})
    assert backend(both, site).name == HOST
    assert "measured" not in backend(both, site).reason
    store(both, site, made(machine=msgspec.structs.replace(machine_here(), cores=999)))
    assert "cores was 999" in backend(both, site).reason
    local.add("tuning", "", machine_here().key, facts={**facts, "format_version": 2})
    assert backend(both, site, backend=HOST).reason == "asked for by the caller"
    with pytest.raises(BundleError):
        backend(both, site)


def test_settings_are_those_of_a_backend_asked_for_by_name(both: Bundle, site: Path) -> None:
    exact = HostSettings(optimisation="basic", arena=False)
    with Scorer.open(both.path, site=None, backend=HOST, threads=1, host=exact) as scorer:
        scorer.check_golden()
        assert scorer.backend.settings == exact
    assert backend(both, site, backend=HOST, threads=1, host=GATED).settings is None
    with pytest.raises(ValueError, match="asked for by name"):
        Scorer.open(both.path, site=None, host=exact)


def test_changed_graphs_run_only_as_they_were_gated(both: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(both.manifest), "gated_for", lambda self, consumers: object())
    from promptray.runtime.backends.choice import choose_backend

    with pytest.raises(ScoringError, match="only as far rewritten"):
        choose_backend(HOST, threads=1, manifest=both.manifest, host=HostSettings(optimisation="extended"))


def test_processor_and_machine_have_names() -> None:
    assert machine_class.processor_name().strip()
    assert machine_here().key.startswith(f"{machine_class.machine_class()}-")
    assert tuning.software_here()["onnxruntime"]
