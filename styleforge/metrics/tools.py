"""Which network measures what: the published one for each metric, or what a person has chosen instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from styleforge.features import Distance, Extractor, available, load_distance, load_extractor, wrap
from styleforge.metrics.recipes import Kind
from styleforge.networks import Discriminator, Generator

PUBLISHED: dict[Kind, str] = {"fid": "inception", "kid": "inception", "is": "inception", "pr": "vgg16", "ppl": "lpips"}
"""What the published numbers were made with."""

CHOICES = ("published", "auto", "inception", "vgg16", "random-vgg", "discriminator")
"""Names that `Tools` takes."""


@dataclass(kw_only=True, slots=True)
class Tools:
    """The feature networks of an evaluation, each loaded once, when it is first asked for."""

    extractor: str | nn.Module | Extractor | None = None
    """One of `CHOICES`, or a network (see `styleforge.features.wrap`), or an extractor. ``published`` or None: the
    published ones. ``auto``: those of them whose weights are at hand, ``random-vgg`` in place of the others."""
    distance: Distance | None = None
    """For path lengths; None for the one that goes with the extractor."""
    weights_dir: str | Path | None = None
    """Folder with weights files."""
    offline: bool = False
    """Never download."""
    D: Discriminator | None = None
    """For ``discriminator``."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where they compute."""
    num_classes: int = field(default=0, init=False)
    """Of the inception score's network; known once that is loaded."""
    _loaded: dict[str, Extractor | Distance] = field(default_factory=dict)

    def name_for(self, kind: Kind) -> str:
        """The name under which `styleforge.features` knows the network for a metric.

        Raises:
            ValueError: The choice does not exist.
        """
        choice = self.extractor or "published"
        published = PUBLISHED[kind]
        if not isinstance(choice, str):
            return published if kind == "ppl" else ""
        if choice not in CHOICES:
            raise ValueError(f"extractor: got {choice!r}, expected one of {', '.join(CHOICES)} (--extractor)")
        if choice == "published":
            return published
        if choice == "auto":
            return published if available(published, self.weights_dir) else "random-vgg"
        if kind == "ppl":
            return {"random-vgg": "random-vgg", "discriminator": "pixel+discriminator"}.get(choice, "lpips")
        return choice

    def extractor_for(self, kind: Kind) -> Extractor:
        """The extractor for a metric.

        Raises:
            ValueError: The choice does not exist or does not fit.
            OSError: Its weights are not at hand.
        """
        if isinstance(self.extractor, nn.Module):
            self.extractor = wrap(self.extractor.to(self.device), name=type(self.extractor).__name__)
        if isinstance(self.extractor, Extractor):
            return self.extractor
        name = self.name_for(kind)
        if name not in self._loaded:
            loaded = load_extractor(name, weights_dir=self.weights_dir, offline=self.offline, D=self.D)
            self._loaded[name] = loaded.to(self.device)
        found = self._loaded[name]
        assert isinstance(found, Extractor)
        return found

    def distance_for_paths(self) -> Distance:
        """The distance for path lengths; errors as in `extractor_for`."""
        if self.distance is None:
            name = self.name_for("ppl")
            self.distance = load_distance(name, weights_dir=self.weights_dir, offline=self.offline, D=self.D)
            self.distance.to(self.device)
        return self.distance

    def tool_for(self, kind: Kind) -> Extractor | Distance:
        """What a metric is measured with; errors as in `extractor_for`."""
        return self.distance_for_paths() if kind == "ppl" else self.extractor_for(kind)

    def load(self, kinds: Iterable[Kind], G: Generator) -> None:
        """Loads now what these metrics of a generator need, so that what is missing is said before any work.

        Raises:
            ValueError: As `extractor_for`; or an inception score with an extractor that has no classes.
            OSError: As `extractor_for`.
        """
        for kind in kinds:
            tool = self.tool_for(kind)
            if kind == "is" and isinstance(tool, Extractor) and not self.num_classes:
                logits = tool(torch.zeros(1, G.img_channels, *G.config.size, dtype=torch.uint8)).logits
                if logits is None:
                    raise ValueError(
                        f"inception score: got the extractor {tool.name}, expected one with classes (--extractor)"
                    )
                self.num_classes = logits.shape[1]

    def suffix(self, kind: Kind) -> str:
        """What stands behind a metric's name: ``@extractor``, or nothing where the published network made it."""
        tool = self.tool_for(kind)
        return "" if tool.name == _OFFICIAL[kind] and not tool.stand_in else f"@{tool.name}"


_OFFICIAL: dict[Kind, str] = {
    "fid": "inception-2015-12-05",
    "kid": "inception-2015-12-05",
    "is": "inception-2015-12-05",
    "pr": "vgg16",
    "ppl": "lpips",
}
"""Names that the published networks give themselves."""
