"""The README's rows about GPUs and peers say what was measured, or that nothing was."""

from __future__ import annotations

from tools.write_docs import gpu_rows, peer_rows


def test_without_a_measurement_it_says_not_run() -> None:
    assert gpu_rows([]) == [("One image on a GPU", "not run: no GPU was to be had")]


def test_the_fastest_contestant_of_each_model_is_named_with_its_version() -> None:
    def row(contestant: str, p50: float) -> dict[str, object]:
        latency = {"p50": p50, "p99": 2 * p50}
        named = {"model": "CARZero, 192 prompts", "contestant": contestant}
        return {**named, "version": "8.6.1", "precision": "fp16", "latency": latency}

    not_run = {"model": "ConvNeXt-Base", "contestant": "tensorrt", "latency": None}
    result = {"gpu": {"name": "H200"}, "rows": [row("torch eager", 2.0), row("tensorrt", 0.9), not_run]}
    assert gpu_rows([result]) == [("CARZero, 192 prompts, H200", "0.90 ms (p99 1.80), tensorrt 8.6.1 fp16")]


def test_a_target_that_was_missed_says_so() -> None:
    targets = [
        {"what": "CARZero, its time over PromptRay's", "wanted": ">= 5.5", "found": "6.10", "met": True},
        {"what": "around the engine, ms", "wanted": "<= 0.3", "found": "0.41", "met": False},
    ]
    assert peer_rows([{"targets": targets}]) == [
        ("CARZero, its time over PromptRay's", "6.10; target >= 5.5"),
        ("around the engine, ms", "0.41; target <= 0.3, MISSED"),
    ]
    assert peer_rows([]) == []
