from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from promptray.calibrate.adapt.fine_tune import Examples, FineTuned, FineTuning, Network, fine_tune
from promptray.runtime.errors import PromptRayError

SETTINGS = FineTuning(epochs=8, batch=5, rate=0.01, patience=1, stop=4, seed=3)


def pixels(pictures: Any) -> NDArray[np.float32]:
    return np.stack(pictures)[:, None].astype(np.float32) / 255


def examples(count: int, seed: int) -> Examples:
    """Pictures whose class is how bright their left half is."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    pictures = [rng.integers(0, 120, (4, 4)).astype(np.uint8) for _ in classes]
    for picture, label in zip(pictures, classes, strict=True):
        picture[:, :2] += np.uint8(100 * label)
    return Examples(pictures, classes, [f"{seed}-{n}" for n in range(count)], pixels)


def network() -> Network:
    torch.manual_seed(0)
    # Dropout: an epoch draws random numbers, so going on must draw the same ones.
    tower = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GELU(), nn.Dropout(0.2), nn.LayerNorm(8))
    return Network(tower.eval(), torch.zeros(2, 8), torch.zeros(2))


def run(
    state: Path, settings: FineTuning = SETTINGS, *, last: int | None = None, made: Network | None = None
) -> tuple[Network, FineTuned]:
    """Train; `last` stops it by force after that epoch."""
    made = made or network()

    def progress(stage: str, message: str, fraction: float) -> None:
        if last is not None and message.startswith(f"epoch {last}:"):
            raise KeyboardInterrupt

    return made, fine_tune(made, examples(40, 0), examples(20, 1), settings, state, progress)


def test_what_is_visible_is_learned_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    trained, found = run(tmp_path / "state", FineTuning(epochs=30, batch=8, rate=0.01, smoothing=0.0))
    held_out = examples(20, 1)
    with torch.inference_mode():
        logits = trained(torch.from_numpy(pixels(held_out.pictures)))
    assert (logits.argmax(1).numpy() == held_out.classes).mean() >= 0.95
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(held_out.classes))
    losses = [epoch.val_loss for epoch in found.history]
    assert float(loss) == pytest.approx(min(losses), abs=1e-6)
    assert found.best == int(np.argmin(losses)) > 0
    assert found.history[0].val_loss == pytest.approx(np.log(2))
    assert not trained.training


@pytest.mark.parametrize("last", [1, 3])
def test_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, last: int) -> None:
    whole, history = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state", last=last)
    torch.rand(7)  # whatever else drew numbers in between
    resumed, again = run(tmp_path / "state")
    assert again == history
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_two_runs_give_the_same_bits_and_leave_torch_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    networks = [network(), network()]
    torch.set_rng_state(before)
    first, second = (run(tmp_path / str(n), made=each)[0] for n, each in enumerate(networks))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_rate_falls_before_training_stops(tmp_path: Path) -> None:
    # Labels of noise: the validation loss cannot go on falling.
    settings = FineTuning(epochs=60, batch=40, rate=0.05, patience=1, stop=6, factor=0.5)
    made, val = network(), examples(20, 1)
    rng = np.random.default_rng(0)
    wrong = Examples(val.pictures, rng.integers(0, 2, 20), val.hashes, pixels)
    found = fine_tune(made, examples(40, 0), wrong, settings, tmp_path / "state", lambda *_: None)
    rates = [epoch.rate for epoch in found.history]
    assert rates[-1] < rates[0] / 2
    assert len(found.history) - 1 - found.best == settings.stop
    assert len(found.history) < 61


def test_balanced_weights_lift_the_rare_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (4, 4)).astype(np.uint8) for _ in range(60)]
    rare = Examples(pictures, (np.arange(60) % 10 == 0).astype(np.int64), ["x"] * 60, pixels)
    shares = {}
    for weights in ("none", "balanced"):
        made = network()
        settings = FineTuning(epochs=6, batch=60, rate=0.02, class_weights=weights)
        fine_tune(made, rare, rare, settings, tmp_path / weights, lambda *_: None)
        with torch.inference_mode():
            shares[weights] = float(made(torch.from_numpy(pixels(pictures))).softmax(1)[:, 1].mean())
    assert shares["balanced"] > 2 * shares["none"]


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(PromptRayError) as refused:
        run(tmp_path / "state", FineTuning(epochs=30, batch=5, rate=1e30, weight_decay=0.0))
    assert refused.value.code == "adapt.diverged"
    assert "--learning-rate" in (refused.value.cure or "")


def test_the_state_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run(state, last=2)
    whole = state.read_bytes()
    with pytest.raises(PromptRayError, match="of another run") as refused:
        run(state, FineTuning(epochs=8, batch=5, rate=0.02, patience=1, stop=4, seed=3))
    assert refused.value.code == "adapt.state"
    for content in (whole[:-10], b"", b"{}", whole.replace(b"val_loss", b"val_lost")):
        state.write_bytes(content)
        with pytest.raises(PromptRayError) as refused:
            run(state)
        assert refused.value.code == "adapt.state"
