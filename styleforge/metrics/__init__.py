"""Metrics: FID, KID, precision and recall, inception score, path lengths. The same call gives the same numbers."""

from styleforge.metrics.evaluation import evaluate, forget, measure
from styleforge.metrics.records import Measurement
from styleforge.metrics.requirements import open_data, require_enough, require_measurable
from styleforge.metrics.tools import Tools

__all__ = ["Measurement", "Tools", "evaluate", "forget", "measure", "open_data", "require_enough", "require_measurable"]
