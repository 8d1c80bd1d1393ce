"""Analysis: what a generator does well and what goes wrong in it, in numbers and pictures."""

from styleforge.analysis.factor_reader import FactorReader, ReaderConfig
from styleforge.analysis.factors import (
    FactorReport,
    FactorStats,
    compare_readings,
    factor_report,
    plot_factors,
    reader_config,
)

__all__ = [
    "FactorReader",
    "FactorReport",
    "FactorStats",
    "ReaderConfig",
    "compare_readings",
    "factor_report",
    "plot_factors",
    "reader_config",
]
