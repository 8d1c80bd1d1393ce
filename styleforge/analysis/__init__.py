"""Analysis: what a generator does well and what goes wrong in it, in numbers and pictures."""

from styleforge.analysis.ablation import ablate
from styleforge.analysis.ablation_report import AblationReport, ablation_report
from styleforge.analysis.droplet_report import DropletReport, survey
from styleforge.analysis.droplets import Droplets, detect
from styleforge.analysis.factor_reader import FactorReader, ReaderConfig
from styleforge.analysis.factors import (
    FactorReport,
    FactorStats,
    compare_readings,
    factor_report,
    plot_factors,
    reader_config,
)
from styleforge.analysis.normality_report import NormalityReport, normality_report
from styleforge.analysis.normalization import NormalizationReport, normalization_report

__all__ = [
    "AblationReport",
    "DropletReport",
    "Droplets",
    "FactorReader",
    "FactorReport",
    "FactorStats",
    "NormalityReport",
    "NormalizationReport",
    "ReaderConfig",
    "ablate",
    "ablation_report",
    "compare_readings",
    "detect",
    "factor_report",
    "normality_report",
    "normalization_report",
    "plot_factors",
    "reader_config",
    "survey",
]
