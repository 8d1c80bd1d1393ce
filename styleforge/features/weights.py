"""Weight files of published networks: where they are found, and how they are read without running what is in them."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from styleforge.downloads import cache_dir, fetch


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """A file that somebody publishes."""

    name: str
    """Its file name."""
    url: str
    """Where it is published."""
    sha256: str
    """The first digits of its digest, as they stand in its name."""
    holds: str
    """What it holds, for messages."""


INCEPTION = WeightFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",
    holds="torch-fidelity's InceptionV3",
)
VGG16 = WeightFile(
    name="vgg16-397923af.pth",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af",
    holds="torchvision's VGG16",
)


def folders(weights_dir: str | Path | None) -> list[Path]:
    """Where weight files are looked for: the user's folder, then the caches of this project and of PyTorch.

    Raises:
        OSError: The user's folder does not exist.
    """
    given = weights_dir or os.environ.get("STYLEFORGE_WEIGHTS")
    own = [Path(given)] if given else []
    if own and not own[0].is_dir():
        raise NotADirectoryError(
            f"{given}: there is no such folder, expected one with weight files (--weights-dir, STYLEFORGE_WEIGHTS)"
        )
    return [*own, cache_dir() / "weights", Path(torch.hub.get_dir()) / "checkpoints"]


def find(name: str, weights_dir: str | Path | None) -> Path | None:
    """The file of a name where it lies on this machine; None if it does not."""
    return next((folder / name for folder in folders(weights_dir) if (folder / name).is_file()), None)


def locate(
    file: WeightFile, *, path: str | Path | None = None, weights_dir: str | Path | None = None, offline: bool = False
) -> Path:
    """Finds a weight file, or downloads it into the cache.

    Args:
        file: Which one.
        path: Where it is, if that is known.
        weights_dir: A folder to look in first; None for $STYLEFORGE_WEIGHTS.
        offline: Never download; so does $STYLEFORGE_OFFLINE.

    Raises:
        ValueError: What was downloaded is not what was published.
        OSError: It is nowhere, and cannot be fetched.
    """
    if path is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: there is no such file, expected the weights of {file.holds}")
        return Path(path)
    found = find(file.name, weights_dir)
    if found is not None:
        return found
    try:
        return fetch(file.url, cache_dir() / "weights" / file.name, sha256=file.sha256, offline=offline)
    except OSError as error:
        reason = " ".join(str(error.__cause__ or "downloads are forbidden").split())
        raise FileNotFoundError(
            f"{file.name}: got no such file and could not fetch it ({reason}), expected the weights of {file.holds}: "
            f"download {file.url} and put it into {folders(weights_dir)[0]} (--weights-dir chooses another folder), or "
            "take the stand-in that needs none (--extractor random-vgg)"
        ) from error


def read(path: Path, holds: str) -> dict[str, Tensor]:
    """Reads a state of nothing but tensors; whatever else a file asks for is refused and not run.

    Args:
        path: A file by ``torch.save``.
        holds: What it should hold, for messages.

    Raises:
        ValueError: The file is damaged or holds something else.
        OSError: The file cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damage can raise anything
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path}: got a file that is damaged or holds more than tensors ({reason}), expected the weights of "
            f"{holds}; download it again"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path}: got no table of tensors, expected the weights of {holds}; download it again")
    return dict(state)


def build(
    make: Callable[[io.BytesIO], nn.Module], state: Mapping[str, Tensor], path: Path, holds: str, *, prefix: str = ""
) -> nn.Module:
    """Makes a network of torch-fidelity's around a state that was read safely.

    Its classes unpickle whatever file they are given. They get one made here, with the names and shapes of the state
    and none of its numbers: nothing is drawn, copied or run, and a wrong layout is noticed.

    Args:
        make: Makes the network from such a file.
        state: The weights.
        path: Where they come from, for messages.
        holds: What they should be, for messages.
        prefix: What the network's names have before the state's.

    Raises:
        ValueError: The names or shapes are not that network's.
    """
    shapes = io.BytesIO()
    torch.save({name: tensor.to("meta") for name, tensor in state.items()}, shapes)
    shapes.seek(0)
    try:
        with torch.device("meta"):
            network = make(shapes)
        wanted = [name for name in network.state_dict() if name.removeprefix(prefix) in state]
        network.load_state_dict({name: state[name.removeprefix(prefix)] for name in wanted}, assign=True)
    except RuntimeError as error:
        raise layout_error(path, holds, error) from error
    return network.float()


def layout_error(path: Path, holds: str, error: RuntimeError) -> ValueError:
    """What to raise when ``load_state_dict`` refuses a state."""
    reason = " ".join(str(error).split())[:200]
    return ValueError(f"{path}: got tensors of another network ({reason}…), expected the weights of {holds}")


def metrics_package(name: str) -> ModuleType:
    """Imports one of the packages that measuring with published networks takes.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_package(name) from error


def missing_package(name: str) -> ValueError:
    """What to raise when one of these packages is missing."""
    return ValueError(
        f"{name.partition('.')[0]}: got no such package, expected it for features of published networks: pip install "
        '"styleforge[metrics]", or take the stand-in that needs none (--extractor random-vgg)'
    )


def file_checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
