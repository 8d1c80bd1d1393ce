"""Metrics: FID, KID, precision and recall, inception score, path lengths. The same call gives the same numbers."""

from styleforge.metrics.evaluation import Measurement, evaluate, measure, open_data
from styleforge.metrics.tools import Tools

__all__ = ["Measurement", "Tools", "evaluate", "measure", "open_data"]
