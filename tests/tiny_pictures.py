"""Small datasets for the tests."""

import json
import zipfile

import numpy as np
from PIL import Image


def write_pictures(path, num, *, size=16, channels=3, classes=None, num_classes=None, seed=0):
    """A zip of random smooth pictures, each of another colour; with labels if ``classes`` gives picture i's class."""
    rng = np.random.default_rng(seed)
    names = [f"{i:04d}.png" for i in range(num)]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            pixels = rng.integers(0, 256, (4, 4, channels), dtype=np.uint8)
            image = Image.fromarray(pixels if channels > 1 else pixels[:, :, 0]).resize((size, size), Image.BICUBIC)
            with archive.open(name, "w") as file:
                image.save(file, "png")
        if classes is not None:
            labels = [[name, np.eye(num_classes)[classes(i)].tolist()] for i, name in enumerate(names)]
            archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return str(path)
