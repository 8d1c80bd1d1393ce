import json

import numpy as np
import pytest
import torch

from styleforge.checkpoint import Checkpoint
from styleforge.convert import onnx, write
from styleforge.convert.graphs import make_graph
from styleforge.networks import Generator, GeneratorConfig

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def generator(**values):
    config = {"resolution": 8, "channel_base": 32, "z_dim": 6, "w_dim": 6, "mapping_layers": 2} | values
    G = Generator(GeneratorConfig(**config)).eval().requires_grad_(False)
    for tensor in G.state_dict().values():
        tensor += 0.3 * torch.randn_like(tensor)
    return G


def test_the_whole_network_is_that_of_pytorch(tmp_path):
    G, path = generator(c_dim=2), tmp_path / "x.onnx"
    lost = write(Checkpoint(G_ema=G, G=G, info={"kimg": 3}), path)
    assert len(lost) == 1 and "G:" in lost[0]
    assert onnx.largest_difference(G, path, batches=(1, 2, 5), truncations=(1.0, 0.7, 0.0)) < 1e-4
    z, c = np.random.randn(4, 6).astype("f4"), np.eye(2, dtype="f4")[[0, 1, 1, 0]]
    img = onnx.run(path, {"z": z, "truncation_psi": np.float32(0.5), "c": c})
    want = G(torch.tensor(z), torch.tensor(c), truncation_psi=0.5, noise_mode="const")
    assert np.abs(img - want.numpy()).max() < 1e-4
    import onnx as onnx_package

    model = onnx_package.load(str(path))
    assert [one.version for one in model.opset_import if one.domain == ""] == [onnx.OPSET]
    facts = {one.key: one.value for one in model.metadata_props}
    assert json.loads(facts["styleforge"])["kimg"] == 3 and facts["opset"] == str(onnx.OPSET)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.slow
def test_mapping_and_synthesis_are_exported_alone_with_noise_as_input(tmp_path):
    G = generator(architecture="resnet", img_channels=1)
    onnx.export(G, tmp_path / "mapping.onnx", part="mapping", truncation_cutoff=1)
    assert onnx.largest_difference(G, tmp_path / "mapping.onnx", part="mapping", truncation_cutoff=1) < 1e-4
    onnx.export(G, tmp_path / "synthesis.onnx", part="synthesis", noise="input")
    assert onnx.largest_difference(G, tmp_path / "synthesis.onnx", part="synthesis", noise="input") < 1e-4
    ws = onnx.run(tmp_path / "mapping.onnx", {"z": np.zeros((1, 6), "f4") + 1, "truncation_psi": np.float32(1)})
    maps = {f"noise{i}": one.const[None, None].numpy() for i, one in enumerate(G.synthesis.noise_inputs())}
    img = onnx.run(tmp_path / "synthesis.onnx", {"ws": ws} | maps)
    assert np.abs(img - G(torch.ones(1, 6), noise_mode="const").numpy()).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "orig", "blur": False},
        {"resolution": (24, 32), "conv_clamp": 0.5},
        {"style_block": "instance", "architecture": "orig", "progressive": True},
        {"style_block": "pixel_instance", "architecture": "orig", "use_noise": False},
        {"mapping_layers": 0, "c_dim": 3, "label_mode": "matrix"},
    ],
    ids=str,
)
@pytest.mark.parametrize("noise", ["const", "input", "none"])
def test_every_kind_of_network_is_exported(values, noise, tmp_path):
    G = generator(**values)
    onnx.export(G, tmp_path / "x.onnx", noise=noise)
    assert onnx.largest_difference(G, tmp_path / "x.onnx", noise=noise) < 1e-3


def test_unknown_parts_are_refused(tmp_path, refuses):
    with refuses("part: got 'half'"):
        onnx.export(generator(), tmp_path / "x.onnx", part="half")
    with refuses("noise: got 'some'"):
        onnx.export(generator(), tmp_path / "x.onnx", noise="some")


def test_a_missing_package_is_named(monkeypatch, tmp_path, refuses):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refuses("pip install", "styleforge[onnx]"):
        onnx.export(generator(), tmp_path / "x.onnx")


def test_graphs_are_the_networks_themselves():
    G = generator(c_dim=2)
    z, c = torch.randn(3, 6), torch.eye(2)[[0, 1, 0]]
    for cutoff in (None, 2):
        graph = make_graph(G, truncation_cutoff=cutoff)
        want = G(z, c, truncation_psi=0.6, truncation_cutoff=cutoff, noise_mode="const")
        torch.testing.assert_close(graph.module(z, torch.tensor(0.6), c), want, rtol=1e-5, atol=1e-5)
    assert make_graph(G, "synthesis", "input").names == ["ws", "noise0", "noise1", "noise2"]
