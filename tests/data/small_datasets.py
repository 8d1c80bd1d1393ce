"""Small datasets in every form."""

import io
import json
import zipfile
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image


def encode(pixels, **settings):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **({"format": "png"} | settings))
    return stream.getvalue()


def random_pictures(names, shape=(16, 8, 3), seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 256, shape, dtype=np.uint8) for name in names}


def write_folder(path, files):
    for name, content in files.items():
        target = Path(path, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return Path(path)


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Path(path)


def write_lmdb(path, files):
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for name, content in files.items():
            transaction.put(name.encode(), content)
    return Path(path)


def with_labels(files, labels):
    return files | {"dataset.json": json.dumps({"labels": labels}).encode()}
