"""InceptionV3 of 2015-12-05: the network of the Fréchet and kernel inception distances and the inception score."""

from __future__ import annotations

from pathlib import Path

from styleforge.features.base import Extractor
from styleforge.features.fidelity import FidelityExtractor
from styleforge.features.weights import INCEPTION, locate, metrics_package


def load_inception(
    *, path: str | Path | None = None, weights_dir: str | Path | None = None, offline: bool = False
) -> Extractor:
    """torch-fidelity's port of the TensorFlow graph that published numbers are made with.

    Pictures are resized to 299² as TensorFlow 1 did (bilinear, corners not aligned, no smoothing); features are the
    last pooling layer's 2048, logits those without bias, as the official inception score has them. With the
    published weights, numbers compare with those of the StyleGAN papers and their official releases. Numbers made
    with torchvision's Inception, or with an antialiased resize ("clean"), are other numbers.

    Args:
        path: As in `locate`, and so are the other arguments and errors.
        weights_dir: A folder to look in first.
        offline: Never download.
    """
    package = metrics_package("torch_fidelity.feature_extractor_inceptionv3")
    return FidelityExtractor(
        lambda weights: package.FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights
        ),
        locate(INCEPTION, path=path, weights_dir=weights_dir, offline=offline),
        INCEPTION,
        name="inception-2015-12-05",
        resize="tensorflow-bilinear-299",
        num_features=2048,
    )
