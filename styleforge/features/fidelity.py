"""Extractors of torch-fidelity's, around weight files that are read safely and known by their digests."""
# Shapes: N batch, H W image size, F number of features, K classes.

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from styleforge.features.base import Extractor, Features
from styleforge.features.weights import WeightFile, build, file_checksum, read
from styleforge.images import rgb_view


def published_name(name: str, file: WeightFile, checksum: str) -> str:
    """The name of a network if its weights are the published ones; otherwise one that says that they are others."""
    return name if checksum.startswith(file.sha256) else f"{name.partition('-')[0]}-{checksum[:8]}"


class FidelityExtractor(Extractor):
    """One of torch-fidelity's feature extractors, in the memory layout that is fastest on CPUs.

    Weights other than the published ones are taken, but as a stand-in that is named by their digest.

    Args:
        make: Makes the extractor from a file: features first, then logits, where it has them.
        path: The weights.
        file: What they should be.
        name: Of the network with the published weights.
        resize: As in `Extractor`, and so is ``num_features``.
        num_features: Length F.
        prefix: As in `build`.
    """

    def __init__(
        self,
        make: Callable[[io.BytesIO], nn.Module],
        path: Path,
        file: WeightFile,
        *,
        name: str,
        resize: str,
        num_features: int,
        prefix: str = "",
    ) -> None:
        checksum = file_checksum(path)
        network = build(make, read(path, file.holds), path, file.holds, prefix=prefix)
        actual_name = published_name(name, file, checksum)
        super().__init__(
            network.to(memory_format=torch.channels_last),
            name=actual_name,
            checksum=checksum,
            stand_in=actual_name != name,
            resize=resize,
            num_features=num_features,
        )

    def _extract(self, images_uint8: Tensor) -> Features:
        results: tuple[Tensor, ...] = self.network(rgb_view(images_uint8))
        return Features(results[0], results[1] if len(results) > 1 else None)
