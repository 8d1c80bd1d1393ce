import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from tiny_generators import CASES, tiny_generator

from styleforge import images
from styleforge.latents.paths import PeriodicArc, PeriodicSpline, loop_frames, map_path
from styleforge.latents.sampling import generate_ws, seed_to_z, synthesize


def times_of(K, per_keyframe=7):
    return torch.arange(K * per_keyframe, dtype=torch.float64) / per_keyframe


@pytest.mark.parametrize("K", [2, 3, 4, 7, 12])
def test_the_spline_is_scipys_periodic_one(K):
    points = torch.randn(K, 3, 5, dtype=torch.float64)
    closed = torch.cat([points, points[:1]])
    expected = CubicSpline(np.arange(K + 1), closed.numpy(), bc_type="periodic")
    times = torch.cat([times_of(K), torch.tensor([-0.4, K, K + 1.3, -K - 0.1], dtype=torch.float64)])
    assert np.allclose(PeriodicSpline(points)(times).numpy(), expected(times.numpy()), atol=1e-12)


def test_a_spline_through_one_point_rests_there():
    point = torch.randn(1, 4)
    assert torch.equal(PeriodicSpline(point)(torch.tensor([0.0, 0.3, 1.0, 7.9])), point.expand(4, -1))


def test_a_spline_keeps_the_float_type_and_stays_exact_far_from_the_origin():
    points = torch.randn(5, 4) + 1000
    between = PeriodicSpline(points)(times_of(5))
    assert between.dtype == torch.float32
    torch.testing.assert_close(between, PeriodicSpline(points.double())(times_of(5)).float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("path", [PeriodicSpline, PeriodicArc])
def test_a_loop_passes_its_points_and_closes(path):
    points = torch.randn(5, 2, 8, dtype=torch.float64)
    at = path(points)
    torch.testing.assert_close(at(torch.arange(5, dtype=torch.float64)), points)
    torch.testing.assert_close(at(times_of(5) + 5), at(times_of(5)))


@pytest.mark.parametrize("path", [PeriodicSpline, PeriodicArc])
def test_speed_does_not_jump_at_the_points(path):
    at, step = path(torch.randn(5, 8, dtype=torch.float64)), 1e-5
    for k in range(5):
        times = torch.tensor([k - step, k, k + step], dtype=torch.float64)
        before, here, after = at(times)
        assert (after - here).norm() > 0.1 * step
        torch.testing.assert_close((after - here) / step, (here - before) / step, atol=1e-2, rtol=0)


def test_an_arc_keeps_the_length_of_z():
    points = torch.cat([seed_to_z(seed, 512) for seed in range(6)])
    lengths = PeriodicArc(points)(times_of(6)).norm(dim=-1)
    extent = points.norm(dim=-1)
    assert lengths.min() > 0.98 * extent.min() and lengths.max() < 1.02 * extent.max()  # a spline may swing a little
    assert PeriodicSpline(points)(times_of(6)).norm(dim=-1).min() < 0.9 * extent.min()  # a plain one does not


@pytest.mark.parametrize("kind", ["square", "labels-as-matrix"])
def test_a_path_of_z_passes_the_ws_of_its_seeds(kind):
    G = tiny_generator(kind)
    c = torch.eye(G.c_dim)[2] if G.c_dim else None
    z = torch.cat([seed_to_z(seed, G.z_dim) for seed in range(6)])
    ws_at = map_path(G, PeriodicArc(z.reshape(3, 2, -1)), c=c, truncation_psi=0.5, truncation_cutoff=3)
    expected = generate_ws(G, range(6), c=c, truncation_psi=0.5, truncation_cutoff=3)
    ws = ws_at(torch.arange(3, dtype=torch.float64))
    torch.testing.assert_close(ws, expected.reshape(3, 2, G.num_ws, G.w_dim), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", CASES)
def test_a_video_loops(kind):
    G = tiny_generator(kind)
    c = torch.eye(G.c_dim)[0] if G.c_dim else None
    ws_at = PeriodicSpline(generate_ws(G, range(6), c=c).unflatten(0, (3, 2)))  # [K, P, L, W]
    frames = list(loop_frames(G, ws_at, 3, 4, columns=2))
    height, width = G.config.size
    assert len(frames) == 12
    assert all(frame.shape == (G.img_channels, height, 2 * width) for frame in frames)
    (again,) = synthesize(G, ws_at(torch.tensor([3.0]))[0])  # the frame after the last
    assert (images.grid(again, 2).int() - frames[0].int()).abs().max() <= 1
    steps = [(a.int() - b.int()).abs().float().mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    assert max(steps) < 3 * sum(steps) / len(steps)  # the step over the end is like the others


def test_keyframes_are_the_pictures_of_their_ws():
    G = tiny_generator()
    ws = generate_ws(G, range(4))
    frames = list(loop_frames(G, PeriodicSpline(ws.reshape(2, 2, *ws.shape[1:])), 2, 3, columns=1))
    (pictures,) = synthesize(G, ws)
    for k, frame in ((0, frames[0]), (1, frames[3])):
        assert (frame.int() - images.grid(pictures[2 * k : 2 * k + 2], 1).int()).abs().max() <= 1


def test_frames_do_not_depend_on_the_batch_and_come_as_they_are_made():
    G = tiny_generator()
    ws_at = PeriodicSpline(generate_ws(G, range(6)).unflatten(0, (2, 3)))
    reference = torch.stack(list(loop_frames(G, ws_at, 2, 3, columns=3)))
    for batch in (1, 2, 4, 7):
        frames = torch.stack(list(loop_frames(G, ws_at, 2, 3, columns=3, batch=batch)))
        assert (frames.int() - reference.int()).abs().max() <= 1
    calls = []
    G.synthesis.register_forward_hook(lambda *_: calls.append(1))
    next(loop_frames(G, ws_at, 2, 3, batch=3))
    assert len(calls) == 1


def test_noise_maps_may_move_along():
    G = tiny_generator()
    points = torch.randn(3, 2, G.num_ws, G.w_dim)  # [K, P, L, W]
    noise = [torch.randn(3, 2, 1, *noise_input.const.shape) for noise_input in G.synthesis.noise_inputs()]
    frames = list(
        loop_frames(G, PeriodicSpline(points), 3, 2, noise_at=[PeriodicArc(maps.flatten(2)) for maps in noise])
    )
    for k in range(3):
        expected = images.to_uint8(G.synthesis(points[k], noise_mode="const", noise=[maps[k] for maps in noise]))
        assert (frames[2 * k].int() - images.grid(expected, 1).int()).abs().max() <= 1
