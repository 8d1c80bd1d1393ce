"""``styleforge analyze``: a table of what can be looked at in a generator."""

from __future__ import annotations

import click

from styleforge.cli.lazy import LazyGroup

VERBS: dict[str, tuple[str, str]] = {
    "ablate": ("styleforge.cli.analyze.ablate:ablate", "Make pictures without single feature maps."),
    "droplets": ("styleforge.cli.analyze.droplets:droplets", "Look for droplets, or circular artifacts."),
    "factors": ("styleforge.cli.analyze.factors:factors", "Measure how much a generator of portraits varies."),
    "normalization": (
        "styleforge.cli.analyze.normalization:normalization",
        "Show rho of PIN, or demodulation coefficients, by layer.",
    ),
    "normality": (
        "styleforge.cli.analyze.normality:normality",
        "Measure how normal latents are in W and in V.",
    ),
    "resolutions": ("styleforge.cli.analyze.resolutions:resolutions", "Measure what each resolution adds."),
    "smoothness": ("styleforge.cli.analyze.smoothness:smoothness", "Measure how evenly pictures follow w."),
    "spectra": ("styleforge.cli.analyze.spectra:spectra", "Measure power spectra of pictures and layers."),
    "phase": ("styleforge.cli.analyze.phase:phase", "Measure whether details of portraits follow the pose."),
    "directions": ("styleforge.cli.analyze.directions:directions", "Find directions in which pictures change."),
    "diversity": ("styleforge.cli.analyze.diversity:diversity", "Compare truncation and compression at equal FID."),
}
"""See `styleforge.cli.lazy.LazyGroup`."""


@click.command(
    cls=LazyGroup,
    verbs=VERBS,
    epilog="Each analysis explains itself: styleforge analyze ANALYSIS --help",
)
def analyze() -> None:
    """Look into a generator: what it makes, and what goes wrong in it."""
