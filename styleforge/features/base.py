"""What metrics and inversion ask of a feature network: `Extractor` for pictures, `Distance` between pictures."""
# Shapes: N batch, C image channels, H W image size, F number of features, K classes or length of an embedding.

from __future__ import annotations

import abc
import hashlib
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from styleforge.images import rgb_view
from styleforge.ops.shapes import require_shape
from styleforge.precision import exact_float32


class Features(NamedTuple):
    """What an extractor says about pictures."""

    features: Tensor
    """[N, F] float32."""
    logits: Tensor | None
    """[N, K] float32: unnormalised log probabilities of classes; None where the network has no classes."""


class FeatureNetwork:
    """A frozen network with the facts that go with every number made by it.

    Args:
        network: The network; it is put into evaluation mode.
        name: What it is called in tables and files.
        checksum: SHA-256 of the weights, 64 hexadecimal digits.
        stand_in: Whether it stands in for a network whose numbers are published.
    """

    def __init__(self, network: nn.Module, *, name: str, checksum: str, stand_in: bool) -> None:
        self.network = network.eval()
        self.name, self.checksum, self.stand_in = name, checksum, stand_in
        tensors = [*network.parameters(), *network.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        """Where the work is done."""

    def to(self, device: torch.device | str) -> Self:
        """Moves the network, and returns this object."""
        self.network.to(device)
        self.device = torch.device(device)
        return self


class Extractor(FeatureNetwork, abc.ABC):
    """Turns pictures into features, each picture for itself.

    Args:
        network: As in `FeatureNetwork`, and so are ``name``, ``checksum`` and ``stand_in``.
        resize: How pictures are brought to the network's size, such as ``tensorflow-bilinear-299``, or ``none``.
        num_features: Length F of a picture's features.
    """

    def __init__(
        self, network: nn.Module, *, name: str, checksum: str, stand_in: bool, resize: str, num_features: int
    ) -> None:
        super().__init__(network, name=name, checksum=checksum, stand_in=stand_in)
        self.resize, self.num_features = resize, num_features

    @torch.no_grad()
    def __call__(self, images_uint8: Tensor) -> Features:
        """Extracts features.

        Args:
            images_uint8: [N, C, H, W] uint8 on any device; C from 1 to 4 is shown as `rgb_view` does, unless the
                network takes the model's own channels (``discriminator``).

        Returns:
            The features on this object's device. A picture's do not depend on the others in the batch, but for
            rounding errors.

        Raises:
            ValueError: Another type or shape.
        """
        require_shape("images", images_uint8, [None, None, None, None], "give a batch of pictures")
        if images_uint8.dtype != torch.uint8:
            raise ValueError(f"images: got {images_uint8.dtype}, expected torch.uint8; convert with images.to_uint8")
        with exact_float32():
            features, logits = self._extract(images_uint8.to(self.device))
        return Features(features.float(), None if logits is None else logits.float())

    @abc.abstractmethod
    def _extract(self, images_uint8: Tensor) -> Features:
        """[N, C, H, W] on the network's device -> features of any float type."""


class Distance(FeatureNetwork, abc.ABC):
    """How different two pictures look: a squared Euclidean distance between embeddings.

    Where one side stays the same over many steps, embed it once: ``distance(a, b)`` equals
    ``(embed(a) - embed(b)).square().sum(1)``.
    """

    def embed(self, img: Tensor) -> Tensor:
        """Embeds images; differentiable.

        Args:
            img: [N, C, H, W] in [-1, 1], on this object's device; channels as `Extractor` takes them.

        Returns:
            [N, K]; K depends on the image's size.

        Raises:
            ValueError: Another type or shape.
        """
        require_shape("img", img, [None, None, None, None], "give a batch of images")
        if not img.is_floating_point():
            raise ValueError(f"img: got {img.dtype}, expected floats in [-1, 1]; convert with images.from_uint8")
        with exact_float32():
            return self._embed(img)

    def __call__(self, img0: Tensor, img1: Tensor) -> Tensor:
        """Distances [N] between images [N, C, H, W] in [-1, 1] and as many others; differentiable in both."""
        require_shape("img1", img1, list(img0.shape), "compare as many images of the same size")
        return (self.embed(img0) - self.embed(img1)).square().sum(1)

    @abc.abstractmethod
    def _embed(self, img: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, K]."""


class _Wrapped(Extractor):
    """See `wrap`."""

    def _extract(self, images_uint8: Tensor) -> Features:
        features = self.network(rgb_view(images_uint8))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images_uint8):
            came = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"{self.name}: got {came} for {len(images_uint8)} pictures, expected features [N, F]; "
                "flatten what the module returns"
            )
        return Features(features, None)


def wrap(module: nn.Module, *, name: str, resize: str = "none", size: int = 64) -> Extractor:
    """Makes an extractor of any network.

    Args:
        module: Takes images_uint8 [N, 3, H, W] and gives features [N, F]; it is put into evaluation mode.
        name: What it is called in tables and files.
        resize: How the module resizes pictures, for the record.
        size: Side of the picture of noise that is sent through once, to learn F. What comes out goes into the checksum
            beside the weights: two modules may differ in their code or settings alone, and statistics that were kept of
            one must not be taken for the other's.

    Raises:
        ValueError: The module gives something else.
    """
    checksum = state_checksum(module)
    extractor = _Wrapped(module, name=name, checksum=checksum, stand_in=True, resize=resize, num_features=0)
    noise = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = extractor(noise).features
    extractor.num_features = features.shape[1]
    response = features.cpu().numpy().tobytes()
    extractor.checksum = hashlib.sha256(f"{checksum} {resize} ".encode() + response).hexdigest()
    return extractor


def state_checksum(module: nn.Module) -> str:
    """SHA-256 over the name, type, shape and bytes of every tensor of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
