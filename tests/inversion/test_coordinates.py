import torch

from styleforge.inversion.coordinates import Whitening
from styleforge.latents import sample_w


def test_both_ways_are_inverses(G, gaussian):
    whitening = Whitening(gaussian, torch.device("cpu"))
    ws = torch.randn(5, 3, G.w_dim)
    torch.testing.assert_close(whitening.to_w(whitening.from_w(ws)), ws, rtol=1e-4, atol=1e-4)


def test_the_networks_own_latents_have_mean_0_and_variance_1_in_every_direction(G, gaussian):
    u = Whitening(gaussian, torch.device("cpu")).from_w(torch.cat(list(sample_w(G, 5000))))  # those of the fit
    torch.testing.assert_close(u.mean(0), torch.zeros(G.w_dim), atol=1e-2, rtol=0)
    torch.testing.assert_close(u.T.cov(), torch.eye(G.w_dim), atol=1e-2, rtol=0)


def test_the_energy_is_the_squared_length(gaussian):
    u = torch.randn(4, 8, dtype=torch.float32)
    w = Whitening(gaussian, torch.device("cpu")).to_w(u)
    torch.testing.assert_close(gaussian.energy(w.double()).float(), u.square().sum(1), rtol=1e-3, atol=1e-3)
