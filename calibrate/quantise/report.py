"""What was done to a graph, and why."""

from __future__ import annotations

import msgspec

from promptray.calibrate.quantise.scheme import Scheme


class LayerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One quantised layer.

    Attributes
    ----------
    name, group : str
        The checkpoint's name of the layer and of the block it is in.
    weights : int
        Elements of its weight.
    products : int
        Multiplications for one input; of schemes that look at no ranges, `weights`.
    threshold : float or None
        The magnitude of its input that becomes the greatest number of the type; None where no range was
        fixed.
    clipped : float or None
        Greatest magnitude seen, where that is above the threshold.
    """

    name: str
    group: str
    weights: int
    products: int
    threshold: float | None = None
    clipped: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a graph was quantised.

    Attributes
    ----------
    scheme : Scheme
    tools : dict of str to str
        What did it, with versions.
    calibration_inputs : int
    calibration_sha256 : str or None
        Hash of the inputs that ranges were taken from; None where the scheme takes none.
    quantised : list of LayerReport
    kept : dict of str to str
        What stayed high, with the reason.
    notes : list of str
        What else was changed.
    bytes_before, bytes_after : int
    optimisations : list of str
        Levels of ONNX Runtime's optimiser that can run the graph (see `session`).
    """

    scheme: Scheme
    tools: dict[str, str]
    calibration_inputs: int
    calibration_sha256: str | None
    quantised: list[LayerReport]
    kept: dict[str, str]
    notes: list[str]
    bytes_before: int
    bytes_after: int
    optimisations: list[str]

    @property
    def size_ratio(self) -> float:
        """Bytes after, as a share of the bytes before."""
        return self.bytes_after / self.bytes_before


class Quantised(msgspec.Struct, frozen=True):
    """A quantised graph with its report."""

    content: bytes
    report: Report
