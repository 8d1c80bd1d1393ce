"""Files that are whole pickles or safetensors, but whose networks want time or memory without end."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from styleforge import checkpoint
from styleforge.convert import nvlabs, rosinality
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

from . import hostile
from .official_files import Network, as_module, dump, official_pickle, tf_network
from .test_tensorflow import official_generator

SMALL = {"resolution": 8, "channel_base": 32, "channel_max": 4, "z_dim": 4, "w_dim": 4, "mapping_layers": 2}


def module(children=None, parameters=None, buffers=None, **attributes):
    """An object whose state is that of a PyTorch module."""
    one = Network()
    one.__dict__ = {
        "_modules": children or {},
        "_parameters": parameters or {},
        "_buffers": buffers or {},
        **attributes,
    }
    return one


def twin(state):
    """A module that shares its whole state with others."""
    one = Network()
    one.__dict__ = state
    return one


def modules(folder: Path) -> dict[str, bytes]:
    """Modules that hold each other, share what they hold, or have strange names."""
    x = np.zeros(1, np.float32)
    names = {f"name{i}": x for i in range(20_000)}
    tower, chain, itself = module(parameters={"a": x}), module(parameters={"a": x}), module()
    for _ in range(60):
        tower = module({"a": tower, "b": tower})
    for _ in range(100):
        chain = module({"n" * 150: chain})
    itself.__dict__["_modules"]["a"] = itself
    attributes = module(**names).__dict__
    leaves = {f"leaf{i}": module() for i in range(3000)}
    wide = module(leaves)
    for leaf in leaves.values():
        leaf.__dict__["_modules"] = leaves
    networks = {
        "shared parameters": module({f"m{i}": module(parameters=names) for i in range(5000)}),
        "shared modules": wide,
        "shared attributes": module({f"m{i}": twin(attributes) for i in range(5000)}),
        "tower": tower,
        "chain of long names": chain,
        "module in itself": itself,
        "long name": module(parameters={"n" * 1_000_000: x}),
        "dotted name": module({"b4": module({"conv1": module(parameters={"bias": x})})}, {"b4.conv1.bias": x}),
        "parameter and buffer": module(parameters={"a": x}, buffers={"a": x}),
        "empty name": module({"": module(parameters={"a": x})}),
        "number as a name": module(parameters={7: x}),
        "bytes as a name": module({b"a": module()}),
        "strange name": module(parameters={"\x1b[2J\n\u202e got": x, "synthesis": x}),
        "strange number": module({"synthesis": module({"b" + "9" * 150: module(parameters={"bias": x})})}),
        "hidden names": module(buffers=names, _non_persistent_buffers_set=[f"h{i}" for i in range(100_000)]),
        "hidden tensor": module(buffers=names, _non_persistent_buffers_set=np.zeros(1000)),
    }
    return {name: dump({"G_ema": one}, folder / "x").read_bytes() for name, one in networks.items()}


def hollow(network_class, config, limit=4_000_000):
    """The names of a network of any size; tensors of more than ``limit`` numbers are cut down to one number."""
    with torch.device("meta"):
        state = network_class(config).state_dict()
    return {name: torch.zeros(x.shape if x.numel() <= limit else [1] * x.ndim) for name, x in state.items()}


def official(state):
    return {nvlabs._official_name(name): tensor for name, tensor in state.items()}


def states(folder: Path) -> dict[str, bytes]:
    """State dicts whose names and shapes claim networks that are not in the file."""
    corpus = {}

    def save(name, value):
        torch.save(value, folder / "x")
        corpus[name] = (folder / "x").read_bytes()

    small = Generator(GeneratorConfig(**SMALL))
    theirs, ours = rosinality.to_state(small), nvlabs.to_state(small)
    for name, values in {
        "pixels": {"resolution": 1 << 16, "channel_base": 1 << 16, "channel_max": 1},
        "more pixels": {"resolution": 1 << 20, "channel_base": 1 << 20, "channel_max": 1},
        "pixels without end": {"resolution": 1 << 80, "channel_base": 1 << 80, "channel_max": 1},
        "channels": {"channel_base": 8_000_000, "channel_max": 1_000_000},
        "long w": {"channel_max": 1, "w_dim": 1_000_000, "z_dim": 4, "mapping_layers": 3},
    }.items():
        if values.get("resolution", 0) < 1 << 30:
            save(f"official, {name}", official(hollow(Generator, GeneratorConfig(**SMALL | values))))
    values = {"resolution": 8, "channel_base": 8_000_000, "channel_max": 1_000_000}
    save("official discriminator, channels", official(hollow(Discriminator, DiscriminatorConfig(**values))))
    bias = torch.zeros(1)
    save("official, blocks", ours | {f"synthesis.b{4 << i}.conv1.bias": bias for i in range(2, 1000)})
    save("official, layers", ours | {f"mapping.fc{i}.weight": torch.zeros(4, 4) for i in range(5000)})
    save("official, a number of a layer", ours | {"mapping.fc999999999.weight": bias})
    tied = {f"mapping.fc{i}.{k}": x for k, x in (("weight", torch.zeros(1500, 1500)), ("bias", torch.zeros(1500)))
            for i in range(100)}  # fmt: skip
    save("official, one tensor in all layers", ours | tied)
    save("official, empty tensor", ours | {"synthesis.b4.conv1.affine.weight": torch.zeros(0, 10**9)})
    save("official, filter", ours | {"synthesis.b8.resample_filter": torch.zeros(300_000)})
    save("one half under many names", ours | dict.fromkeys(map(str, range(20_000)), torch.zeros(1_000_000).half()))
    save("many names", {"g_ema": theirs | dict.fromkeys(map(str, range(20_000)), torch.zeros(1_000_000).char())})
    save("keys", {"G_ema": {5: bias, b"x": bias, "synthesis.b4": bias}})
    save("name", ours | {"x" * 10_000_000: bias})
    save("control characters", ours | {"\x1b[31m\n": bias})
    W = 200_000
    for name, changed in {
        "W": {"conv1.conv.modulation.weight": torch.zeros(4, W)},
        "W and an empty tensor": {"conv1.conv.modulation.weight": torch.zeros(0, W)},
        "blocks": {f"to_rgbs.{i}.bias": bias for i in range(90)}
        | {f"convs.{i}.activate.bias": bias for i in range(180)},
        "layers": {f"style.{i}.weight": bias for i in range(5000)},
        "channels": {"to_rgb1.bias": torch.zeros(1, 1_000_000, 1, 1)},
        "no channel": {"to_rgb1.bias": torch.zeros(1, 0, 1, 1)},
        "flat": {"conv1.activate.bias": torch.zeros(())},
        "numbers": {"conv1.activate.bias": torch.zeros(1, 1, 1, 4)},
    }.items():
        save(f"rosinality, {name}", {"g_ema": theirs | changed})
        save(f"rosinality, {name}, no noise", {k: v for k, v in (theirs | changed).items() if "noises." not in k})
    wide = GeneratorConfig(resolution=8, channel_base=8, channel_max=1, z_dim=W, w_dim=W, mapping_layers=0)
    save("rosinality, long w without its mean", {"g_ema": rosinality.to_state(Generator(wide))})
    deep = {f"style.{i}.weight": torch.zeros(512, 512).char() for i in range(1, 100)}
    deep |= {f"style.{i}.bias": torch.zeros(512) for i in range(1, 100)}
    wide = GeneratorConfig(resolution=8, channel_base=8, channel_max=1, z_dim=512, w_dim=512, mapping_layers=1)
    save("rosinality, many layers without the mean of w", {"g_ema": rosinality.to_state(Generator(wide)) | deep})
    without = {k: v for k, v in theirs.items() if "noises." not in k}
    pixels = {f"to_rgbs.{i}.bias": bias for i in range(13)} | {
        f"convs.{i}.activate.bias": torch.zeros(1) for i in range(26)
    } | {"conv1.activate.bias": torch.zeros(1)}  # fmt: skip
    save("rosinality, pixels without noise", without | pixels)
    text = json.dumps(
        {"info": {}, "config": {}, "networks": {"G_ema": small.config.to_dict() | {"resolution": 1 << 20}}}
    )
    save("what we keep", {"g_ema": theirs, "latent_avg": torch.zeros(4), "styleforge": text})
    save("what we keep is nested", {"g_ema": theirs, "latent_avg": torch.zeros(4), "styleforge": "[" * 100_000})
    save("encoder", {"state_dict": {"decoder.to_rgb1.x": bias}, "latent_avg": torch.zeros(18, 4)})
    save("mean of w", {"g_ema": theirs, "latent_avg": torch.zeros(1000, 1000)})
    return corpus


def own_file(folder, values, tensors=None, **header):
    """A file of ours, checksum and all."""
    tensors = {"G_ema.x": torch.zeros(1)} if tensors is None else tensors
    text = json.dumps({"config": {}, "info": {}, "networks": {"G_ema": values}} | header)
    metadata = {"format": checkpoint.FORMAT, "header": text, "sha256": checkpoint._digest(tensors, text)}
    save_file(tensors, folder / "x", metadata=metadata)
    return (folder / "x").read_bytes()


def own_files(folder: Path) -> dict[str, bytes]:
    """Files of ours, with a right checksum, whose configs claim what is not in the file, or nonsense."""
    G = Generator(GeneratorConfig(**SMALL))
    config, tensors = G.config.to_dict(), {f"G_ema.{name}": x for name, x in G.state_dict().items()}
    changes = [
        {"resolution": 1 << 16, "channel_base": 1 << 16},
        {"resolution": 1 << 20, "channel_base": 1 << 20},
        {"resolution": 1 << 300, "channel_base": 1 << 300},
        {"resolution": 3**4000},
        {"resolution": [3**4000, 8]},
        {"channel_base": 1_000_000, "channel_max": 1_000_000},
        {"w_dim": 1_000_000},
        {"c_dim": 1_000_000},
        {"mapping_layers": 5000},
        {"mapping_layers": 10**9},
        {"mapping_lr_multiplier": 0},
        {"mapping_lr_multiplier": float("nan")},
        {"mapping_lr_multiplier": [0.01]},
        {"conv_clamp": "much"},
        {"conv_clamp": -1},
        {"conv_clamp": 1e400},
        {"resolution": "8"},
        {"x" * 100_000: 1},
    ]
    corpus = {str(one)[:60]: own_file(folder, config | one, tensors) for one in changes}
    corpus |= {
        "no tensors": own_file(folder, config),
        "a name without a dot": own_file(folder, config, tensors | {"x": torch.zeros(1)}),
        "networks": own_file(folder, config, tensors, networks=[config]),
        "another network": own_file(folder, config, tensors, networks={"G2": config}),
        "no config": own_file(folder, [1], tensors),
        "info": own_file(folder, config, tensors, info=[1]),
        "config": own_file(folder, config, tensors, config="text"),
        "source": own_file(folder, config, tensors, info={"source": "text"}),
        "origin": own_file(folder, config, tensors, info={"origin": [1]}),
        "training length": own_file(folder, config, tensors, info={"kimg": 10**400}),
        "number in the facts": own_file(folder, config, tensors, info={"notes": [{"a": 10**400}]}),
    }
    return corpus


def foreign_safetensors(_: Path) -> dict[str, bytes]:
    """Safetensors of shapes that PyTorch does not have, or of tensors without end."""

    def file(header: str, data: bytes = b"") -> bytes:
        return len(header).to_bytes(8, "little") + header.encode() + data

    empty = '"synthesis.%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return {
        "side": file('{"to_rgb1.bias":{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}}'),
        "tensors": file("{" + ",".join(empty % i for i in range(600_000)) + "}"),
    }


def tensorflow_pickles(folder: Path) -> dict[str, bytes]:
    """TensorFlow pickles with arrays, text and towers where other things belong."""
    G = Generator(GeneratorConfig(**SMALL, label_mode="matrix", input="constant"))
    variables = {name: np.asarray(x) for name, x in official_generator(G).items()}
    tower: tuple = (1, 1)
    for _ in range(60):
        tower = (tower, tower)
    odd = [np.zeros(1000), np.ones((3, 3)), "text" * 1000, {"a": [1]}, [[1, 3, 3, 1]], tower, [tower], ("text",), b"x"]
    corpus = {}

    def save(name, network):
        corpus[f"{name} {len(corpus)}"] = dump(network, folder / "x").read_bytes()

    def network(state=variables, kwargs=None):
        return tf_network(state, list(state), "Gs", "G_main", kwargs or {}, 4)

    for key in ("resample_kernel", "nonlinearity", "mapping_lrmul", "conv_clamp"):
        for value in odd:
            save(key, network(kwargs={key: value}))
    for value in (0, -1, float("nan"), float("inf"), 10**300):
        save("mapping_lrmul", network(kwargs={"mapping_lrmul": value}))
    stylegan = Generator(GeneratorConfig(**SMALL, label_mode="matrix", input="constant", style_block="instance",
                                         architecture="orig", progressive=True))  # fmt: skip
    old = {name: np.asarray(x) for name, x in official_generator(stylegan).items()}
    for key in ("blur_filter", "fused_scale", "use_pixel_norm", "use_instance_norm"):
        for value in odd if key != "fused_scale" else [one for one in odd if not isinstance(one, int)]:
            save(key, network(old, {key: value}))
    for value in [*odd, [(tower, 1)]]:
        one = network()
        one.static_kwargs = value
        if not isinstance(value, dict):
            save("static_kwargs", one)
        one = network()
        one.version = value
        save("version", one)
        one = network()
        one.variables = value
        save("variables", one)
        one = network()
        one.variables = [(value, np.zeros(1))] if not isinstance(value, str) else [(value * 1000, np.zeros(1))]
        save("name", one)
        one = network()
        one.variables.append(("lod", value))
        save("lod", one)
    one, pairs = network(), [(f"x{i}", np.zeros(1)) for i in range(10_000)]
    one.components = {f"part{i}": tf_network({}, [], "", "", {}, 4) for i in range(2000)}
    for inner in one.components.values():
        inner.variables = pairs
    save("components", one)
    one = network()
    one.components = {"n" * 1_000_000: one}
    save("name of a component", one)
    one = network()
    one.components = {3: one}
    save("number of a component", one)
    biases = {name: x for name, x in variables.items() if name.endswith("/bias") and "Conv" in name}
    save("channels", network(variables | {name: np.zeros(1_000_000, np.float32) for name in biases}))
    save("length of w", network(variables | {"dlatent_avg": np.zeros(1_000_000, np.float32)}))
    sides = {f"G_synthesis/{4 << i}x{4 << i}/Conv1/bias": np.zeros(4, np.float32) for i in range(2, 900)}
    save("blocks", network(variables | sides))
    save("layers", network(variables | {f"G_mapping/Dense{i}/bias": np.zeros(4, np.float32) for i in range(5000)}))
    save("triple", (network(), network(), network()))
    return corpus


CALLS = (
    "collections.OrderedDict",
    "builtins.set",
    "__builtin__.frozenset",
    "torch.Size",
    "numpy.dtype",
    "builtins.bytes",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
    "torch_utils.persistence._reconstruct_persistent_obj",
)


def arguments(_: Path) -> dict[str, bytes]:
    """Calls of tensors and arrays with tensors where other things belong."""
    storage = b"\x80\x02" + hostile.memoized(hostile.storage_reference(4_000_000, "ByteStorage"), 0) + b"0"

    def tensor(*shape):
        size = b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in shape) + b"t"
        steps = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
        stride = b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in steps) + b"t"
        arguments = b"h\x00", b"K\x00", size, stride, b"\x89", b"}"
        return storage + hostile.memoized(hostile.call("torch._utils", "_rebuild_tensor_v2", *arguments), 1) + b"0"

    array = hostile.call(
        "numpy.core.multiarray", "_reconstruct", hostile.named("numpy", "ndarray"), b"(K\x00t", b"C\x01b"
    )
    corpus = {}
    for name, before in {"numbers": tensor(4_000_000), "pairs": tensor(2_000_000, 2), "number": tensor()}.items():
        for function in CALLS:
            corpus[f"{function} of {name}"] = before + hostile.call(*function.rsplit(".", 1), b"h\x01") + b"."
        corpus |= {
            f"reference to {name}": before + b"h\x01Q.",
            f"state of {name}": before + array + b"h\x01b.",
            f"type of {name}": before + hostile.call("numpy", "dtype", hostile.text("f4")) + b"h\x01b.",
            f"key of {name}": before + b"}h\x01K\x01s.",
            f"member of {name}": before + b"\x8f(h\x01\x90.",
            f"arguments of {name}": before + hostile.named("a", "B") + b"h\x01\x81.",
        }
    return {name: hostile.in_zip(data, extra={"data/0": bytes(4_000_000)}) for name, data in corpus.items()}


def attributes(folder: Path) -> dict[str, bytes]:
    """Official modules with attributes that are no numbers of a network."""
    state = {name: x.detach().numpy() for name, x in nvlabs.to_state(Generator(GeneratorConfig(**SMALL))).items()}
    corpus = {}
    for path, key in (
        ("synthesis.b4.conv1", "conv_clamp"),
        ("mapping.fc0", "bias_gain"),
        ("mapping.fc0", "activation"),
    ):
        for value in (float("nan"), 0, -1, "text", [1], {"a": 1}, 10**300):
            one = as_module(state, "Generator", {path: {key: value}})
            corpus[f"{key} {len(corpus)}"] = official_pickle(folder / "x", {"G_ema": one}).read_bytes()
    return corpus


CORPORA = (modules, states, own_files, foreign_safetensors, tensorflow_pickles, arguments, attributes)
