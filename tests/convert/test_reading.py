import json

import numpy as np
import pytest
import torch

from styleforge import checkpoint
from styleforge.convert import load_any, nvlabs, rosinality
from styleforge.convert.card import make_card, to_markdown
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

from . import hostile_networks
from .official_files import Persistent, as_module, dump, official_pickle, tf_network

PYTORCH = [
    "stylegan2_skip_resnet_32",
    "stylegan2_skip_resnet_32_cond",
    "stylegan2_orig_orig_16",
    "stylegan2_resnet_skip_16",
]
TENSORFLOW = ["tf_stylegan1_32", "tf_stylegan2_skip_resnet_32"]


def require_golden_pictures(file, G, D):
    z = file.tensor("in.z")
    c = file.tensor("in.c") if "in.c" in file.arrays and G.c_dim else None
    assert file.error(G.mapping(z, c), "out.ws") < 1e-4
    assert file.error(G.mapping(z, c, truncation_psi=0.5), "out.ws_psi0.5") < 1e-4
    assert file.error(G(z, c, noise_mode="const"), "out.img_noise_const") < 1e-4
    assert file.error(D(file.tensor("out.img_noise_const"), c), "out.logits") < 1e-4


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", PYTORCH)
def test_official_pickles_of_persistent_classes_give_the_official_pictures(name, protocol, golden, tmp_path):
    file = golden(name)
    averaged = {key: array * np.float32(0.5) for key, array in file.state("G").items() if "resample" not in key}
    networks = {
        "G": as_module(file.state("G"), "Generator"),
        "D": as_module(file.state("D"), "Discriminator"),
        "G_ema": as_module(averaged, "Generator"),
    }
    loaded = load_any(official_pickle(tmp_path / "network.pkl", networks, protocol))
    require_golden_pictures(file, loaded.G, loaded.D)
    for key, tensor in loaded.G_ema.state_dict().items():
        assert torch.equal(tensor, loaded.G.state_dict()[key] * 0.5)
    assert loaded.generator is loaded.G_ema
    source = loaded.info["source"]
    assert source["kind"] == "official PyTorch pickle" and source["file"] == "network.pkl"
    assert source["bytes"] == (tmp_path / "network.pkl").stat().st_size and len(source["sha256"]) == 64
    assert loaded.info["training_set"] == {"resolution": 32}
    assert any("augment_pipe" in note for note in loaded.info["notes"])


def test_what_official_modules_compute_with_is_taken_over(golden, tmp_path):
    file = golden("stylegan2_skip_resnet_32")
    layers = {f"synthesis.b{r}.{layer}" for r in (4, 8, 16, 32) for layer in ("conv0", "conv1", "torgb")}
    g_attributes = {layer: {"conv_clamp": 256, "activation": "lrelu"} for layer in layers}
    g_attributes |= {f"mapping.fc{i}": {"bias_gain": 0.02} for i in range(4)}
    g_attributes["synthesis"] = {"num_fp16_res": 4}
    d_attributes = {"b32.conv0": {"conv_clamp": 128}}
    d_state = file.state("D")
    D = as_module(d_state, "Discriminator", d_attributes)
    D.b4.mbstd = Persistent("MinibatchStdLayer", group_size=None)
    networks = {"G_ema": as_module(file.state("G"), "Generator", g_attributes), "D": D}
    loaded = load_any(official_pickle(tmp_path / "x", networks))
    assert loaded.G is None
    assert (loaded.G_ema.config.conv_clamp, loaded.G_ema.config.mapping_lr_multiplier) == (256, 0.02)
    assert loaded.D.config.conv_clamp == 128
    assert loaded.D.config.mbstd_group > 1000  # None: the whole minibatch
    assert any("half precision" in note for note in loaded.info["notes"])


@pytest.mark.parametrize("style", ["ada", "stylegan3"])
def test_constructor_arguments_stand_in_for_missing_attributes(style, golden, tmp_path):
    body = {"conv_clamp": 256, "channel_base": 1024}
    arguments = {"synthesis_kwargs": body} if style == "ada" else dict(body)
    arguments["mapping_kwargs"] = {"lr_multiplier": 0.1}
    G = as_module(golden("stylegan2_orig_orig_16").state("G"), "Generator", {"": {"_init_kwargs": arguments}})
    loaded = load_any(official_pickle(tmp_path / "x.pkl", {"G_ema": G}))
    assert (loaded.G_ema.config.conv_clamp, loaded.G_ema.config.mapping_lr_multiplier) == (256, 0.1)


@pytest.mark.parametrize(
    ("attributes", "part"),
    [
        ({"synthesis.b4.conv1": {"activation": "swish"}}, "leaky ReLU"),
        ({"synthesis.b4.conv1": {"conv_clamp": 1}, "synthesis.b8.conv1": {"conv_clamp": 2}}, "conv_clamp"),
    ],
)
def test_modules_that_no_config_describes_are_refused(attributes, part, golden, tmp_path, refuses):
    G = as_module(golden("stylegan2_orig_orig_16").state("G"), "Generator", attributes)
    with refuses("x.pkl", part, "no config here"):
        load_any(official_pickle(tmp_path / "x.pkl", {"G_ema": G}))


def test_networks_of_stylegan3_are_refused(tmp_path, refuses):
    state = {"synthesis.input.freqs": np.zeros((4, 2), np.float32), "mapping.w_avg": np.zeros(4, np.float32)}
    with refuses("StyleGAN3"):
        load_any(official_pickle(tmp_path / "x.pkl", {"G_ema": as_module(state, "Generator")}))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", TENSORFLOW)
def test_tensorflow_pickles_give_the_official_pictures(name, flat, golden, tmp_path):
    file = golden(name)
    meta = file.meta
    trainable = set(meta["G_trainable"])
    averaged = {
        key: np.float32(0.9) * array + np.float32(0.01) if key in trainable else array
        for key, array in file.state("G").items()
    }

    def network(state, key, title):
        kwargs, func, version = meta[f"{key}_static_kwargs"], meta[f"{key}_func_name"], meta["pickle_version"]
        one = tf_network(state, meta[f"{key}_order"], title, func, kwargs, version)
        if flat:
            one.components = {}
            one.variables = [(variable, state[variable]) for variable in meta[f"{key}_order"]]
        return one

    triple = network(file.state("G"), "G", "G"), network(file.state("D"), "D", "D"), network(averaged, "G", "Gs")
    loaded = load_any(dump(triple, tmp_path / "network-final.pkl"))
    require_golden_pictures(file, loaded.G, loaded.D)
    assert file.error(loaded.G_ema.mapping(file.tensor("in.z")), "out.Gs.ws") < 1e-4
    img = loaded.G_ema.synthesis(file.tensor("out.Gs.ws"), noise_mode="const")
    assert file.error(img, "out.Gs.img_noise_const") < 1e-4
    assert loaded.info["source"]["kind"] == f"official TensorFlow pickle, version {meta['pickle_version']}"


def test_tensorflow_arguments_are_taken_over(golden, tmp_path, refuses):
    file = golden("tf_stylegan2_skip_resnet_32")
    meta = file.meta

    def load(g_kwargs, d_kwargs, func="D_stylegan2"):
        G = tf_network(file.state("G"), meta["G_order"], "G", "G_main", meta["G_static_kwargs"] | g_kwargs, 4)
        D = tf_network(file.state("D"), meta["D_order"], "D", func, meta["D_static_kwargs"] | d_kwargs, 4)
        return load_any(dump((G, D, G), tmp_path / "x.pkl"))

    loaded = load({"conv_clamp": 256, "mapping_lrmul": 0.02}, {"conv_clamp": 256, "mbstd_group_size": 8})
    assert (loaded.G.config.conv_clamp, loaded.G.config.mapping_lr_multiplier) == (256, 0.02)
    assert (loaded.D.config.conv_clamp, loaded.D.config.mbstd_group) == (256, 8)
    assert load({}, {}).D.config.mbstd_group == 4
    assert load({}, {}, "D_main").D.config.mbstd_group > 1000  # StyleGAN2-ADA's default: the whole minibatch
    assert not load({"resample_kernel": None}, {}).G.config.blur
    for name, value in (("nonlinearity", "relu"), ("normalize_latents", False), ("resample_kernel", [1, 2, 1])):
        with refuses("x.pkl", "no config here"):
            load({name: value}, {})
    with refuses("use_spectral_norm"):
        load({}, {"use_spectral_norm": True})


def test_labels_of_tensorflow_ada_are_embedded(tmp_path):
    shared = {"resolution": 16, "channel_base": 64, "c_dim": 3}
    G = Generator(GeneratorConfig(**shared, z_dim=6, w_dim=6, mapping_layers=2))
    D = Discriminator(DiscriminatorConfig(**shared, mapping_layers=2))
    for parameter in [*G.parameters(), *D.parameters()]:
        parameter.data += 0.3 * torch.randn_like(parameter)

    def theirs(x):
        return (x.permute(2, 3, 1, 0) if x.ndim == 4 else x.t() if x.ndim == 2 else x).detach().numpy()

    g, d = {"dlatent_avg": np.zeros(6, np.float32)}, {}
    for name, x in G.state_dict().items():
        _, block, *layer = name.split(".")
        if name.startswith("mapping.") and name != "mapping.w_avg":
            scope = "LabelEmbed" if block == "embed" else block.replace("fc", "Dense")
            g[f"G_mapping/{scope}/{layer[0]}"] = theirs(x)
    first = True
    for side in (4, 8, 16):
        for layer, scope in (("conv0", "Conv0_up"), ("conv1", "Conv" if side == 4 else "Conv1"), ("torgb", "ToRGB")):
            block = getattr(G.synthesis, f"b{side}")
            one = getattr(block, layer)
            if one is None:
                continue
            prefix = f"G_synthesis/{side}x{side}/{scope}"
            g[f"{prefix}/weight"] = theirs(one.weight.flip([2, 3]) if layer == "conv0" else one.weight)
            g[f"{prefix}/bias"] = theirs(one.bias)
            g[f"{prefix}/mod_weight"], g[f"{prefix}/mod_bias"] = theirs(one.affine.weight), theirs(one.affine.bias - 1)
            if layer != "torgb":
                g[f"{prefix}/noise_strength"] = theirs(one.noise.strength)
                number = sum(key.startswith("G_synthesis/noise") for key in g)
                g[f"G_synthesis/noise{number}"] = one.noise.const[None, None].numpy()
        if first:
            g["G_synthesis/4x4/Const/const"] = G.synthesis.b4.input.const[None].detach().numpy()
            first = False
    scopes = {"conv": "Conv", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "fc": "Dense0"}
    for name, x in D.state_dict().items():
        block, layer, *rest = name.split(".")
        side = block[1:]
        if layer == "mapping":
            scope = "LabelEmbed" if rest[0] == "embed" else rest[0].replace("fc", "Mapping")
            gain = 0.1 if scope.startswith("Mapping") else 1  # theirs have a learning rate of 0.1, ours of 0.01
            d[f"{scope}/{rest[1]}"] = theirs(x * gain)
        elif layer == "out":
            d[f"Output/{rest[0]}"] = theirs(x)
        else:
            d[f"{side}x{side}/{'FromRGB' if layer == 'fromrgb' else scopes[layer]}/{rest[0]}"] = theirs(x)
    triple = (
        tf_network(g, list(g), "G", "G_main", {}, 4),
        tf_network(d, list(d), "D", "D_main", {}, 4),
        tf_network(g, list(g), "Gs", "G_main", {}, 4),
    )
    loaded = load_any(dump(triple, tmp_path / "x.pkl"))
    assert loaded.G.config.label_mode == loaded.D.config.label_mode == "embedding"
    z, c = torch.randn(4, 6), torch.eye(3)[[0, 1, 2, 0]]
    img = G(z, c, noise_mode="const")
    torch.testing.assert_close(loaded.G(z, c, noise_mode="const"), img, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.D(img, c), D(img, c), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_rosinality_checkpoints_give_their_pictures(legacy, golden, tmp_path):
    file = golden("rosinality_32")
    g, d = ({k: torch.tensor(v) for k, v in file.state(key).items()} for key in "GD")
    old_state = {140_000_000_000_000 + i: {} for i in range(300)}  # PyTorch up to 1.5: by the parameters' addresses
    contents = {
        "g": g, "d": d, "g_ema": g, "g_optim": {"state": old_state, "param_groups": [{"betas": (0.0, 0.99)}]},
        "latent_avg": file.tensor("in.truncation_latent")[0], "args": __import__("argparse").Namespace(size=32),
    }  # fmt: skip
    torch.save(contents, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    loaded = load_any(tmp_path / "x.pt")
    for G in (loaded.G, loaded.G_ema):
        assert file.error(G.mapping.map(file.tensor("in.z")), "out.w") < 1e-4
        assert file.error(G(file.tensor("in.z"), noise_mode="const"), "out.img_noise_const") < 1e-4
        img = G(file.tensor("in.z"), truncation_psi=0.5, noise_mode="const")
        assert file.error(img, "out.img_psi0.5") < 1e-4
    assert file.error(loaded.D(file.tensor("out.img_noise_const")), "out.logits") < 1e-4
    assert any("g_optim" in note for note in loaded.info["notes"])


def test_a_missing_mean_of_w_is_estimated_and_said(golden, tmp_path):
    state = {k: torch.tensor(v) for k, v in golden("rosinality_32").state("G").items()}
    torch.save({"g_ema": state}, tmp_path / "x.pt")
    loaded = load_any(tmp_path / "x.pt")
    assert any("w_avg" in note for note in loaded.info["notes"])
    w = loaded.G_ema.mapping.map(torch.randn(20_000, 32)).mean(0)
    assert (loaded.G_ema.w_avg - w).norm() < 0.05 * w.norm()


def test_plain_state_dicts_are_recognised(golden, tmp_path):
    official, other = golden("stylegan2_skip_resnet_32"), golden("rosinality_32")
    for file, key, slot in ((official, "G", "G_ema"), (official, "D", "D"), (other, "G", "G_ema"), (other, "D", "D")):
        state = {name: torch.tensor(array) for name, array in file.state(key).items()}
        for contents in (state, {f"module.{name}": x for name, x in state.items()}, {"state_dict": state}):
            torch.save(contents, tmp_path / "x.pth")
            loaded = load_any(tmp_path / "x.pth")
            maker = nvlabs if file is official else rosinality
            want = (maker.generator if key == "G" else maker.discriminator)(file.state(key)).state_dict()
            got = getattr(loaded, slot).state_dict()
            assert all(torch.equal(got[name], x) for name, x in want.items() if "w_avg" not in name)
    from safetensors.torch import save_file

    state = {name: torch.tensor(array) for name, array in official.state("G").items()}
    save_file(state, tmp_path / "x.safetensors")
    assert load_any(tmp_path / "x.safetensors").generator.config.resolution == 32


def test_our_own_checkpoints_are_read_as_ever(tmp_path):
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4))
    checkpoint.save(tmp_path / "x.bin.safetensors", G_ema=G, config={"a": 1}, info={"kimg": 3})
    (tmp_path / "x.bin.safetensors").rename(tmp_path / "named.pkl")  # by content, not by name
    loaded = load_any(tmp_path / "named.pkl")
    assert (loaded.config, loaded.info, loaded.source) == ({"a": 1}, {"kimg": 3}, str(tmp_path / "named.pkl"))
    assert torch.equal(loaded.G_ema.w_avg, G.w_avg)
    assert load_any("demo").generator.img_resolution == 64


def test_other_files_are_refused_in_one_sentence(tmp_path, refuses):
    for name, data in {
        "empty": b"",
        "text": b"<html>not found</html>",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zip": b"PK\x03\x04" + bytes(50),
        "safetensors": (100).to_bytes(8, "little") + b"{" + b" " * 20,
        "json": json.dumps({"G": 1}).encode(),
    }.items():
        (tmp_path / name).write_bytes(data)
        with refuses(name):
            load_any(tmp_path / name)
    for name, value in {
        "number": 3,
        "empty dict": {},
        "list": [1, 2],
        "optimizer": {"state": {0: {"step": 1}}},
    }.items():
        torch.save(value, tmp_path / name)
        with refuses(name, "StyleGAN"):
            load_any(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_any(tmp_path / "nothing.pkl")


def test_a_url_is_fetched_once_and_its_digest_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4))
    checkpoint.save(tmp_path / "x.safetensors", G_ema=G)
    calls = []

    def fetch(url, target, *, sha256=None):
        calls.append((url, sha256))
        target.parent.mkdir(parents=True, exist_ok=True)
        return (tmp_path / "x.safetensors").rename(target)

    monkeypatch.setattr(checkpoint, "fetch", fetch)
    loaded = load_any("https://example.org/a/net.pkl?x=1#sha256=ab12")
    assert calls == [("https://example.org/a/net.pkl?x=1", "ab12")]
    source = loaded.info["source"]
    assert source["url"].startswith("https://example.org") and len(source["sha256"]) == 64


def test_a_file_cannot_ask_for_more_memory_than_it_brings(tmp_path, refuses):
    state = rosinality.to_state(Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4)))
    long = {name: torch.zeros(200_000) for name in state if name.endswith("activate.bias")}
    torch.save({"g_ema": {**state, **long}}, tmp_path / "x.pt")
    with refuses("x.pt", "numbers", "complete"):
        load_any(tmp_path / "x.pt")
    torch.save({"g_ema": {**state, "style.123456789.weight": torch.zeros(1)}}, tmp_path / "x.pt")
    with refuses("style.", "layers at most"):
        load_any(tmp_path / "x.pt")


def test_networks_that_were_still_growing_say_so(golden, tmp_path):
    file = golden("tf_stylegan1_32")
    meta, state = file.meta, file.state("G") | {"lod": np.float32(1.5)[...]}
    state = {name: np.asarray(array) for name, array in state.items()}
    G = tf_network(state, meta["G_order"], "Gs", meta["G_func_name"], meta["G_static_kwargs"], 3)
    assert any("1.5 (--lod)" in note for note in load_any(dump(G, tmp_path / "x.pkl")).info["notes"])


def test_noise_maps_that_are_not_in_the_file_are_said(golden, tmp_path):
    file = golden("rosinality_32")
    state = {k: torch.tensor(v) for k, v in file.state("G").items() if not k.startswith("noises.")}
    torch.save({"g_ema": state, "latent_avg": torch.zeros(32)}, tmp_path / "x.pt")
    assert any("noise maps" in note for note in load_any(tmp_path / "x.pt").info["notes"])


def test_the_generators_of_encoders_are_read(golden, tmp_path):
    file = golden("rosinality_32")
    decoder = {f"decoder.{name}": torch.tensor(array) for name, array in file.state("G").items()}
    state = decoder | {"encoder.input_layer.0.weight": torch.zeros(2, 3, 3, 3)}
    mean = file.tensor("in.truncation_latent").reshape(-1)
    for latent_avg in (mean, mean[None], mean.repeat(8, 1)):
        torch.save({"state_dict": state, "latent_avg": latent_avg, "opts": {"device": "cpu"}}, tmp_path / "x.pt")
        loaded = load_any(tmp_path / "x.pt")
        img = loaded.generator(file.tensor("in.z"), truncation_psi=0.5, noise_mode="const")
        assert file.error(img, "out.img_psi0.5") < 1e-4
        assert loaded.info["source"]["kind"] == "encoder with a rosinality generator"
        assert any("encoder" in note for note in loaded.info["notes"])
        assert not any("w_avg" in note for note in loaded.info["notes"])
    several = mean + torch.arange(8.0)[:, None]
    torch.save({"state_dict": state, "latent_avg": several}, tmp_path / "x.pt")
    loaded = load_any(tmp_path / "x.pt")
    assert torch.allclose(loaded.generator.w_avg, mean + 3.5)
    assert any("w_avg is the mean of the file's 8 latent_avg" in note for note in loaded.info["notes"])


LONG_CORPORA = ("modules", "foreign_safetensors")


@pytest.mark.parametrize(
    "corpus",
    [
        pytest.param(corpus, marks=pytest.mark.slow if corpus.__name__ in LONG_CORPORA else (), id=corpus.__name__)
        for corpus in hostile_networks.CORPORA
    ],
)
def test_networks_that_want_time_or_memory_without_end_are_refused(corpus, read, tmp_path):
    for name, outcome in read(corpus(tmp_path)).items():
        assert outcome.startswith("refused"), (name, outcome)
        assert "got" in outcome and "expected" in outcome and outcome.isprintable(), (name, outcome)
        assert len(outcome) < 1000, (name, outcome)


@pytest.mark.parametrize(
    "facts", [{"kimg": "many", "metrics": [1], "notes": 5}, {"notes": [1, "a"], "origin": {"kind": ""}}]
)
def test_odd_facts_in_our_files_harm_nothing(facts, tmp_path):
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4))
    checkpoint.save(tmp_path / "x.safetensors", G_ema=G, info=facts)
    card = make_card(load_any(tmp_path / "x.safetensors"))
    assert card["kimg"] is None and card["metrics"] == {}
    assert "# title" in to_markdown(card, "title")


def test_control_characters_in_the_facts_of_a_file_are_written_out(tmp_path):
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4, mapping_layers=2))
    facts = {"notes": ["\x1b[2Jgone", "\ud800"], "licence": "one\ntwo", "kimg": 3}
    checkpoint.save(tmp_path / "x.safetensors", G_ema=G, info=facts)
    info = load_any(tmp_path / "x.safetensors").info
    assert info["notes"] == ["\\x1b[2Jgone", "\\ud800"]
    assert info["licence"] == "one\ntwo" and info["kimg"] == 3
