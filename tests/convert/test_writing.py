import json
import subprocess
import sys

import pytest
import torch

from styleforge import checkpoint
from styleforge.checkpoint import Checkpoint
from styleforge.convert import TARGETS, kind_of, load_any, target_of, write
from styleforge.networks import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

SHARED = {"resolution": 16, "channel_base": 64, "conv_clamp": 256.0}


def awake(network):
    for tensor in network.state_dict().values():
        tensor += 0.3 * torch.randn_like(tensor)
    return network


def make(generator=None, discriminator=None, **shared):
    shared = SHARED | shared
    latents = {"z_dim": 6, "w_dim": 6, "mapping_layers": 2, "mapping_lr_multiplier": 0.1}
    G, G_ema = (awake(Generator(GeneratorConfig(**shared | latents | (generator or {})))) for _ in range(2))
    D = awake(Discriminator(DiscriminatorConfig(**shared | {"mbstd_group": 8} | (discriminator or {}))))
    return Checkpoint(
        G=G, D=D, G_ema=G_ema, config={"kimg": 9}, info={"kimg": 9.5}, training={"pl_mean": torch.ones(1)}
    )


def require_equal(a, b):
    for name in ("G_ema", "G", "D"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.config == other.config
        for key, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[key]), (name, key)


@pytest.mark.parametrize("target", ["safetensors", "official", "rosinality"])
def test_round_trips_are_bit_equal(target, tmp_path):
    loaded, path = make(), tmp_path / f"x{TARGETS[target]}"
    lost = write(loaded, path)
    again = load_any(path)
    require_equal(loaded, again)
    assert again.config == {"kimg": 9} and again.info["kimg"] == 9.5
    if target == "safetensors":
        assert lost == [] and torch.equal(again.training["pl_mean"], torch.ones(1))
    else:
        assert any("training state" in line for line in lost)
        write(again, tmp_path / "back.safetensors")
        require_equal(loaded, checkpoint.load(tmp_path / "back.safetensors"))


@pytest.mark.parametrize(
    "values",
    [
        {"generator": {"architecture": "orig"}, "discriminator": {"architecture": "skip"}},
        {"generator": {"architecture": "resnet", "use_noise": False}, "img_channels": 1},
        {"c_dim": 3, "img_channels": 4, "discriminator": {"mapping_features": 5, "mapping_layers": 2}},
        {"blur": False, "generator": {"mapping_features": 9}, "discriminator": {"mbstd_channels": 0}},
    ],
    ids=str,
)
def test_official_files_hold_every_architecture(values, tmp_path):
    loaded = make(**values)
    write(loaded, tmp_path / "x.pth")
    require_equal(loaded, load_any(tmp_path / "x.pth"))
    contents = torch.load(tmp_path / "x.pth", weights_only=True)
    contents.pop("styleforge")  # as others read it: names, shapes and the arguments of the constructors suffice
    torch.save(contents, tmp_path / "y.pth")
    again = load_any(tmp_path / "y.pth")
    for name in ("G_ema", "G", "D"):
        one, other = getattr(loaded, name), getattr(again, name)
        assert (one.config.conv_clamp, one.config.channels) == (other.config.conv_clamp, other.config.channels)
        assert all(torch.equal(x, other.state_dict()[key]) for key, x in one.state_dict().items())
    assert again.G.config.mapping_lr_multiplier == 0.1 and again.D.config.mbstd_group == 8
    arguments = contents["init_kwargs"]["G_ema"]
    assert arguments["img_resolution"] == 16 and arguments["mapping_kwargs"]["num_layers"] == 2


def test_rosinality_files_are_those_of_its_scripts(golden, tmp_path):
    write(make(), tmp_path / "x.pt")
    contents = torch.load(tmp_path / "x.pt", weights_only=True)
    assert {"g", "d", "g_ema", "latent_avg"} <= contents.keys() and contents["latent_avg"].shape == (6,)
    file = golden("rosinality_32")
    names = {name for name in file.state("G") if not name.startswith(("convs.4", "convs.5", "to_rgbs.2"))}
    names -= {"noises.noise_5", "noises.noise_6", *(f"style.{i}.{kind}" for i in (3, 4) for kind in ("weight", "bias"))}
    assert contents["g_ema"].keys() == names


def test_what_a_target_cannot_hold_is_refused_and_nothing_written(tmp_path, refuses):
    loaded = make(c_dim=2)
    with refuses("rosinality", "labels"):
        write(loaded, tmp_path / "x.pt")
    with refuses("progressive"):
        write(make({"architecture": "orig", "progressive": True}), tmp_path / "x.pth")
    with refuses("x.abc", ".onnx"):
        write(loaded, tmp_path / "x.abc")
    with refuses("to: got 'abc'"):
        write(loaded, tmp_path / "x.abc", "abc")
    assert list(tmp_path.iterdir()) == []
    assert target_of("a/b.pt2") == "torch-export"


def test_every_file_has_a_model_card(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    loaded = make()
    snapshot = run / "network-snapshot-000009.safetensors"
    checkpoint.save(snapshot, G_ema=loaded.G_ema, G=loaded.G, D=loaded.D, info={"kimg": 9.5})
    lines = [{"results": {"fid50k_full": fid}, "snapshot_pkl": name} for fid, name in
             ((9.0, "other.safetensors"), (7.0, snapshot.name), (6.5, snapshot.name))]  # fmt: skip
    (run / "metric-fid50k_full.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{cut", encoding="utf-8")
    loaded = load_any(run)
    assert kind_of(loaded) == "styleforge"
    write(loaded, tmp_path / "x.safetensors")
    write(loaded, tmp_path / "x.pt")
    for card in (
        checkpoint.load(tmp_path / "x.safetensors").info["card"],
        json.loads(torch.load(tmp_path / "x.pt", weights_only=True)["card"]),
    ):
        assert card["metrics"] == {"fid50k_full": 6.5} and card["kimg"] == 9.5
        assert card["networks"]["G_ema"]["config"]["conv_clamp"] == 256
        assert card["licence"] and card["source"]["kind"] == "styleforge"
    assert any("clamp" in line for line in card["unheld"])


def test_where_networks_came_from_survives_conversions(golden, tmp_path):
    state = {name: torch.tensor(array) for name, array in golden("rosinality_32").state("G").items()}
    torch.save({"g_ema": state, "latent_avg": torch.zeros(32)}, tmp_path / "first.pt")
    write(load_any(tmp_path / "first.pt"), tmp_path / "second.safetensors")
    write(load_any(tmp_path / "second.safetensors"), tmp_path / "third.pth")
    loaded = load_any(tmp_path / "third.pth")
    assert loaded.info["source"]["file"] == "third.pth"
    assert loaded.info["origin"]["file"] == "first.pt" and loaded.info["origin"]["kind"] == "rosinality checkpoint"


FULL_DISK = """
import resource, sys
from pathlib import Path
from styleforge.checkpoint import Checkpoint
from styleforge.convert import write
from styleforge.networks import Generator, GeneratorConfig

G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=6, w_dim=6, mapping_layers=1)).eval()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # bytes of a file: the disk is full after them
for name in ("x.safetensors", "x.pth", "x.pt", "x.pt2"):
    try:
        write(Checkpoint(G_ema=G), Path(sys.argv[1]) / name)
    except OSError as error:
        assert name in str(error) and "could not be written" in str(error) and str(error).isprintable(), error
        print(name)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the length of files")
def test_a_full_disk_is_said_in_one_sentence_and_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split() == ["x.safetensors", "x.pth", "x.pt", "x.pt2"], done.stderr[-1000:]
    assert list(tmp_path.iterdir()) == []
