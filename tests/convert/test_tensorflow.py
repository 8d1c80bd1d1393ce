from dataclasses import replace

import numpy as np
import pytest
import torch

from styleforge.convert.tensorflow import from_variables
from styleforge.images import from_uint8
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig, fade_images

GOLDEN = ["tf_stylegan1_32", "tf_stylegan2_skip_resnet_32"]
TOLERANCES = [(torch.float32, 1e-4, 1e-3), (torch.float64, 1e-5, 1e-5)]
LODS = [0.0, 0.5, 1.0, 1.25, 2.0, 3.0]


def to_tensorflow(tensor):
    """[O, I, k, k] -> [k, k, I, O] and [O, I] -> [I, O]."""
    return tensor.numpy().transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.numpy().T


def official_generator(G, fused_from=128):
    """The variables that the official TensorFlow release would have for a generator of ours."""
    config, v = G.config, {"lod": np.float32(0)}
    stylegan = config.convention == "stylegan"
    if config.progressive:
        v["G_synthesis/lod"] = np.float32(0)
    v["dlatent_avg"] = G.w_avg.numpy()
    state = G.state_dict()
    for i in range(config.mapping_layers):
        v[f"G_mapping/Dense{i}/weight"] = to_tensorflow(state[f"mapping.fc{i}.weight"])
        v[f"G_mapping/Dense{i}/bias"] = state[f"mapping.fc{i}.bias"].numpy()
    if config.c_dim:
        v["G_mapping/LabelConcat/weight"] = to_tensorflow(state["mapping.embed.weight"])
    num_noises = 0
    num_blocks = len(config.channels)
    for i in range(num_blocks):
        side = 4 << i
        scope = f"G_synthesis/{side}x{side}"
        start = "Const" if config.constant_input else "Dense"
        layers = {
            "conv0": f"{scope}/{start if i == 0 else 'Conv0_up'}",
            "conv1": f"{scope}/{'Conv' if i == 0 else 'Conv1'}",
        }
        if f"synthesis.b{side}.input.const" in state:
            v[f"{scope}/Const/const"] = state[f"synthesis.b{side}.input.const"][None].numpy()
        if f"synthesis.b{side}.input.dense.weight" in state:
            v[f"{scope}/Dense/weight"] = to_tensorflow(state[f"synthesis.b{side}.input.dense.weight"])
        for ours, theirs in layers.items():
            part = {
                name.removeprefix(f"synthesis.b{side}.{ours}.").removeprefix("epilogue."): tensor
                for name, tensor in state.items()
                if name.startswith(f"synthesis.b{side}.{ours}.")
            }
            if not part:
                continue
            if "weight" in part:
                turned = theirs.endswith("Conv0_up") and not (stylegan and side >= fused_from)
                v[f"{theirs}/weight"] = to_tensorflow(part["weight"].flip([2, 3]) if turned else part["weight"])
            v[f"{theirs}/bias"] = part["bias"].numpy()
            if "noise.const" in part:
                v[f"G_synthesis/noise{num_noises}"] = part["noise.const"][None, None].numpy()
                strength = "Noise/weight" if stylegan else "noise_strength"
                v[f"{theirs}/{strength}"] = (
                    part["noise.strength"].squeeze((1, 2)).numpy() if stylegan else part["noise.strength"].numpy()
                )
                num_noises += 1
            if "norm.affine.weight" in part:
                v[f"{theirs}/StyleMod/weight"] = to_tensorflow(part["norm.affine.weight"])
                v[f"{theirs}/StyleMod/bias"] = part["norm.affine.bias"].numpy()
            if "affine.weight" in part:
                v[f"{theirs}/mod_weight"] = to_tensorflow(part["affine.weight"])
                v[f"{theirs}/mod_bias"] = part["affine.bias"].numpy() - 1
        if f"synthesis.b{side}.skip.weight" in state:
            v[f"{scope}/Skip/weight"] = to_tensorflow(state[f"synthesis.b{side}.skip.weight"])
        if f"synthesis.b{side}.torgb.weight" in state:
            rgb = f"G_synthesis/ToRGB_lod{num_blocks - 1 - i}" if config.progressive else f"{scope}/ToRGB"
            v[f"{rgb}/weight"] = to_tensorflow(state[f"synthesis.b{side}.torgb.weight"])
            v[f"{rgb}/bias"] = state[f"synthesis.b{side}.torgb.bias"].numpy()
            if not stylegan:
                v[f"{rgb}/mod_weight"] = to_tensorflow(state[f"synthesis.b{side}.torgb.affine.weight"])
                v[f"{rgb}/mod_bias"] = state[f"synthesis.b{side}.torgb.affine.bias"].numpy() - 1
    return v


def official_discriminator(D):
    """The variables that the official TensorFlow release would have for a discriminator of ours."""
    config, v = D.config, {}
    if config.progressive:
        v["lod"] = np.float32(0)
    for name, tensor in D.state_dict().items():
        block, layer, kind = name.split(".")
        side = int(block[1:])
        theirs = {"conv": "Conv", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "fc": "Dense0"}.get(layer)
        scope = f"{side}x{side}/{theirs}"
        if layer == "fromrgb":
            lod = len(config.channels) - 1 - (side.bit_length() - 3)
            scope = f"FromRGB_lod{lod}" if config.progressive else f"{side}x{side}/FromRGB"
        if layer == "out":
            scope = "4x4/Dense1" if config.convention == "stylegan" else "Output"
        v[f"{scope}/{kind}"] = to_tensorflow(tensor) if kind == "weight" else tensor.numpy()
    return v


@pytest.mark.parametrize("name", GOLDEN)
def test_configs_are_inferred(name, golden):
    file = golden(name)
    G, D = (network.config for network in from_variables(file.state("G"), file.state("D")))
    kwargs, stylegan = file.meta["G_static_kwargs"], name == "tf_stylegan1_32"
    for config in (G, D):
        assert (config.resolution, config.img_channels, config.c_dim) == (32, 3, 0)
        nf = [min(int(kwargs["fmap_base"] / 2**stage), kwargs["fmap_max"]) for stage in range(1, 5)]
        assert config.channels == nf
        assert config.convention == ("stylegan" if stylegan else "stylegan2")
        assert config.progressive == stylegan and config.label_mode == "matrix"
    assert (G.architecture, D.architecture) == (("orig", "orig") if stylegan else ("skip", "resnet"))
    assert G.style_block == ("instance" if stylegan else "demodulation")
    assert (G.z_dim, G.w_dim, G.mapping_layers, G.mapping_features) == (32, 32, 4, None)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(("dtype", "first_order", "second_order"), TOLERANCES)
def test_official_variables_give_the_official_pictures(name, dtype, first_order, second_order, golden):
    file = golden(name)
    G = from_variables(file.state("G"))[0].to(dtype)

    def tensor(key):
        return file.tensor(key, dtype)

    z = tensor("in.z")
    assert file.error(G.mapping(z), "out.ws") < first_order
    assert file.error(G.mapping(z, truncation_psi=0.5), "out.ws_psi0.5") < first_order
    ws = G.mapping(z, truncation_psi=0.5, truncation_cutoff=4)
    assert file.error(ws, "out.ws_psi0.5_cutoff4") < first_order
    for ws_key, img_key in [
        ("out.ws", "out.img_noise_const"),
        ("out.ws_psi0.5", "out.img_psi0.5"),
        ("in.ws_mixed", "out.img_mixed"),
    ]:
        assert file.error(G.synthesis(tensor(ws_key), noise_mode="const"), img_key) < first_order
    assert file.error(G(z, noise_mode="const"), "out.img_noise_const") < first_order


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(("dtype", "first_order", "second_order"), TOLERANCES)
def test_official_variables_give_the_official_logits(name, dtype, first_order, second_order, golden):
    file = golden(name)
    D = from_variables(file.state("G"), file.state("D"))[1].to(dtype)
    img = file.tensor("out.img_noise_const", dtype).requires_grad_()
    logits = D(img)
    assert file.error(logits, "out.logits") < first_order
    eight = torch.cat([img, file.tensor("out.img_psi0.5", dtype)])
    assert file.error(D(eight), "out.logits_batch8") < first_order
    (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    penalty = gradient.square().sum([1, 2, 3])
    assert file.error(penalty, "out.r1_penalty") < second_order
    (gradient,) = torch.autograd.grad(penalty.mean(), D.b4.fc.weight)
    assert file.error(gradient.t(), "out.r1_grad_dense0_weight") < second_order


@pytest.mark.parametrize("name", GOLDEN)
def test_the_averaged_generator_is_official_too(name, golden):
    file = golden(name)
    trainable = set(file.meta["G_trainable"])
    averaged = {
        name: np.float32(0.9) * array + np.float32(0.01) if name in trainable else array
        for name, array in file.state("G").items()
    }
    G, _ = from_variables(averaged)
    assert file.error(G.mapping(file.tensor("in.z")), "out.Gs.ws") < 1e-4
    img = G.synthesis(file.tensor("out.Gs.ws"), noise_mode="const")
    assert file.error(img, "out.Gs.img_noise_const") < 1e-4


@pytest.mark.parametrize("lod", LODS)
@pytest.mark.parametrize(("dtype", "tolerance", "_"), TOLERANCES)
def test_stylegan_grows_as_the_official_release_does(lod, dtype, tolerance, _, golden):
    file = golden("tf_stylegan1_32")
    assert file.meta["lods"] == LODS
    G, D = (network.to(dtype) for network in from_variables(file.state("G"), file.state("D")))
    full = file.tensor("out.img_noise_const", dtype)
    if lod == 0:
        assert file.error(D(full, lod=lod), "out.logits") < tolerance
        return
    img = G.synthesis(file.tensor("out.ws", dtype), noise_mode="const", lod=lod)
    assert file.error(img, f"out.img_lod{lod:g}") < tolerance
    assert file.error(D(file.tensor(f"out.img_lod{lod:g}", dtype), lod=lod), f"out.logits_lod{lod:g}") < tolerance
    assert file.error(D(full, lod=lod), f"out.logits_fullimg_lod{lod:g}") < tolerance


@pytest.mark.parametrize("lod", LODS[:-1])
def test_real_images_fade_as_in_the_official_trainer(lod, golden):
    file = golden("tf_stylegan1_32")
    step = 2 ** int(lod)  # the official trainer reads images of that level and enlarges them at the end
    small = from_uint8(file.tensor("in.reals_uint8", torch.uint8))[:, :, ::step, ::step]
    img = small.repeat_interleave(step, 2).repeat_interleave(step, 3)
    assert file.error(fade_images(img, lod), f"out.reals_lod{lod:g}") < 1e-5


def test_fused_upsampling_turns_the_kernels(golden):
    file = golden("tf_stylegan1_32")
    G, D = from_variables(file.state("G"), file.state("D"), g_kwargs={"fused_scale": True})
    ws = file.tensor("out.ws")
    assert file.error(G.synthesis(ws, noise_mode="const"), "out.img_fused_scale") < 1e-4
    assert file.error(D(file.tensor("out.img_noise_const")), "out.logits_fused_scale") < 1e-4
    for fused_scale in (False, "auto"):  # no block of 128 here
        G, _ = from_variables(file.state("G"), g_kwargs={"fused_scale": fused_scale})
        assert file.error(G.synthesis(ws, noise_mode="const"), "out.img_noise_const") < 1e-4


@pytest.mark.parametrize("name", GOLDEN)
def test_the_official_variables_come_back(name, golden):
    file = golden(name)
    G, D = from_variables(file.state("G"), file.state("D"))
    for again, state in ((official_generator(G), file.state("G")), (official_discriminator(D), file.state("D"))):
        assert again.keys() == state.keys()
        for variable in state:
            tolerance = 1e-6 if variable.endswith("mod_bias") else 0  # - 1 + 1
            np.testing.assert_allclose(again[variable], state[variable], rtol=0, atol=tolerance, err_msg=variable)


STYLEGAN2 = {"label_mode": "matrix", "input": "constant"}
STYLEGAN = STYLEGAN2 | {"style_block": "instance", "architecture": "orig", "progressive": True}
GENERATORS = [
    STYLEGAN2 | {"resolution": 8, "channel_base": 32},
    STYLEGAN2 | {"resolution": 64, "channel_base": 256, "channel_max": 9, "architecture": "orig"},
    STYLEGAN2 | {"resolution": 64, "channel_base": 128, "architecture": "resnet", "img_channels": 1},
    STYLEGAN2 | {"resolution": 32, "channel_base": 200, "c_dim": 5, "z_dim": 6, "w_dim": 10},
    STYLEGAN2 | {"resolution": 16, "channel_base": 64, "mapping_features": 13, "mapping_layers": 3, "c_dim": 1},
    STYLEGAN2 | {"resolution": 32, "channel_base": 64, "architecture": "orig", "progressive": True},  # B to D
    STYLEGAN2 | {"resolution": 128, "channel_base": 256, "channel_max": 4, "architecture": "orig", "progressive": True},
    STYLEGAN | {"resolution": 8, "channel_base": 32},
    STYLEGAN | {"resolution": 64, "channel_base": 64},  # one channel at the end
    STYLEGAN | {"resolution": 32, "channel_base": 100, "c_dim": 4, "z_dim": 6, "w_dim": 10, "img_channels": 1},
    STYLEGAN | {"resolution": 128, "channel_base": 256, "channel_max": 4},  # the last block is fused
    STYLEGAN | {"resolution": 256, "channel_base": 512, "channel_max": 3},
    STYLEGAN | {"resolution": 16, "channel_base": 64, "use_noise": False},
    STYLEGAN | {"resolution": 16, "channel_base": 64, "input": "latent"},
    STYLEGAN | {"resolution": 16, "channel_base": 64, "input": "latent", "use_styles": False},
]
DISCRIMINATORS = [
    {"resolution": 8, "channel_base": 32},
    {"resolution": 8, "channel_base": 32, "c_dim": 1},
    {"resolution": 64, "channel_base": 256, "channel_max": 9, "architecture": "orig", "c_dim": 3},
    {"resolution": 64, "channel_base": 128, "architecture": "skip", "img_channels": 1, "mbstd_channels": 0},
    {"resolution": 32, "channel_base": 100, "channel_max": 30, "head_features": 30},  # nf(0) above nf(1)
    {"resolution": 32, "channel_base": 64, "architecture": "orig", "progressive": True},
    {"resolution": 8, "channel_base": 32, "architecture": "orig", "progressive": True, "convention": "stylegan"},
    {
        "resolution": 128,
        "channel_base": 256,
        "channel_max": 4,
        "architecture": "orig",
        "progressive": True,
        "convention": "stylegan",
        "c_dim": 6,
        "mbstd_channels": 2,
    },
]


def awake(network):
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return network


def same_channels(config, like):
    """A config with the other's channel_base and channel_max, where both mean the same channels."""
    assert config.channels == like.channels
    return replace(config, channel_base=like.channel_base, channel_max=like.channel_max)


@pytest.mark.parametrize("values", GENERATORS, ids=str)
def test_generators_of_any_size_and_kind_are_recognised(values):
    config = GeneratorConfig(**{"z_dim": 8, "w_dim": 8, "mapping_layers": 2} | values)
    G = awake(Generator(config))
    G.mapping.w_avg.normal_()
    again, none = from_variables(official_generator(G))
    assert none is None
    assert same_channels(again.config, config) == config
    z, c = torch.randn(2, config.z_dim), torch.randn(2, config.c_dim)
    for lod in [0, 1.5] if config.progressive and config.resolution > 8 else [0]:
        expected = G(z, c, noise_mode="const", lod=lod)
        img = again(z, c, noise_mode="const", lod=lod)
        torch.testing.assert_close(img, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("values", DISCRIMINATORS, ids=str)
def test_discriminators_of_any_size_and_kind_are_recognised(values):
    config = DiscriminatorConfig(**{"label_mode": "matrix"} | values)
    D = awake(Discriminator(config))
    labels = {"c_dim": config.c_dim, "label_mode": "matrix"}
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4, **labels))
    again = from_variables(official_generator(G), official_discriminator(D))[1]
    assert same_channels(again.config, config) == config
    img, c = torch.randn(4, config.img_channels, *config.size), torch.randn(4, config.c_dim)
    for lod in [0, 1.5] if config.progressive and config.resolution > 8 else [0]:
        assert torch.equal(again(img, c, lod=lod), D(img, c, lod=lod))


def test_kernels_of_fused_blocks_are_not_turned():
    G = awake(Generator(GeneratorConfig(**STYLEGAN, resolution=128, channel_base=256, channel_max=4, z_dim=4, w_dim=4)))
    variables = official_generator(G)
    for fused_scale, turned in (("auto", []), (False, [128]), (True, [8, 16, 32, 64])):
        again, _ = from_variables(variables, g_kwargs={"fused_scale": fused_scale})
        for side in (8, 16, 32, 64, 128):
            ours, theirs = (getattr(network.synthesis, f"b{side}").conv0.weight for network in (G, again))
            assert torch.equal(theirs, ours.flip([2, 3]) if side in turned else ours)


@pytest.fixture(scope="module", params=["stylegan", "stylegan2", "stylegan2 progressive"])
def variables(request):
    """A small conditional pair of the official kind."""
    if request.param == "stylegan":
        kind, convention = STYLEGAN, "stylegan"
    else:
        kind, convention = STYLEGAN2, "stylegan2"
    shared = {"resolution": 16, "channel_base": 64, "c_dim": 2, "label_mode": "matrix"}
    if request.param != "stylegan2":
        shared |= {"architecture": "orig", "progressive": True}
    G = Generator(GeneratorConfig(**kind | shared, z_dim=4, w_dim=4, mapping_layers=3))
    D = Discriminator(DiscriminatorConfig(**shared, convention=convention))
    return {"G": official_generator(G), "D": official_discriminator(D)}


def convert(variables, **changed):
    variables = variables | changed
    return from_variables(variables["G"], variables["D"])


@pytest.mark.parametrize("key", ["G", "D"])
def test_every_missing_variable_is_named(key, variables, refuses):
    for name in variables[key]:
        rest = {other: array for other, array in variables[key].items() if other != name}
        if name.endswith("lod"):
            convert(variables, **{key: rest})  # an argument here
        elif "LabelConcat" in name:  # a longer z would explain it, but for the discriminator
            with refuses("2 logits", "labels of length 0", "complete"):
                convert(variables, **{key: rest})
        else:
            with refuses("TensorFlow", f"without '{name}'", "complete"):
                convert(variables, **{key: rest})


@pytest.mark.parametrize("key", ["G", "D"])
def test_superfluous_variables_are_named(key, variables, refuses):
    for name in ("G_mapping/Extra/weight", "4x4/Conv/weight2", "synthesis.b4.input.const"):
        with refuses("TensorFlow", f"'{name}'", "does not have"):
            convert(variables, **{key: variables[key] | {name: np.zeros(2)}})


@pytest.mark.parametrize("key", ["G", "D"])
def test_every_misshapen_variable_is_refused(key, variables):
    for name, array in variables[key].items():
        if name.endswith("lod"):
            continue
        for changed in (np.append(array.reshape(-1), 0), array[None], array.reshape(-1)[0]):
            if changed.shape != array.shape:
                with pytest.raises(ValueError, match=r"got .* expected"):
                    convert(variables, **{key: variables[key] | {name: changed}})


def test_foreign_variables_are_refused(variables, refuses):
    with refuses("TensorFlow generator", "no known name", "4×4, 8×8"):
        convert(variables, G={"Generator/conv": np.zeros(1)})
    with refuses("TensorFlow discriminator", "no known name"):
        convert(variables, D={})
    with refuses("TensorFlow generator"):
        convert(variables, G=variables["D"])
