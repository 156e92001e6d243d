"""Gates: does a changed model still say what the original says? From scores in arrays to a verdict."""

from promptray.calibrate.gates.data import GateData, ModelScores
from promptray.calibrate.gates.run import run_gates
from promptray.runtime.gate_limits import LIMITS, Kind, Limits

__all__ = ["LIMITS", "GateData", "Kind", "Limits", "ModelScores", "run_gates"]
