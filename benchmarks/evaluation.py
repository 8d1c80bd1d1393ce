"""How much of an evaluation is not spent in the two networks: `python benchmarks/evaluation.py --num 1000`.

Runs FID of the bundled generator with Inception (random weights of the published layout, which cost the same), times
both networks within the evaluation, and prints one JSON object. The share of a 50k evaluation follows from the time
per picture outside of the networks, plus that of the final number, which does not grow with the count.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from styleforge.checkpoint import load_generator
from styleforge.data import ImageDataset
from styleforge.data.portraits import write_portraits
from styleforge.features.base import Extractor, Features
from styleforge.features.weights import metrics_package
from styleforge.memory import keep_freed_memory
from styleforge.metrics import Tools, measure
from styleforge.metrics.pictures import GeneratedPictures


class RandomInception(Extractor):
    """Inception as `styleforge.features.inception` runs it, with random weights."""

    def __init__(self) -> None:
        package = metrics_package("torch_fidelity.feature_extractor_inceptionv3")

        class Unloaded(package.FeatureExtractorInceptionV3):  # type: ignore[misc, name-defined]
            def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> None: ...

        with tempfile.TemporaryFile() as file:
            torch.save({}, file)
            file.seek(0)
            network = Unloaded("inception", ["2048"], feature_extractor_weights_path=file)
        super().__init__(
            network.to(memory_format=torch.channels_last),
            name="inception-random",
            checksum="0" * 64,
            stand_in=True,
            resize="tensorflow-bilinear-299",
            num_features=2048,
        )

    def _extract(self, images_uint8: torch.Tensor) -> Features:
        return Features(self.network(images_uint8)[0], None)


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, with the seconds that each call takes appended to a list."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        start_time = time.perf_counter()
        result = function(*arguments, **keywords)
        seconds.append(time.perf_counter() - start_time)
        return result

    return call


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    in_generator: list[float] = []
    in_extractor: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "portraits.zip"
        write_portraits(data, resolution=64, num=64)
        G, extractor = load_generator("demo"), RandomInception()
        G.mapping.forward = timed(G.mapping.forward, in_generator)  # type: ignore[method-assign]
        G.synthesis.forward = timed(G.synthesis.forward, in_generator)  # type: ignore[method-assign]
        extractor._extract = timed(extractor._extract, in_extractor)  # type: ignore[method-assign]
        pictures = GeneratedPictures(G, seed=0, labels=ImageDataset(data))
        start_time = time.perf_counter()
        measurements = measure(
            pictures, f"fid{options.num / 1000:g}k_full", Tools(extractor=extractor), cache=Path(folder) / "cache"
        )
        total = time.perf_counter() - start_time
    networks = sum(in_generator) + sum(in_extractor)
    final = measurements[0].seconds
    num_real, num = measurements[0].num_real, options.num
    outside = (total - networks - final) / (num + num_real)
    per_picture = sum(in_generator) / num + sum(in_extractor) / (num + num_real)
    result = {
        "machine": f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}",
        "generated": num,
        "real": num_real,
        "total_sec": total,
        "generator_sec": sum(in_generator),
        "extractor_sec": sum(in_extractor),
        "final_number_sec": final,
        "extractor_images_per_sec": (num + num_real) / sum(in_extractor),
        "share_outside_networks": 1 - networks / total,
        "share_outside_networks_of_50k": (outside * 50000 + final) / ((outside + per_picture) * 50000 + final),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
