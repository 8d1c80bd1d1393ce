"""Checkpoints: safetensors with the configs as JSON inside. Nothing in them can execute code.

One file holds the networks (``G_ema.…``, ``G.…``, ``D.…``), whatever training state goes with them
(``training.…``), and a JSON header with the configs. A digest over names and bytes guards the whole; files are
written beside their target and then moved over it, so that a broken one never takes a good one's place.
"""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from styleforge.downloads import cache_dir, fetch
from styleforge.files import atomic_path
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

SUFFIX = ".safetensors"
FORMAT = "styleforge checkpoint 1"
BUNDLED = Path(__file__).parent / "models"
"""Where the models that come with the package lie; their file names are the names that `load` takes."""
MAX_SIDE = 1 << 16
"""Of a network's pictures, in pixels."""
MAX_LAYERS = 100
"""Of one kind in a network."""
_MAX_NUMBER = 1 << 24

Network = Generator | Discriminator
NetworkConfigs = GeneratorConfig | DiscriminatorConfig


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """What a file holds."""

    G_ema: Generator | None = None
    """The averaged generator: the one that makes pictures."""
    G: Generator | None = None
    """The generator in training."""
    D: Discriminator | None = None
    """The discriminator."""
    config: dict[str, Any] = field(default_factory=dict)
    """The training's config as JSON objects; empty when the networks came from elsewhere."""
    training: dict[str, Tensor] = field(default_factory=dict)
    """Tensors of the training state (optimizers and so on); empty unless training goes on from here."""
    info: dict[str, Any] = field(default_factory=dict)
    """Facts about the file as JSON objects: counters, what made it, licence notes, metrics."""
    source: str = ""
    """What it was loaded from."""

    @property
    def generator(self) -> Generator:
        """The generator that makes pictures: the averaged one, or the other where there is none. Its weights are fixed.

        Raises:
            ValueError: There is none.
        """
        G = self.G_ema or self.G
        if G is None:
            raise ValueError(f"{self.source}: got a checkpoint without a generator, expected one with G_ema or G")
        return G.requires_grad_(False)

    @property
    def lod(self) -> float:
        """Level of detail that a progressive network had grown to; 0, its full size, for all others."""
        lod = self.info.get("lod", 0.0)
        if not isinstance(lod, int | float):
            raise ValueError(f"{self.source}: got a {type(lod).__name__} as level of detail, expected a number")
        return float(lod)


def save(
    path: str | Path,
    *,
    G_ema: Generator | None = None,
    G: Generator | None = None,
    D: Discriminator | None = None,
    config: Mapping[str, Any] | None = None,
    training: Mapping[str, Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a checkpoint, atomically.

    Args:
        path: Target file, with the ending ``.safetensors``.
        G_ema: The averaged generator.
        G: The generator in training.
        D: The discriminator.
        config: The training's config as JSON objects.
        training: Tensors of the training state.
        info: Facts about the file as JSON objects.
        dtype: Float type in which the networks are stored; None keeps theirs.

    Raises:
        OSError: The file cannot be written; an older one of the same name stays as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    networks: dict[str, nn.Module] = {
        name: network for name, network in (("G_ema", G_ema), ("G", G), ("D", D)) if network is not None
    }
    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {"config": dict(config or {}), "info": dict(info or {}), "networks": {}}
    for name, network in networks.items():
        assert isinstance(network, Generator | Discriminator)
        header["networks"][name] = network.config.to_dict()
        for key, tensor in network.state_dict().items():
            tensors[f"{name}.{key}"] = tensor.to(dtype or tensor.dtype)
    tensors |= {f"training.{key}": tensor for key, tensor in (training or {}).items()}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    metadata = {"format": FORMAT, "header": text, "sha256": _digest(tensors, text)}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except SafetensorError as error:  # wraps what the system says
        raise OSError(f"{path}: could not be written ({error}); is the disk full?") from error


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """SHA-256 over the header, and the name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load(source: str | Path) -> Checkpoint:
    """Reads a checkpoint and checks it against its digest.

    Args:
        source: A file, a URL (fetched once, see `styleforge.downloads`), or the name of a bundled model (``demo``).

    Returns:
        Its networks in float32 on the CPU, and its config.

    Raises:
        ValueError: The file is damaged, cut off, or of another kind.
        OSError: There is no such file, or it cannot be read or fetched.
    """
    from safetensors import SafetensorError, safe_open

    path = resolve(source)
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == FORMAT:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, TypeError, RuntimeError, OverflowError) as error:  # PyTorch's, about impossible shapes
        raise ValueError(
            f"{source}: got a file that is damaged, cut off or of another kind "
            f"({' '.join(str(error).split())[:200]}), expected a styleforge "
            "checkpoint; take another copy or an earlier snapshot"
        ) from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{source}: got a safetensors file without '{FORMAT}' in it, expected a checkpoint written by styleforge"
        )
    if metadata.get("sha256") != _digest(tensors, metadata.get("header", "")):
        raise ValueError(
            f"{source}: got contents that do not match their own checksum, expected an undamaged file; "
            "take another copy or an earlier snapshot"
        )
    try:
        return _assemble(json.loads(metadata["header"]), tensors, str(source))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(
            f"{source}: got networks that do not fit their configs ({' '.join(str(error).split())[:200]}), expected "
            "a checkpoint of this version; is the file newer?"
        ) from error


def _assemble(header: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> Checkpoint:
    """Builds the networks that a header describes and deals their tensors out to them."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, key = name.split(".", 1)
        parts.setdefault(part, {})[key] = tensor
    networks: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and then replaced
        for name in header["networks"]:
            if name not in ("G_ema", "G", "D"):
                raise ValueError(f"unknown network {name!r}")
            values = {key: tensor.float() for key, tensor in parts.get(name, {}).items()}
            networks[name] = filled(read_config(name, header["networks"][name]), values).eval()
    training, (config, info) = parts.get("training", {}), (header["config"], header["info"])
    if not isinstance(config, dict) or not isinstance(info, dict):
        raise ValueError("facts that are no objects")
    return Checkpoint(config=config, info=info, training=training, source=source, **networks)


def read_config(name: str, values: Mapping[str, Any]) -> NetworkConfigs:
    """Makes the config of a network out of a file, whose numbers may be damaged or meant to do harm.

    Args:
        name: ``G_ema``, ``G`` or ``D``.
        values: The config's fields.

    Raises:
        ValueError: A field that this version does not know, a value that does not fit, or a number beyond all networks.
    """
    limits = {"resolution": MAX_SIDE, "mapping_layers": MAX_LAYERS}
    for field_name, value in values.items():
        limit = limits.get(field_name, _MAX_NUMBER)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= limit:  # nor not a number
                raise ValueError(f"{name}.{str(field_name)[:40]}: got {number:.6g}, expected at most {limit}")
    for field_name in ("conv_clamp", "mapping_lr_multiplier"):
        value = values.get(field_name)
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise ValueError(f"{name}.{field_name}: got {str(value)[:40]!r}, expected a number above 0")
    return (DiscriminatorConfig if name == "D" else GeneratorConfig).from_dict(values)


def make(config: NetworkConfigs) -> Network:
    """The network of a config."""
    return Generator(config) if isinstance(config, GeneratorConfig) else Discriminator(config)


def shapes_of(config: NetworkConfigs) -> dict[str, torch.Size]:
    """Name and shape of every tensor of a network, without the memory for it."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in make(config).state_dict().items()}


def filled(config: NetworkConfigs, tensors: Mapping[str, Tensor]) -> Network:
    """Makes a network of tensors, which must be those of its config before memory is taken for it.

    Raises:
        ValueError: A tensor is missing, superfluous, or of another shape.
    """
    want = shapes_of(config)
    have = {name: tensor.shape for name, tensor in tensors.items()}
    for name in sorted(want.keys() | have.keys()):
        got, expected = (list(found[name]) if name in found else "nothing" for found in (have, want))
        if got != expected:
            raise ValueError(f"got {got} for {name[:80]!r}, expected {expected}")
    network = make(config)
    network.load_state_dict(dict(tensors))
    return network


def load_generator(source: str | Path) -> Generator:
    """Reads the generator that makes pictures: the averaged one, or the other where a file has none.

    Args:
        source: As `load` takes it.

    Raises:
        ValueError: The file is damaged, of another kind, or has no generator.
        OSError: There is no such file, or it cannot be read or fetched.
    """
    return load(source).generator


def is_url(source: str | Path) -> bool:
    """Whether a source is to be fetched."""
    return urllib.parse.urlparse(str(source)).scheme in ("http", "https")


def resolve(source: str | Path) -> Path:
    """Finds the file behind a path, a run directory (its last snapshot), a bundled name, or a URL.

    A URL is fetched once, into the cache. With ``#sha256=…`` at its end, the file must have that digest.

    Raises:
        ValueError: What was fetched has another digest.
        OSError: There is none, or it cannot be fetched.
    """
    text = str(source)
    if is_url(source):
        url = urllib.parse.urlparse(text)
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{Path(url.path).name or 'checkpoint'}"
        wanted = dict(urllib.parse.parse_qsl(url.fragment)).get("sha256")
        return fetch(url._replace(fragment="").geturl(), cache_dir() / "downloads" / name, sha256=wanted)
    path = Path(source)
    bundled = sorted(file.stem for file in BUNDLED.glob(f"*{SUFFIX}"))
    if text in bundled and not path.is_file():  # also beside a folder of that name, such as `make demo` leaves
        return BUNDLED / f"{text}{SUFFIX}"
    if path.is_dir():
        snapshots = sorted(path.glob(f"network-snapshot-*{SUFFIX}"))
        if not snapshots:
            raise FileNotFoundError(f"{source}: got a folder without network-snapshot-*{SUFFIX}, expected a run's")
        return snapshots[-1]
    if path.exists():
        return path
    names = f", or one of the bundled models {', '.join(bundled)}" if bundled else ""
    raise FileNotFoundError(f"{source}: there is no such file, expected a checkpoint's path or URL{names}")
