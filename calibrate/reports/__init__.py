"""Triplets of region, finding and existence from the text of radiology reports."""

from promptray.calibrate.reports.triplets import Triplet, extract, summarise

__all__ = ["Triplet", "extract", "summarise"]
