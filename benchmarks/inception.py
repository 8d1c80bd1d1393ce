"""Pictures per second through Inception on this machine's CPU: `python benchmarks/inception.py --batch 32`.

The weights are random, which costs the same. Prints one JSON object: with one thread and with all, in torch-fidelity's
own memory layout and in the one that `styleforge.features` chooses, and how far the features of the two are apart.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class RandomInception(FeatureExtractorInceptionV3):
    """Has random weights that keep the scale of features."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> None:
        for module in self.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)


def pictures_per_second(network: torch.nn.Module, images_uint8: torch.Tensor, threads: int, repeats: int) -> float:
    """The best of some repeats, after one that counts for nothing."""
    torch.set_num_threads(threads)
    seconds = []
    for _ in range(1 + repeats):
        start_time = time.perf_counter()
        network(images_uint8)
        seconds.append(time.perf_counter() - start_time)
    return len(images_uint8) / min(seconds[1:])


def cpu_name() -> str:
    """What the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="pictures at a time")
    parser.add_argument("--resolution", type=int, default=64, help="their side, before they are resized to 299")
    parser.add_argument("--repeats", type=int, default=2, help="of each measurement, of which the best counts")
    arguments = parser.parse_args()

    file = io.BytesIO()
    torch.save({}, file)
    file.seek(0)
    network = RandomInception("inception", ["2048"], feature_extractor_weights_path=file)
    shape = (arguments.batch, 3, arguments.resolution, arguments.resolution)
    images_uint8 = torch.randint(0, 256, shape, dtype=torch.uint8)
    all_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results: dict[str, float] = {}
    features = []
    for layout, memory_format in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
        network.to(memory_format=memory_format)
        for threads in sorted({1, all_threads}):
            speed = pictures_per_second(network, images_uint8, threads, arguments.repeats)
            results[f"{layout}, {threads} thread{'s' if threads > 1 else ''}"] = round(speed, 2)
        features.append(network(images_uint8[:2])[0])
    report = {
        "pictures_per_second": results,
        "largest_difference_of_features": (features[0] - features[1]).abs().max().item(),
        "largest_feature": features[0].abs().max().item(),
        "batch": arguments.batch,
        "resolution": arguments.resolution,
        "machine": {
            "cpu": cpu_name(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": all_threads,
            "torch": torch.__version__,
            "system": platform.platform(),
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
