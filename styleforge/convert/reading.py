"""Checkpoints of any kind, recognised by what is in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styleforge import checkpoint
from styleforge.checkpoint import Checkpoint, Network, is_url
from styleforge.convert import nvlabs, pickle_files, rosinality, tensorflow
from styleforge.convert.card import checked_facts
from styleforge.convert.modules import flatten, is_module
from styleforge.convert.state import as_number, as_tensors, has, shown
from styleforge.convert.unpickle import Record
from styleforge.latents.statistics import moments, sample_w
from styleforge.networks import Discriminator

MAX_W_DIM = 2048
"""Longest w of which the mean is estimated, from `NUM_SAMPLES`."""
NUM_SAMPLES = 10_000
DECODER = "decoder."
"""What the generator's names begin with in files of encoders (pSp, e4e and their kin)."""
OURS = "styleforge"
OURS_KEY = "styleforge"
"""Where files for others keep, as JSON text, what only we know about the networks."""
NAMES = ("G_ema", "G", "D")
"""What a checkpoint holds."""
MAX_TENSORS = 100_000
"""Of one file; the networks of all kinds have some thousands at most."""
MAX_MEAN_WEIGHTS = 1 << 23
"""Weights of a mapping network of which the mean of w is estimated; eight layers of 512 have 2 million."""
ROSINALITY_KEYS = {"G_ema": "g_ema", "G": "g", "D": "d"}
"""Their names in files of rosinality/stylegan2-pytorch."""


@dataclass(kw_only=True, slots=True)
class _Found:
    """What a foreign file turned out to be."""

    kind: str
    """For people."""
    networks: dict[str, Network]
    """``G_ema``, ``G``, ``D``."""
    notes: list[str] = field(default_factory=list)
    """What was left out, or guessed."""
    info: dict[str, Any] = field(default_factory=dict)
    """What else is known."""
    config: dict[str, Any] = field(default_factory=dict)
    """The training's config."""


def load_any(source: str | Path) -> Checkpoint:
    """Reads a checkpoint of any kind, without executing anything in it.

    Kinds: ours; official PyTorch pickles (StyleGAN2-ADA, StyleGAN2 networks of StyleGAN3's release); official
    TensorFlow pickles (StyleGAN, StyleGAN2, StyleGAN2-ADA); rosinality/stylegan2-pytorch; state dicts under official
    names or that project's. The kind follows from the contents, not from the name.

    Args:
        source: A file, a URL (fetched once; ``#sha256=…`` at its end is checked), a run directory, or a bundled name.

    Returns:
        Its networks in float32 on the CPU. Of foreign files and of URLs ``info["source"]`` tells kind, name, length and
        SHA-256; ``info["notes"]`` tells what was left out or guessed, and in files that were converted before,
        ``info["origin"]`` what they were made from.

    Raises:
        ValueError: The file is damaged, of an unknown kind, holds no network that has a config here, or asks for code
            to be executed.
        OSError: There is no such file, or it cannot be read or fetched.
    """
    path = checkpoint.resolve(source)
    if _is_safetensors(path):
        tree: Any = _read_foreign_safetensors(path)
        if tree is None:
            loaded = checkpoint.load(path)
            loaded.source = str(source)
            loaded.info = checked_facts(loaded.info, str(source))
            if is_url(source):
                loaded.info["source"] = _facts(path, source, OURS)
            return loaded
    else:
        tree = pickle_files.read(path)
    found = _recognise(tree, str(source))
    info = found.info | {"notes": found.notes} if found.notes else found.info
    info["source"] = _facts(path, source, found.kind)
    networks: dict[str, Any] = {name: network.eval() for name, network in found.networks.items()}
    return Checkpoint(info=info, config=found.config, source=str(source), **networks)


def kind_of(loaded: Checkpoint) -> str:
    """What kind of file a checkpoint came from."""
    source = loaded.info.get("source")
    return str(source["kind"]) if isinstance(source, Mapping) and "kind" in source else OURS


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins with a length and a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_foreign_safetensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a safetensors file; None for a file of ours, or a broken one, about which ours will say more."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise ValueError(
                    f"{path}: got {len(names):,} tensors, expected at most {MAX_TENSORS:,}; is it a checkpoint?"
                )
            if (file.metadata() or {}).get("format") == checkpoint.FORMAT:
                return None
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError:
        return None
    except (TypeError, RuntimeError, OverflowError) as error:  # PyTorch's, about shapes that it does not have
        raise ValueError(
            f"{path}: got tensors of shapes or types that PyTorch does not have, expected a network's; is it damaged?"
        ) from error


def _facts(path: Path, source: str | Path, kind: str) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    where = {"url": str(source)} if is_url(source) else {"file": path.name}
    return {"kind": kind, **where, "bytes": path.stat().st_size, "sha256": digest}


def _recognise(tree: Any, what: str) -> _Found:
    """Finds out what was read, and makes its networks.

    Raises:
        ValueError: No kind fits; or the networks have no config here.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and then replaced
            found = _from_tensorflow(tree) or _from_modules(tree) or _from_states(tree)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:500]
        if not isinstance(error, ValueError) or "expected" not in reason:
            reason = f"got contents that are damaged ({reason[:200]}), expected a network's; take another copy"
        raise ValueError(f"{what}: {reason}") from error
    if found is None:
        kind = f"an object of {shown(tree.cls)}" if isinstance(tree, Record) else f"a {type(tree).__name__}"
        inside = f" of {', '.join(map(shown, list(tree)[:5]))}" if isinstance(tree, Mapping) and tree else ""
        raise ValueError(
            f"{what}: got {kind}{inside}, expected networks of StyleGAN or StyleGAN2: a checkpoint of "
            "styleforge, of NVIDIA's releases or of rosinality/stylegan2-pytorch"
        )
    return found


def _from_tensorflow(tree: Any) -> _Found | None:
    """The TensorFlow releases' pickles: (G, D, Gs), or Gs alone."""
    records = [tree] if isinstance(tree, Record) else tree if isinstance(tree, list | tuple) else []
    if len(records) not in (1, 3) or not all(tensorflow.is_network(one) for one in records):
        return None
    parts = [(tensorflow.variables(one), tensorflow.static_kwargs(one)) for one in records]
    (g_variables, g_kwargs), (variables, kwargs) = parts[0], parts[-1]
    networks: dict[str, Any] = {"G_ema": tensorflow.from_variables(variables, g_kwargs=kwargs)[0]}
    if len(parts) == 3:
        d_variables, d_kwargs = parts[1]
        both = tensorflow.from_variables(g_variables, d_variables, g_kwargs=g_kwargs, d_kwargs=d_kwargs)
        networks |= dict(zip("GD", both, strict=True))
    version = as_number(records[0].state.get("version"), "version")
    found = _Found(kind=f"official TensorFlow pickle, version {version}", networks=networks)
    lod = as_number(variables.get("lod", 0), "lod")
    if lod > 0:
        found.notes.append(f"made while the network grew: its pictures are those of level of detail {lod:g} (--lod)")
    return found


def _from_modules(tree: Any) -> _Found | None:
    """PyTorch modules in a pickle: the official releases', and modules saved whole."""
    parts = {"G_ema": tree} if is_module(tree) else tree if isinstance(tree, Mapping) else {}
    modules = {name: parts[name] for name in NAMES if is_module(parts.get(name))}
    if not modules:
        return None
    found = _Found(kind="official PyTorch pickle", networks={})
    for name, module in modules.items():
        state, attributes = flatten(module, name)
        if has(state, "to_rgb1."):
            found.networks[name] = rosinality.generator(state)
            continue
        network = nvlabs.from_module(module)
        found.networks["D" if isinstance(network, Discriminator) else name] = network
        if any(one.get("num_fp16_res") or one.get("use_fp16") for one in attributes.values()):
            found.notes.append(f"{name}: half precision is chosen at run time here, not stored with the network")
    if is_module(parts.get("augment_pipe")):
        found.notes.append("augment_pipe: left out; training starts with an augmentation of its own")
    dataset = parts.get("training_set_kwargs")
    if isinstance(dataset, Mapping):
        facts = {key: dataset.get(key) for key in ("resolution", "use_labels", "max_size", "xflip")}
        found.info["training_set"] = {k: v for k, v in facts.items() if isinstance(v, bool | int | str)}
    return found


def _from_states(tree: Any) -> _Found | None:
    """State dicts: several under names, or one alone."""
    if not isinstance(tree, Mapping):
        return None
    if any(isinstance(tree.get(key), Mapping) for key in ROSINALITY_KEYS.values()):
        return _from_rosinality(tree)
    if any(isinstance(tree.get(key), Mapping) for key in NAMES):
        return _from_official_states(tree)
    inner = tree.get("state_dict")
    state = inner if isinstance(inner, Mapping) else tree
    state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    if any(name.startswith(f"{DECODER}to_rgb1.") for name in state):
        generator = {name.removeprefix(DECODER): x for name, x in state.items() if name.startswith(DECODER)}
        found = _from_rosinality({"g_ema": generator, "latent_avg": tree.get("latent_avg")})
        found.kind = "encoder with a rosinality generator"
        if len(generator) < len(state):
            found.notes.append(f"the encoder: left out; of the generator alone ({DECODER}…) there is a network here")
        return found
    if has(state, "to_rgb1."):
        return _from_rosinality({"g_ema": state, "latent_avg": tree.get("latent_avg")})
    if has(state, "final_conv."):
        return _Found(kind="rosinality state dict", networks={"D": rosinality.discriminator(state)})
    if has(state, "synthesis."):
        return _Found(kind="official state dict", networks={"G_ema": nvlabs.generator(state)})
    if has(state, "b4.fc.", "b4.out."):
        return _Found(kind="official state dict", networks={"D": nvlabs.discriminator(state)})
    return None


def _from_rosinality(tree: Mapping[str, Any]) -> _Found:
    """A file of rosinality/stylegan2-pytorch: g, d, g_ema, latent_avg, and from training optimizers and args."""
    found = _Found(kind="rosinality checkpoint", networks={})
    for ours, theirs in ROSINALITY_KEYS.items():
        if not isinstance(tree.get(theirs), Mapping):
            continue
        state = {str(name).removeprefix("module."): tensor for name, tensor in tree[theirs].items()}
        if ours == "D":
            found.networks["D"] = rosinality.discriminator(state)
            continue
        mean = tree.get("latent_avg_g" if ours == "G" and "latent_avg_g" in tree else "latent_avg")
        if mean is not None:
            mean = as_tensors({"latent_avg": mean})["latent_avg"]
            if mean.ndim == 2 and len(mean) > 1:  # [L, W], as encoders keep it; mostly one row again and again
                if not (mean == mean[0]).all():
                    found.notes.append(f"{ours}: w_avg is the mean of the file's {len(mean)} latent_avg, one per layer")
                mean = mean[0] if (mean == mean[0]).all() else mean.mean(0)
        G = rosinality.generator(state, mean)
        if not has(state, rosinality.NOISES):
            found.notes.append(f"{ours}: noise maps drawn here, always the same, since the file has none")
        if mean is None:
            if G.w_dim > MAX_W_DIM:
                raise ValueError(
                    f"{theirs}: got no latent_avg for w of length {G.w_dim}, expected at most {MAX_W_DIM} without it"
                )
            weights = sum(parameter.numel() for parameter in G.mapping.parameters())
            if weights > MAX_MEAN_WEIGHTS:
                raise ValueError(
                    f"{theirs}: got no latent_avg for a mapping network of {weights:,} weights, expected at most "
                    f"{MAX_MEAN_WEIGHTS:,} without it"
                )
            G.mapping.w_avg.copy_(moments(sample_w(G, NUM_SAMPLES))[0])
            found.notes.append(f"{ours}: w_avg estimated from random latents, since the file has no latent_avg")
        found.networks[ours] = G
    for key in ("g_optim", "d_optim"):
        if key in tree:
            found.notes.append(f"{key}: left out, the optimizer's state of another trainer")
    return _restore(found, tree)


def _from_official_states(tree: Mapping[str, Any]) -> _Found:
    """A file with official state dicts, and the arguments of the classes that they are for."""
    found = _Found(kind="official state dicts", networks={})
    arguments = tree.get("init_kwargs")
    for name in NAMES:
        state = tree.get(name)
        if not isinstance(state, Mapping):
            continue
        own = arguments.get(name) if isinstance(arguments, Mapping) else None
        given = nvlabs.settings(own if isinstance(own, Mapping) else {})
        clamp = given["conv_clamp"]
        if name == "D":
            found.networks[name] = nvlabs.discriminator(state, mbstd_group=given["mbstd_group"], conv_clamp=clamp)
        else:
            lr_multiplier = given["mapping_lr_multiplier"]
            found.networks[name] = nvlabs.generator(state, conv_clamp=clamp, mapping_lr_multiplier=lr_multiplier)
    return _restore(found, tree)


def _restore(found: _Found, tree: Mapping[str, Any]) -> _Found:
    """Takes over the configs and facts that a file keeps which we have written for others."""
    text = tree.get(OURS_KEY)
    if not isinstance(text, str):
        return found
    kept = json.loads(text)
    if not isinstance(kept, dict) or not all(isinstance(kept.get(key), dict) for key in ("info", "config", "networks")):
        raise ValueError(f"{OURS_KEY}: got facts of another form, expected what styleforge writes; convert it again")
    found.info, found.config = checked_facts(kept["info"], OURS_KEY), kept["config"]
    for name, network in found.networks.items():
        values = kept["networks"].get(name)
        if not isinstance(values, dict):
            raise ValueError(f"{OURS_KEY}: got no config of {name}, expected one for each network; convert it again")
        found.networks[name] = checkpoint.filled(checkpoint.read_config(name, values), network.state_dict())
    return found
