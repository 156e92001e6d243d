"""The edge install is resolved for the target's markers and wheels, not for those of this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.tools.edge_install.conftest import Publish
from tools.check_licences import canonical, edge_install
from tools.edge_install import resolve as module
from tools.edge_install.resolve import Metadata, pins, read_pins, resolve
from tools.edge_install.targets import Refused, Target, every_target

ROOT = Path(__file__).parents[3]
LINUX = Target("linux-x86_64", "3.13")
JETSON = Target("linux-aarch64", "3.10")
WINDOWS = Target("windows-x86_64", "3.12")
ONE = dict.fromkeys(("alpha", "beta", "gamma", "delta"), "1")

Index = dict[str, list[str]]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    """What the distributions that `resolve` asks the index for require, by name."""
    answers: Index = {}

    def metadata(target: Target, wanted: Sequence[tuple[str, str]]) -> Metadata:
        return {(name, version): answers[name] for name, version in wanted}

    monkeypatch.setattr(module, "_metadata", metadata)
    return answers


def names(target: Target, *own: str) -> list[str]:
    return [name for name, _ in resolve(target, own, ONE)]


def test_markers_are_those_of_the_target(index: Index) -> None:
    index["alpha"] = ['beta; python_version < "3.11"', 'gamma; sys_platform == "win32"']
    index["beta"] = ['delta; platform_machine == "aarch64"']
    index["gamma"] = ['delta; platform_machine == "AMD64" and os_name == "nt"']
    index["delta"] = []
    assert names(LINUX, "alpha") == ["alpha"]
    assert names(JETSON, "alpha") == ["alpha", "beta", "delta"]
    assert names(WINDOWS, "alpha") == ["alpha", "delta", "gamma"]


def test_extras_of_a_dependency_count_and_those_of_promptray_do_not(index: Index) -> None:
    index["alpha"] = ['beta; extra == "more"', 'gamma; extra == "other"']
    index["beta"] = []
    assert names(LINUX, "alpha", 'delta; extra == "export"') == ["alpha"]
    assert names(LINUX, "alpha[more]", 'delta; extra == "export"') == ["alpha", "beta"]


def test_extras_that_are_promised_on_a_target_count(index: Index) -> None:
    """On a Jetson engines are built, so what its extra needs must be there as a wheel, too."""
    own = ["alpha", 'beta; extra == "tensorrt"', 'gamma; extra == "export"']
    index["alpha"], index["beta"] = [], ["delta"]
    index["delta"] = []
    assert (JETSON.extras, LINUX.extras, WINDOWS.extras) == (("tensorrt",), ("tensorrt", "rtx"), ("rtx",))
    assert list(resolve(JETSON, own, ONE, extras=JETSON.extras)) == [
        (n, "1") for n in ("alpha", "beta", "delta")
    ]
    assert list(resolve(WINDOWS, own, ONE, extras=WINDOWS.extras)) == [("alpha", "1")]


@pytest.mark.parametrize("target", list(every_target()), ids=str)
def test_what_the_extras_of_engines_need_is_pinned(target: Target) -> None:
    for extra in target.extras:
        wanted = required_by(extra, target)
        assert wanted
        for each in wanted:
            assert each.specifier.contains(read_pins(target)[canonical(each.name)])


def required_by(extra: str, target: Target) -> list[Requirement]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (lines,) = re.findall(rf"^{extra} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    asked = [Requirement(line) for line in re.findall(r'"([^"]+)"', lines)]
    return [each for each in asked if each.marker is None or each.marker.evaluate(target.markers)]


@pytest.mark.parametrize("document", ["jetson.md", "engines.md"])
def test_what_is_looked_for_on_jetpack_6_is_what_the_documents_install(document: str) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    (bound,) = re.findall(r"'(cuda-bindings[^']*,<13)'", text)
    for each in (Requirement(bound), *required_by("tensorrt", module.JETPACK_6)):
        assert each.specifier.contains(module.JETPACK_6_PINS[each.name])


def test_jetpack_6_is_resolved_beside_the_pins(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index["cuda-bindings"] = []
    monkeypatch.setattr(module, "own_requirements", lambda: ['cuda-bindings>=12.6; extra == "tensorrt"'])
    monkeypatch.setattr("sys.argv", ["resolve", "--platform", "linux-aarch64", "--python", "3.10"])
    assert module.main() == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "with tensorrt, each" in first
    assert "with tensorrt, cuda-bindings 12." in second


def test_pip_chooses_wheels_of_the_target(publish: Publish) -> None:
    publish("alpha", "gamma", tag="cp313-cp313-manylinux_2_28_x86_64")
    publish("beta", tag="cp39-abi3-manylinux2014_x86_64")
    publish("gamma")
    assert names(LINUX, "alpha", "beta") == ["alpha", "beta", "gamma"]


@pytest.mark.parametrize(
    "tag",
    [
        "cp313-cp313-manylinux_2_34_x86_64",  # newer than the floor that is promised
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp313-cp313-manylinux_2_28_aarch64",
    ],
)
def test_a_wheel_for_another_target_is_none(publish: Publish, tag: str) -> None:
    publish("alpha", tag=tag)
    with pytest.raises(Refused, match=r"linux-x86_64, Python 3\.13: .*alpha==1"):
        resolve(LINUX, ["alpha"], ONE)


def test_what_is_not_pinned_is_refused(index: Index) -> None:
    index["alpha"] = ["epsilon"]
    with pytest.raises(Refused, match=r"does not pin epsilon; run `make constraints`"):
        resolve(LINUX, ["alpha"], ONE)


def test_a_pin_that_is_not_what_is_required_is_refused(index: Index) -> None:
    index["alpha"] = ["beta>=2"]
    index["beta"] = []
    with pytest.raises(Refused, match=r"pins beta 1, but beta>=2 is required"):
        resolve(LINUX, ["alpha"], ONE)


def test_a_wrong_guess_changes_nothing(index: Index) -> None:
    index["alpha"] = ["beta"]
    index["beta"] = []
    index["gamma"] = []
    guess = {("alpha", "1"): ["gamma"]}
    assert [name for name, _ in resolve(LINUX, ["alpha"], ONE, guess)] == ["alpha", "beta"]


@pytest.mark.usefixtures("no_network")
def test_an_index_that_does_not_answer_is_said() -> None:
    with pytest.raises(Refused, match="The package index did not answer; run this on"):
        resolve(LINUX, ["alpha"], ONE)


def test_pins_are_chosen_by_their_markers() -> None:
    text = "# by hand\nalpha==1 ; python_full_version < '3.11'\nalpha==2 ; python_version >= '3.11'\nB_b==3\n"
    assert pins(JETSON, text) == {"alpha": "1", "b-b": "3"}
    assert pins(WINDOWS, text) == {"alpha": "2", "b-b": "3"}


@pytest.mark.parametrize("target", list(every_target()), ids=str)
def test_the_committed_pins_hold_the_edge_install(target: Target) -> None:
    """What this machine needs is pinned everywhere; `make resolve` asks the index for the rest."""
    here = {canonical(each.name) for each in edge_install("promptray")} - {"promptray"}
    assert here <= read_pins(target).keys()
    assert ("colorama" in read_pins(target)) is target.windows


def test_every_classifier_of_the_package_is_a_target() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for target in every_target():
        assert f"Programming Language :: Python :: {target.python}" in text
