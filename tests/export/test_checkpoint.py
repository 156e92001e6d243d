"""What a checkpoint holds comes out as torch would give it; what cannot be read is refused in words."""

from __future__ import annotations

import json
import pickle
import random
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from promptray.export.checkpoint import load_checkpoint, plain, tensors
from promptray.export.restricted_pickle import StandIn
from promptray.runtime.errors import BuildError
from tests.export.pickles import StorageRef, dumps, load_or_code, tensor, write_archive

FIXTURE = "CARZero_best_model.ckpt"


def refusal(path: Path) -> BuildError:
    with pytest.raises(BuildError) as caught:
        load_checkpoint(path)
    assert caught.value.artefact == path.name
    assert caught.value.cure
    return caught.value


def same(found: Any, expected: torch.Tensor) -> bool:
    facts = (expected.dtype, expected.shape, expected.stride())
    return (found.dtype, found.shape, found.stride()) == facts and torch.equal(found, expected.detach())


def test_every_kind_of_tensor_equals_the_one_saved(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8]
    dtypes += [torch.uint8, torch.bool, torch.complex64, torch.complex128]
    saved = {
        **{str(dtype): base.to(dtype) for dtype in dtypes},
        "whole": base,
        "transposed": base.T,
        "row": base[2],
        "every other": base[::2, 1::2],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0),
        "empty matrix": torch.empty(3, 0, 2),
        "parameter": torch.nn.Parameter(base.clone()),
    }
    torch.save({"nested": [saved, (saved,)], "ordered": OrderedDict(saved)}, tmp_path / "all.pt")
    content = load_checkpoint(tmp_path / "all.pt")
    for found in (content["nested"][0], content["nested"][1][0], content["ordered"]):
        assert list(found) == list(saved)
        assert [key for key in saved if not same(found[key], saved[key])] == []
    views = content["ordered"]
    assert views["transposed"].data_ptr() == views["whole"].data_ptr()


def test_what_was_loaded_can_be_saved_and_loaded_again(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "first.pt")
    torch.save(load_checkpoint(tmp_path / "first.pt"), tmp_path / "second.pt")
    again = torch.load(tmp_path / "second.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(again[key], tensor) for key, tensor in model.state_dict().items())


def test_writing_into_a_loaded_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    before = path.read_bytes()
    load_checkpoint(path)["weight"].zero_()
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_mapped_not_copied(tmp_path: Path) -> None:
    def private() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) >> 10

    torch.save({"weights": torch.ones(64 << 18)}, tmp_path / "large.pt")
    before = private()
    content = load_checkpoint(tmp_path / "large.pt")
    assert content["weights"].sum() == 64 << 18
    assert private() - before < 32


def test_the_fixture_has_the_published_keys_and_shapes(carzero_checkpoint: Path) -> None:
    published = json.loads((carzero_checkpoint / "state_dict.json").read_text())["keys"]
    state = dict(tensors(load_checkpoint(carzero_checkpoint / FIXTURE)["state_dict"]))
    del state["CARZero.text_encoder.model.embeddings.position_ids"]  # older transformers saved it
    assert {
        key.removeprefix("CARZero."): [list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in state.items()
    } == published


def test_the_fixtures_foreign_classes_become_stand_ins(carzero_checkpoint: Path) -> None:
    content = load_checkpoint(carzero_checkpoint / FIXTURE)
    assert isinstance(content["hyper_parameters"], StandIn)
    assert content["hyper_parameters"].name == "omegaconf.dictconfig.DictConfig"
    assert content["pytorch-lightning_version"] == "1.1.4"


def test_omegaconf_nodes_become_plain_containers(carzero_checkpoint: Path) -> None:
    settings = plain(load_checkpoint(carzero_checkpoint / FIXTURE)["hyper_parameters"])
    assert settings["data"]["text"] == {"word_num": 97, "captions_per_image": 5, "full_report": False}
    assert settings["transforms"]["color_jitter"]["contrast"] == [0.8, 1.2]
    assert json.loads(json.dumps(settings)) == settings


def test_plain_ends_on_values_that_hold_themselves_or_repeat_without_end() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert plain(circle) == [1, None]
    laughs: Any = "ha"
    for _ in range(50):
        laughs = [laughs] * 10
    first = plain(laughs)
    while isinstance(first, list):
        first = first[0]
    assert first == "ha"
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert isinstance(plain(deep), list)


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    weights = {"weight": torch.ones(3)}
    torch.save(weights, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "page.ckpt").write_text("<html>404 Not Found</html>")
    (tmp_path / "lfs.ckpt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    said = {path.name: refusal(path) for path in tmp_path.iterdir()}
    assert {error.code for error in said.values()} == {"checkpoint.format"}
    assert "before 1.6" in str(said["legacy.pt"])
    assert "saved again with a newer one" in str(said["legacy.pt"])
    assert "an empty file" in str(said["empty.ckpt"])
    assert "another kind of file" in str(said["page.ckpt"])
    assert "no single data.pkl" in str(said["other.zip"])


def test_a_folder_or_nothing_is_not_found(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "checkpoint.not-found"
    assert refusal(tmp_path / "absent.ckpt").code == "checkpoint.not-found"


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), None, {1: 2}, torch.nn.Linear(2, 2)])
def test_a_top_level_that_is_no_mapping_of_names_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    assert refusal(tmp_path / "model.pt").code == "checkpoint.format"


STORAGE = StorageRef()
BROKEN: dict[str, tuple[Any, str]] = {
    "storage missing": (tensor(StorageRef("7")), "no entry data/7"),
    "storage shorter than stated": (tensor(StorageRef(count=5)), "another length than it says (0)"),
    "storage longer than stated": (tensor(StorageRef(count=3)), "another length than it says (0)"),
    "storage of another type": (tensor(StorageRef(kind=torch.DoubleStorage)), "another length"),
    "storage of two types": (
        [tensor(STORAGE), tensor(StorageRef(kind=torch.IntStorage))],
        "a storage of two types (0)",
    ),
    "storage of no type": (tensor(StorageRef(kind="FloatStorage")), "unknown type"),
    "size beyond the storage": (tensor(STORAGE, size=(5,)), "larger than its storage"),
    "stride beyond the storage": (tensor(STORAGE, size=(2,), stride=(4,)), "larger than its storage"),
    "offset beyond the storage": (tensor(STORAGE, offset=1), "larger than its storage"),
    "negative size": (tensor(STORAGE, size=(-1,)), "negative"),
    "negative stride": (tensor(STORAGE, offset=3, size=(2,), stride=(-1,)), "negative"),
    "negative offset": (tensor(STORAGE, offset=-1, size=(1,)), "negative"),
    "huge offset": (tensor(STORAGE, offset=2**70), "larger than its storage"),
    "huge offset, no elements": (tensor(STORAGE, offset=2**70, size=(0,)), "cannot be read"),
    "huge size": (tensor(STORAGE, size=(2**62, 2**62), stride=(0, 0)), "without end"),
    "size without stride": (tensor(STORAGE, size=(2, 2)), "without a storage"),
    "size that is a number": (tensor(STORAGE, size=4), "cannot be read"),
    "size of text": (tensor(STORAGE, size=("4",)), "negative"),
    "no storage": (tensor("0"), "without a storage"),
    "state that replaces the numbers": (tensor(STORAGE, state=(1, 2, 3, 4)), "a state of its own"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_tensor_is_refused(tmp_path: Path, case: str) -> None:
    value, message = BROKEN[case]
    error = refusal(write_archive(tmp_path / "model.ckpt", dumps({"weight": value})))
    assert error.code == "checkpoint.format"
    assert message in error.message


@pytest.mark.parametrize("pid", ["0", ("module", torch.FloatStorage, "0", "cpu", 4), ("storage",), None])
def test_a_foreign_persistent_id_is_refused(tmp_path: Path, pid: Any) -> None:
    other = StorageRef()
    other.id = pid or ("storage", torch.FloatStorage, 0, "cpu", 4)
    error = refusal(write_archive(tmp_path / "model.ckpt", dumps({"weight": tensor(other)})))
    assert error.code == "checkpoint.format"


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    structure = dumps({"weight": tensor(STORAGE)})
    path = write_archive(tmp_path / "model.ckpt", structure, compression=zipfile.ZIP_DEFLATED)
    assert "compressed or encrypted" in refusal(path).message


def test_a_large_pickle_is_refused_before_it_is_read(tmp_path: Path) -> None:
    structure = pickle.dumps({"text": "x" * (17 << 20)}, protocol=2)
    assert "larger than 16 MiB" in refusal(write_archive(tmp_path / "model.ckpt", structure)).message


def small_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    saved = {f"layer.{n}": torch.full((3, 5), float(n)) for n in range(6)}
    torch.save({"state_dict": OrderedDict(saved), "epoch": 3}, path)
    return saved


def loads_right_or_is_refused(path: Path, saved: dict[str, torch.Tensor]) -> bool:
    """True when refused; a file that loads must hold the numbers that were saved."""
    outcome = load_or_code(path)
    if isinstance(outcome, dict):
        assert all(torch.equal(outcome["state_dict"][key], value) for key, value in saved.items())
        return False
    assert outcome == "checkpoint.format"
    return True


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    saved = small_checkpoint(tmp_path / "whole.pt")
    raw = (tmp_path / "whole.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(0, len(raw), max(1, len(raw) // 150)):
        path.write_bytes(raw[:length])
        assert loads_right_or_is_refused(path, saved), length


def test_a_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    saved = small_checkpoint(tmp_path / "whole.pt")
    raw = (tmp_path / "whole.pt").read_bytes()
    path = tmp_path / "flipped.pt"
    chance = random.Random(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(raw)
        changed[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        refused += loads_right_or_is_refused(path, saved)
    assert refused > 100  # the rest fell into padding and time stamps


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_a_mutated_structure_gives_a_mapping_or_a_refusal(tmp_path: Path) -> None:
    """Here the archive is sound, so that the unpickler itself meets the damage."""
    structure = dumps({"weight": tensor(STORAGE), "list": [1, 2.5, ("a", None)], "set": {1, 2}})
    chance = random.Random(1)
    refused = 0
    for _ in range(1500):
        changed = bytearray(structure)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path = write_archive(tmp_path / "model.ckpt", bytes(changed))
        outcome = load_or_code(path)
        assert isinstance(outcome, dict) or outcome == "checkpoint.format"
        refused += not isinstance(outcome, dict)
    assert refused > 500
