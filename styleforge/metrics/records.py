"""Lines of ``metric-<name>.jsonl``, with the field's keys and with how each number was obtained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from styleforge import dist
from styleforge.clock import format_time
from styleforge.files import append_line
from styleforge.metrics.evaluation import Measurement


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
