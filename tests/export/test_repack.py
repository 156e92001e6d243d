"""A bundle and a site's changes become a new bundle: same scores, what it rests on said, or a refusal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from promptray import BundleError, PromptError, Scorer
from promptray.export.repack import Repacked, repack
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.golden import read_golden
from promptray.runtime.result import Result
from promptray.runtime.site import Site
from promptray.runtime.verify import verify
from tests.runtime.test_site_calibration import keep

FRACTURE = ("rib fracture", "There is rib fracture.")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def change(bundle: Path, site: Path, *, remove: int | None = 0, add: bool = True) -> str:
    """Add a finding at the site and remove one of the bundle's; return the key of that one."""
    with Scorer.open(bundle, site=site) as scorer:
        free = scorer.bundle.manifest.free_head
        assert free is not None
        key = scorer.prompts.of_head(free.name)[remove or 0].key
        if add:
            scorer.prompts.add(*FRACTURE, display="Rib fracture", keep=True)
        if remove is not None:
            scorer.prompts.remove(key, keep=True)
    return key


def scored(bundle: Path, site: Path | None) -> Result:
    with Scorer.open(bundle, site=site, reproducible=True) as scorer:
        image = bundle / scorer.bundle.manifest.golden.images[3]
        return scorer.score(image, modality=scorer.bundle.manifest.door.modalities[0])


@pytest.mark.parametrize("name", ["carzero_bundle", "carzero_bundle_no_text", "asg_both_bundle"])
def test_it_scores_as_the_site_did(
    name: str, request: pytest.FixtureRequest, site: Path, tmp_path: Path
) -> None:
    bundle: Path = request.getfixturevalue(name)
    left_out = change(bundle, site, add="no_text" not in name)
    new = tmp_path / "new.bundle"
    found = repack(bundle, new, site=site)
    assert found.bundle.hash == Bundle.open(new).hash
    assert found.step.removed == [left_out]
    before, after = scored(bundle, site), scored(new, None)
    assert list(after.scores) == list(before.scores)
    assert [each.logit for each in after.scores.values()] == [each.logit for each in before.scores.values()]
    report = verify(new, site=None)
    assert all(head.against == "original" for head in report.golden.heads)


def test_shipped_findings_keep_the_answers_of_the_original(
    carzero_bundle: Path, site: Path, tmp_path: Path
) -> None:
    change(carzero_bundle, site)
    made = repack(carzero_bundle, tmp_path / "new.bundle", site=site).bundle
    old, new = (read_golden(each) for each in (Bundle.open(carzero_bundle), made))
    (name,) = old.answers
    assert (new.answers[name].logits[:, :-1] == old.answers[name].logits[:, 1:]).all()
    assert new.pictures.tobytes() == old.pictures.tobytes()


def test_it_says_what_it_was_made_of(carzero_bundle: Path, site: Path, tmp_path: Path) -> None:
    left_out = change(carzero_bundle, site)
    old = Bundle.open(carzero_bundle)
    found = repack(carzero_bundle, tmp_path / "new.bundle", site=site)
    (step,) = found.bundle.manifest.provenance.repacked
    assert step == found.step
    assert (step.bundle, step.added, step.removed) == (old.hash, [FRACTURE[0]], [left_out])
    assert step.site_revision == Site.open(site, old.hash).revision > 0
    assert found.bundle.manifest.provenance.checkpoint == old.manifest.provenance.checkpoint
    parity = read_parity(found.bundle)
    assert f"{FRACTURE[0]}: these graphs" in parity.heads[0].against_original.against
    assert "No original scored" in parity.notes[-1]
    finding = found.bundle.manifest.findings[-1]
    assert (finding.key, finding.display, finding.prompts) == (FRACTURE[0], "Rib fracture", [FRACTURE[1]])


def test_a_repacked_bundle_is_repacked_again(carzero_bundle: Path, site: Path, tmp_path: Path) -> None:
    """What no original scored is still said of the finding that the first repacking added."""
    change(carzero_bundle, site)
    first, second = tmp_path / "first.bundle", tmp_path / "second.bundle"
    repack(carzero_bundle, first, site=site)
    change(first, site, add=False)
    found = repack(first, second, site=site).bundle
    steps = found.manifest.provenance.repacked
    assert [step.bundle for step in steps] == [Bundle.open(carzero_bundle).hash, Bundle.open(first).hash]
    assert FRACTURE[0] in read_parity(found).heads[0].against_original.against


def test_calibrations_that_still_hold_stay_with_the_site(
    carzero_bundle: Path, site: Path, tmp_path: Path
) -> None:
    left_out = change(carzero_bundle, site)
    with Scorer.open(carzero_bundle, site=None) as scorer:
        kept = scorer.prompts.state.active[1].finding.key
    for key in (kept, left_out):
        keep(carzero_bundle, site, key)
    keep(carzero_bundle, site, Bundle.open(carzero_bundle).manifest.findings[2].key, entry="0" * 64)
    new = tmp_path / "new.bundle"
    found = repack(carzero_bundle, new, site=site)
    assert found.calibrated == (kept,)
    assert left_out in found.uncalibrated
    assert len(found.uncalibrated) == 2
    before, after = scored(carzero_bundle, site).scores[kept], scored(new, site).scores[kept]
    assert after.probability == before.probability is not None
    assert (after.threshold, after.flag) == (before.threshold, before.flag)
    (entry,) = Site.open(site, found.bundle.hash).entries("calibration")
    assert entry.facts["repacked_from"]["bundle"] == Bundle.open(carzero_bundle).hash
    assert scored(new, None).scores[kept].probability is None


def refused(bundle: Path, output: Path, code: str, **options: Any) -> None:
    with pytest.raises((BundleError, PromptError)) as refusal:
        repack(bundle, output, **options)
    assert refusal.value.code == code
    assert refusal.value.cure
    assert not output.exists() or code == "bundle.exists"
    assert not [path for path in output.parent.iterdir() if path.name.endswith(".partial")]


def test_nothing_to_repack_is_refused(carzero_bundle: Path, site: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.bundle"
    refused(carzero_bundle, new, "repack.nothing", site=site)
    refused(carzero_bundle, new, "repack.nothing", site=None)
    keep(carzero_bundle, site, Bundle.open(carzero_bundle).manifest.findings[0].key)
    refused(carzero_bundle, new, "repack.nothing", site=site)  # a probability is the site's, not the model's
    refused(carzero_bundle, new, "site.not-found", site=tmp_path / "nowhere")


def test_no_finding_left_is_refused(carzero_bundle: Path, site: Path, tmp_path: Path) -> None:
    with Scorer.open(carzero_bundle, site=site) as scorer:
        for finding in Bundle.open(carzero_bundle).manifest.findings:
            scorer.prompts.remove(finding.key, keep=True)
    refused(carzero_bundle, tmp_path / "new.bundle", "repack.nothing", site=site)


def test_a_fixed_set_is_refused(asg_tags_bundle: Path, site: Path, tmp_path: Path) -> None:
    refused(asg_tags_bundle, tmp_path / "new.bundle", "prompt.fixed-set", site=site)


def test_an_output_that_exists_is_refused(carzero_bundle: Path, site: Path, tmp_path: Path) -> None:
    change(carzero_bundle, site)
    new = tmp_path / "new.bundle"
    new.mkdir()
    refused(carzero_bundle, new, "bundle.exists", site=site)
    assert not list(new.iterdir())


def test_a_changed_byte_of_bundle_or_site_is_refused(
    carzero_bundle: Path, site: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(carzero_bundle, tmp_path / "copy"))
    change(copy, site)
    local = Site.open(site, Bundle.open(copy).hash)
    (entry,) = local.entries("prompt")
    assert entry.payload is not None
    payload = local.folder / "entries" / entry.payload.sha256
    whole = payload.read_bytes()
    payload.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(copy, tmp_path / "new.bundle", "site.corrupt", site=site)
    payload.write_bytes(whole)
    page = copy / Bundle.open(copy).manifest.golden.images[0]
    page.write_bytes(page.read_bytes()[:-1] + b"x")
    refused(copy, tmp_path / "new.bundle", "bundle.hash", site=site)


def test_a_failure_on_the_way_leaves_no_bundle(
    carzero_bundle: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(carzero_bundle, site)
    keep(carzero_bundle, site, Bundle.open(carzero_bundle).manifest.findings[1].key)

    def full(*_: Any, **__: Any) -> None:
        raise BundleError("site.unwritable", "no space left", cure="make room")

    monkeypatch.setattr(Site, "add_all", full)
    refused(carzero_bundle, tmp_path / "new.bundle", "site.unwritable", site=site)


def test_it_is_told_to_whoever_asks(carzero_bundle: Path, site: Path, tmp_path: Path) -> None:
    change(carzero_bundle, site)
    told: list[tuple[str, float]] = []
    found = repack(
        carzero_bundle, tmp_path / "new.bundle", site=site,
        progress=lambda stage, _, fraction: told.append((stage, fraction)),
    )  # fmt: skip
    assert isinstance(found, Repacked)
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)
    assert told[-1] == ("bundle", 1.0)


def test_the_edge_install_can_repack() -> None:
    heavy = ["torch", "timm", "transformers", "onnx", "onnxscript", "yaml", "sklearn", "scipy"]
    code = f"import sys, promptray.export.repack; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
