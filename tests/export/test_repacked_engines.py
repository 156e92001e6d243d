"""Plans that travel in a bundle fit the findings it has, or are left out."""

from __future__ import annotations

import pytest

from promptray.export.repacked_engines import repacked_engines
from promptray.export.tensorrt.profiles import MOST_PROMPTS
from promptray.runtime.bundle.engines import EnginePlan, Engines
from promptray.runtime.engines.settings import Range, Settings

PLAN = EnginePlan(file="a.plan", flavour="tensorrt_rtx", version="1.7.1", targets=["8.6"], source="a.onnx")
ASKED = Range(tuned=2, most=14)


@pytest.mark.parametrize(
    ("prompts", "findings"), [(None, 1), (None, MOST_PROMPTS), (ASKED, 14)], ids=["few", "most", "asked"]
)
def test_plans_that_take_all_findings_stay(prompts: Range | None, findings: int) -> None:
    engines = Engines(settings=Settings(prompts=prompts), plans=[PLAN])
    made, (plan,) = repacked_engines(engines, findings)
    assert made == engines
    assert (plan.file, plan.kept) == ("a.plan", True)
    assert f"there are {findings} findings" in plan.why


@pytest.mark.parametrize(
    ("prompts", "findings", "now"),
    [(None, MOST_PROMPTS + 1, None), (ASKED, 15, Range(tuned=2, most=15))],
    ids=["more than any plan takes", "more than asked"],
)
def test_plans_that_do_not_are_left_out(prompts: Range | None, findings: int, now: Range | None) -> None:
    engines = Engines(settings=Settings(prompts=prompts), plans=[PLAN])
    made, (plan,) = repacked_engines(engines, findings)
    assert made.plans == []
    assert (plan.file, plan.kept) == ("a.plan", False)
    assert f"up to {findings - 1} prompts, and there are {findings} findings" in plan.why
    assert made.settings == Settings(prompts=now)
