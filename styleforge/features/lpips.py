"""LPIPS with VGG16 (Zhang et al. 2018): the distance of path length, projection and attribution."""
# Shapes: N batch, C channels, H W image size, K length of an embedding.

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from styleforge.features.base import Distance, state_checksum
from styleforge.features.distances import unit_maps
from styleforge.features.weights import (
    VGG16,
    file_checksum,
    find,
    layout_error,
    locate,
    metrics_package,
    missing_package,
    read,
)
from styleforge.images import rgb_view

LINEAR = "weights-vgg16-lpips.pth"
"""Name under which torch-fidelity publishes the weights of LPIPS's linear layers."""
LINEAR_SHA256 = "9153a2043dccf3b525d4f13db916e93ef040548ea923b6f2100de5ebac141a78"
"""Digest of those weights' values."""
TAPS = (3, 8, 15, 22, 29)
"""Layers of VGG16 that are compared: the last ReLU before each pooling."""
CHANNELS = (64, 128, 256, 512, 512)


class LPIPSNetwork(nn.Module):
    """VGG16 up to its last ReLU, and what every channel counts.

    Args:
        trunk: torchvision's VGG16, the convolutional part.
        linear: Weights [C] of the channels at each of `TAPS`, not negative.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: nn.Sequential, linear: list[Tensor]) -> None:
        super().__init__()
        self.trunk = trunk[: TAPS[-1] + 1]
        self.linear = nn.ParameterList(linear)
        # LPIPS's own mean and deviation of ImageNet, for images in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        self.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, img: Tensor) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> [N, K]."""
        x = ((img - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        maps = []
        for i, layer in enumerate(self.trunk):
            x = layer(x)
            if i in TAPS:
                maps.append(x)
        return unit_maps(maps, list(self.linear))


class LPIPS(Distance):
    """LPIPS version 0.1 with VGG16, as torch-fidelity and torchmetrics have it.

    Images are taken as large as they are: make those above 256² smaller first, as the papers do. The sum over
    channels w·(a - b)² is that of (√w·a - √w·b)², so that one side can be embedded once. Where no channel responds,
    vectors are normalised as torchmetrics does, whose gradient is finite there; torch-fidelity's is not, and its
    constructor downloads. Values of the two differ by less than float32's rounding. With the published weights,
    numbers compare with those of the papers and their official releases.

    Args:
        path: VGG16's weights; as in `locate`, and so are the other arguments and errors.
        weights_dir: A folder to look in first, also for the linear layers' weights (``weights-vgg16-lpips.pth``);
            where there are none, they are torchmetrics' copy.
        offline: Never download.
    """

    def __init__(
        self, *, path: str | Path | None = None, weights_dir: str | Path | None = None, offline: bool = False
    ) -> None:
        models = metrics_package("torchvision.models")
        linear = _linear(find(LINEAR, weights_dir) or packaged_linear())
        vgg16 = locate(VGG16, path=path, weights_dir=weights_dir, offline=offline)
        with torch.device("meta"):
            model = models.vgg16()
        try:
            model.load_state_dict(read(vgg16, VGG16.holds), assign=True)
        except RuntimeError as error:
            raise layout_error(vgg16, VGG16.holds, error) from error
        network = LPIPSNetwork(model.features.float(), linear)
        checksum = state_checksum(network)
        digest = hashlib.sha256(torch.cat(linear).numpy().tobytes()).hexdigest()
        published = file_checksum(vgg16).startswith(VGG16.sha256) and digest == LINEAR_SHA256
        super().__init__(
            network, name="lpips" if published else f"lpips-{checksum[:8]}", checksum=checksum, stand_in=not published
        )

    def _embed(self, img: Tensor) -> Tensor:
        embedding: Tensor = self.network(rgb_view(img))
        return embedding


def packaged_linear() -> Path:
    """The linear layers' weights in torchmetrics.

    Raises:
        ValueError: It is not installed.
    """
    spec = importlib.util.find_spec("torchmetrics")
    if spec is None or not spec.submodule_search_locations:
        raise missing_package("torchmetrics")
    return Path(spec.submodule_search_locations[0]) / "functional" / "image" / "lpips_models" / "vgg.pth"


def _linear(path: Path) -> list[Tensor]:
    """Weights [C] of the channels at each of `TAPS`, from a file of LPIPS's layout."""
    holds = "LPIPS's linear layers for VGG16"
    state = read(path, holds)
    names = [f"lin{i}.model.1.weight" for i in range(len(CHANNELS))]
    shapes = [(1, channels, 1, 1) for channels in CHANNELS]
    if set(state) != set(names) or [tuple(state[name].shape) for name in names] != shapes:
        raise ValueError(
            f"{path}: got tensors of another network, expected the weights of {holds} ({', '.join(names)})"
        )
    linear = [state[name].float().flatten() for name in names]
    if any((weight < 0).any() for weight in linear):
        raise ValueError(f"{path}: got weights below 0, expected the weights of {holds}, none of which is")
    return linear
