"""Quantisation of exported graphs: pure functions from bytes and real inputs to bytes and a report.

A quantised graph may be used only after a gate: nothing here says whether it still agrees.
"""

from promptray.calibrate.quantise.prepare import Prepared, quantise
from promptray.calibrate.quantise.report import LayerReport, Quantised, Report
from promptray.calibrate.quantise.scheme import (
    ConvolutionInt8,
    DynamicInt8,
    Float8,
    Float16,
    Int8,
    Scheme,
    WeightOnly,
)

__all__ = [
    "ConvolutionInt8",
    "DynamicInt8",
    "Float8",
    "Float16",
    "Int8",
    "LayerReport",
    "Prepared",
    "Quantised",
    "Report",
    "Scheme",
    "WeightOnly",
    "quantise",
]
