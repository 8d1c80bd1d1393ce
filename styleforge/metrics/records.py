"""`Measurement`: a number with how it was obtained; and the lines of ``metric-<name>.jsonl``, with the field's keys."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from styleforge import dist
from styleforge.clock import format_time
from styleforge.files import append_line


@dataclass(kw_only=True, slots=True)
class Measurement:
    """One metric of one generator, and how it was obtained."""

    metric: str
    """Name; with ``@extractor`` where it is not the published one."""
    results: dict[str, float]
    """Number by name, such as ``pr50k3_full_precision``."""
    num_generated: int
    """Pictures, or pairs."""
    num_real: int
    """Real pictures; 0 where none are needed."""
    mirror: bool
    """Whether mirror images count as real pictures."""
    seed: int
    """Of latents, labels and noise."""
    extractor: str
    """Name of the feature network."""
    extractor_checksum: str
    """SHA-256 of its weights."""
    resize: str
    """How pictures were brought to its size."""
    truncation_psi: float
    """Truncation; 1 is off."""
    transform: str
    """What else was done to w; empty for nothing."""
    lod: float
    """Level of detail of a progressive generator; 0 is its full size."""
    seconds: float
    """Time that the numbers took once all pictures had been looked at; path lengths with their pictures."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the numbers should know, such as a dataset smaller than asked for."""


def record(measurement: Measurement, snapshot: str | None) -> dict[str, Any]:
    """One line, as a JSON object.

    Args:
        measurement: What was measured.
        snapshot: File name of the network; None where whoever writes the line adds it.
    """
    values = dataclasses.asdict(measurement)
    seconds = values.pop("seconds")
    line = {"results": values.pop("results"), "metric": values.pop("metric")}
    line |= {"total_time": seconds, "total_time_str": format_time(seconds), "num_gpus": dist.world_size()}
    return line | {"snapshot_pkl": snapshot, "timestamp": time.time()} | values


def write(measurements: Sequence[Measurement], folder: str | Path, snapshot: str) -> list[Path]:
    """Appends measurements to ``metric-<name>.jsonl`` in a folder.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    paths = []
    for measurement in measurements:
        path = Path(folder) / f"metric-{measurement.metric}.jsonl"
        append_line(path, record(measurement, snapshot))
        paths.append(path)
    return paths
