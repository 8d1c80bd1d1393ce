"""VGG16: the network of precision and recall."""

from __future__ import annotations

from pathlib import Path

from styleforge.features.base import Extractor
from styleforge.features.fidelity import FidelityExtractor
from styleforge.features.weights import VGG16, locate, metrics_package


def load_vgg16(
    *, path: str | Path | None = None, weights_dir: str | Path | None = None, offline: bool = False
) -> Extractor:
    """torch-fidelity's VGG16 on torchvision's weights: 4096 features after the second dense layer's ReLU.

    Precision and recall are published with features of this layer (Kynkäänniemi et al. 2019), but of another
    training of VGG16: numbers compare with those of torch-fidelity exactly, and with the papers' closely.

    Args:
        path: As in `locate`, and so are the other arguments and errors.
        weights_dir: A folder to look in first.
        offline: Never download.
    """
    package = metrics_package("torch_fidelity.feature_extractor_vgg16")
    return FidelityExtractor(
        lambda weights: package.FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=weights),
        locate(VGG16, path=path, weights_dir=weights_dir, offline=offline),
        VGG16,
        name="vgg16",
        resize="tensorflow-bilinear-224",
        num_features=4096,
        prefix="model.",
    )
