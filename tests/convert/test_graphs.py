import json

import torch

from styleforge.checkpoint import Checkpoint
from styleforge.convert import write
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
