"""Do details follow the pose, or stick to places of the picture (Karras et al. 2020, Figure 6)?

In networks with such "phase" artifacts, teeth and eyes lag behind when the head turns. On the built-in portraits that
is a number: the slope of a part's yaw against the head's, 1 where it follows. A part that turns as far as the head but
at other times has a low slope, too; the spread of its yaw tells the two apart.
"""
# Shapes: N pictures.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from styleforge import plots
from styleforge.analysis.factors import reader_config
from styleforge.analysis.phase_reader import PARTS, PLANTED, PhaseReader, Poses
from styleforge.data.portraits import LOOSE
from styleforge.files import write_json
from styleforge.latents import synthesize
from styleforge.networks import Generator

VISIBLE_TEETH = 0.2
"""Openness of the mouth times share of the teeth from which on teeth can be read."""
TOLERANCE = 0.1
"""Slope and spread may fall short of those of faithful portraits by this much, or by three standard errors."""


@dataclass(kw_only=True, slots=True)
class Following:
    """How one part follows the head."""

    slope: float
    """Of its yaw against the head's, least squares: 1 follows, 0 is stuck."""
    error: float
    """Standard error of the slope, from its scatter."""
    spread: float
    """Standard deviation of its yaw over the head's. Where heads are hard to read, slopes fall, but spreads do not."""
    correlation: float
    """Of the two yaws."""
    residual: float
    """Degrees, root mean square: what the line leaves."""
    num: int
    """Pictures in which the part can be read."""


def following(poses: Poses, part: str) -> Following:
    """Measures how a part follows the head.

    Args:
        poses: As `PhaseReader.read` gives them.
        part: ``eyes``, ``mouth``, or ``teeth``, which are looked at where they show.

    Raises:
        ValueError: The part shows in fewer than three pictures, or the head never turns.
    """
    chosen = poses.teeth >= VISIBLE_TEETH if part == "teeth" else np.ones(len(poses.teeth), bool)
    head, yaw = poses.yaw[chosen, 0], poses.yaw[chosen, PARTS.index(part)]
    num = len(head)
    if num < 3 or not head.std() > 0:
        raise ValueError(
            f"num: got {num} pictures in which {part} can be read and heads turn, expected 3 or more; take more "
            "pictures, of a network trained on portraits (--num)"
        )
    x, y = head - head.mean(), yaw - yaw.mean()
    slope = float(x @ y / (x @ x))
    residual = float(((y - slope * x) ** 2).mean() ** 0.5)
    return Following(
        slope=slope,
        error=residual / float(head.std()) / (num - 2) ** 0.5,
        spread=float(yaw.std() / head.std()),
        correlation=float(x @ y / max((x @ x * (y @ y)) ** 0.5, 1e-12)),
        residual=residual,
        num=num,
    )


@dataclass(kw_only=True, slots=True)
class PhaseReport:
    """Whether the parts of generated portraits follow the pose."""

    generated: dict[str, Following]
    """By part."""
    drawn: dict[float, dict[str, Following]]
    """Of drawn portraits whose parts follow by a share of the head's yaw, 1 being faithful; as the same reader reads
    them: what the number can tell, and how far it errs."""
    poses: Poses
    """Of the generated portraits."""

    def verdict(self, part: str) -> str:
        """``follows``; ``lags``: turns less than the head; ``loose``: turns as far, but not always with the head."""
        mine, faithful = self.generated[part], self.drawn[1.0][part]
        tolerance = max(TOLERANCE, 3 * (mine.error**2 + faithful.error**2) ** 0.5)
        if mine.spread < faithful.spread - tolerance:
            return "lags"
        return "loose" if mine.slope < faithful.slope - tolerance else "follows"

    def summary(self) -> str:
        """The report in one sentence."""
        slopes = ", ".join(f"{part} {one.slope:.2f} ({self.verdict(part)})" for part, one in self.generated.items())
        faithful = ", ".join(f"{one.slope:.2f}" for one in self.drawn[1.0].values())
        return f"Yaw per degree of the head's: {slopes}; drawn portraits, which follow, read {faithful}."

    def write(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Writes ``phase.json`` and ``phase.png`` to a folder, made if missing, with the settings.

        Raises:
            OSError: A file cannot be written; an older one stays as it was.
        """
        table, picture = Path(folder) / "phase.json", Path(folder) / "phase.png"
        values = {
            "summary": self.summary(),
            "settings": dict(settings or {}),
            "generated": {part: asdict(one) | {"verdict": self.verdict(part)} for part, one in self.generated.items()},
            "drawn": {f"{planted:g}": _table(parts) for planted, parts in self.drawn.items()},
        }
        write_json(table, values)
        plot_phase(self, picture)
        return [table, picture]


def phase_report(
    G: Generator,
    ws: Tensor,
    *,
    noise_mode: str = "const",
    lod: float = 0.0,
    batch: int | None = None,
    reader: PhaseReader | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PhaseReport:
    """Measures whether eyes, mouth and teeth of generated portraits follow the head.

    It is for networks that were trained on `styleforge.data.portraits`; it cannot know, and of any other the numbers
    mean nothing.

    Args:
        G: The generator; work is done on its device, and reading on the CPU.
        ws: [N, L, W].
        noise_mode: ``const``, ``none`` or ``random``.
        lod: Level of detail of a progressive network; 0 is full resolution.
        batch: Pictures at a time.
        reader: A reader for pictures of this size; by default one that is trained first if it is not in the cache.
        progress: Called with the number done and the total, of each stage after the other.

    Raises:
        ValueError: A network whose pictures cannot be portraits, or too few pictures.
    """
    reader = reader or PhaseReader.train_cached(reader_config(G), progress=progress)
    read: list[Poses] = []
    done = 0
    for images_uint8 in synthesize(G, ws, noise_mode=noise_mode, lod=lod, batch=batch):
        read.append(reader.read(images_uint8))
        done += len(images_uint8)
        if progress is not None:
            progress(done, len(ws))
    poses = Poses(np.concatenate([one.yaw for one in read]), np.concatenate([one.teeth for one in read]))
    return compare_poses(reader, poses)


def compare_poses(reader: PhaseReader, poses: Poses) -> PhaseReport:
    """Compares what a reader reads off some pictures with what it reads off drawn ones."""
    drawn = {
        planted: {part: following(read, part) for part in LOOSE}
        for planted, (_, read) in zip(PLANTED, reader.held_out, strict=True)
    }
    return PhaseReport(generated={part: following(poses, part) for part in LOOSE}, drawn=drawn, poses=poses)


def plot_phase(report: PhaseReport, path: str | Path) -> None:
    """Draws each part's yaw against the head's, with the lines of drawn portraits.

    Raises:
        OSError: The file could not be written; an older one stays as it was.
    """
    with plots.figure(path, 1, len(LOOSE), size=(3.9 * len(LOOSE), 3.7)) as axes:
        for ax, part in zip(axes, LOOSE, strict=True):
            mine = report.generated[part]
            chosen = report.poses.teeth >= VISIBLE_TEETH if part == "teeth" else slice(None)
            head, yaw = report.poses.yaw[chosen, 0], report.poses.yaw[chosen, PARTS.index(part)]
            ax.plot(head, yaw, ".", markersize=2.5, alpha=0.4)
            ends = np.array([-26.0, 26.0])
            for planted, parts in report.drawn.items():
                ax.plot(ends, parts[part].slope * ends, "--", color="#777777", linewidth=0.9)
                ax.annotate(f"{planted:g}", (26.5, parts[part].slope * 26), fontsize=7, va="center", color="#777777")
            line = yaw.mean() + mine.slope * (ends - head.mean())
            ax.plot(
                ends,
                line,
                color=plots.COLOURS[1],
                label=f"slope {mine.slope:.2f} ± {mine.error:.2f}: {report.verdict(part)}",
            )
            ax.set(
                title=part, xlabel="head's yaw, degrees", ylabel=f"yaw of the {part}", xlim=(-30, 31), ylim=(-32, 32)
            )
            ax.legend(loc="upper left")


def _table(parts: Mapping[str, Following]) -> dict[str, Any]:
    return {part: asdict(one) for part, one in parts.items()}
