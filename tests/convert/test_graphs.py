import json

import torch

from styleforge.checkpoint import Checkpoint
from styleforge.convert import write
from styleforge.convert.graphs import make_graph
from styleforge.networks import Generator, GeneratorConfig


def test_exported_programs_run_on_their_own_with_any_batch(tmp_path):
    config = GeneratorConfig(resolution=8, channel_base=32, z_dim=6, w_dim=6, mapping_layers=2)
    G = Generator(config).eval().requires_grad_(False)
    for tensor in G.state_dict().values():
        tensor += 0.3 * torch.randn_like(tensor)
    write(Checkpoint(G_ema=G, info={"kimg": 3}), tmp_path / "x.pt2")
    extra = {"card.json": ""}
    program = torch.export.load(tmp_path / "x.pt2", extra_files=extra)
    assert json.loads(extra["card.json"])["kimg"] == 3
    for num, psi in ((1, 1.0), (5, 0.5)):
        z = torch.randn(num, 6)
        img = program.module()(z=z, truncation_psi=torch.tensor(psi))
        want = G(z, truncation_psi=psi, noise_mode="const")
        torch.testing.assert_close(img, want, rtol=1e-5, atol=1e-5)


def test_a_part_holds_its_own_weights_alone():
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=6, w_dim=6, mapping_layers=2))
    for part in ("mapping", "synthesis"):
        held = {id(x) for x in make_graph(G, part).module.state_dict(keep_vars=True).values()}
        assert held == {id(x) for x in getattr(G, part).state_dict(keep_vars=True).values()}
