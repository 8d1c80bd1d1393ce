import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_fidelity.metric_prc import calculate_precision_recall_full

from styleforge.metrics import precision_recall as module
from styleforge.metrics.precision_recall import covered, precision_recall, radii


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that are smaller than the sets, and divide neither."""
    monkeypatch.setattr(module, "_ROWS", 13)
    monkeypatch.setattr(module, "_COLUMNS", 7)


def brute_force(real, fake, k):
    """The definition: differences, one pair at a time."""
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))

    def share(samples, points):
        own = np.sort(distances(points, points) + np.diag([np.inf] * len(points)), axis=1)[:, k - 1]
        return (distances(samples, points) <= own).any(1).mean()

    return share(fake, real), share(real, fake)


def two_sets(num_real=120, num_fake=90, F=6):
    return torch.randn(num_real, F), 0.7 * torch.randn(num_fake, F) + 0.3


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("offset", [0, 1000])
def test_numbers_are_those_of_the_definition(k, offset, small_blocks):
    real, fake = (x + offset for x in two_sets())
    numbers = precision_recall(real, fake, k)
    assert numbers == brute_force(real, fake, k)
    assert all(0.2 < number < 1 for number in numbers)


@pytest.mark.parametrize("k", [1, 3])
def test_numbers_are_torch_fidelitys(k, small_blocks):
    real, fake = (x.double() for x in two_sets(300, 200, 12))
    assert precision_recall(real, fake, k) == pytest.approx(calculate_precision_recall_full(fake, real, k), rel=1e-6)


def test_radii_reach_to_the_kth_other_point(small_blocks):
    line = torch.tensor([0.0, 1, 3, 7, 15, 31, 63, 127, 255, 511])[:, None]
    assert radii(line, 1).tolist() == [1, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert radii(line, 3).tolist() == [7, 6, 4, 7, 14, 28, 56, 112, 224, 448]
    assert radii(line, 9).tolist() == [511, 510, 508, 504, 496, 480, 448, 384, 256, 511]


def test_a_sample_on_the_edge_lies_inside_and_one_beyond_does_not():
    points = torch.tensor([[0.0, 0], [1, 0], [10, 0], [11, 0]])
    reach = radii(points, 1)
    samples = torch.tensor([[-1.0, 0], [-1 - 1e-6, 0], [2, 0], [0.5, 0.5], [5, 0], [12, 0], [12 + 1e-5, 0]])
    assert covered(samples, points, reach).tolist() == [True, False, True, True, False, True, False]


def test_constructed_sets_have_the_numbers_they_were_made_for():
    cluster = torch.randn(50, 4)
    elsewhere = cluster + 1000
    assert precision_recall(cluster, cluster) == (1, 1)
    assert precision_recall(cluster, elsewhere) == (0, 0)
    assert precision_recall(torch.cat([cluster, elsewhere]), cluster) == (1, 0.5)  # half of what is real is missing
    assert precision_recall(cluster, torch.cat([cluster, elsewhere])) == (0.5, 1)  # half of what is made is not real


@pytest.mark.parametrize("offset", [0, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_lie_inside_even_where_balls_have_no_extent(dtype, offset, small_blocks):
    """Duplicates make radii of 0, which rounding must not keep their copies out of."""
    distinct = torch.randn(12, 500, dtype=dtype) + offset
    real = distinct.repeat(4, 1)
    assert radii(real, 3).max() < 1e-5 * distinct.norm(dim=1).max()
    assert precision_recall(real, distinct.repeat(5, 1)[torch.randperm(60)]) == (1, 1)
    beside = distinct * (1 + 1e-5)
    assert precision_recall(real, beside.repeat(4, 1)) == (0, 0)


def test_a_copy_of_a_point_lies_in_every_ball_that_ends_there(small_blocks):
    """Each point is on the edge of the balls whose k-th neighbour it is."""
    points = torch.randn(60, 300) + 5
    reach = radii(points, 1)
    for i in range(60):
        nearest = (points - points[i]).double().norm(dim=1).argsort()[1]
        assert covered(points[nearest][None], points[i][None], reach[i][None]).all()


def test_ties_count_as_in_the_definition(small_blocks):
    grid = torch.cartesian_prod(*[torch.arange(4.0)] * 3)
    for real, fake in ((grid, grid + 1), (grid, grid + 0.5), (grid, 2 * grid), (2 * grid, grid)):
        for k in (1, 3, 7):
            assert precision_recall(real, fake, k) == brute_force(real, fake, k)


def test_rows_can_be_shared(small_blocks):
    real, fake = two_sets()
    shares = [range(50), range(50, 50), range(50, 120)]
    reach = torch.cat([radii(real, rows=rows) for rows in shares])
    torch.testing.assert_close(reach, radii(real), rtol=1e-12, atol=0)
    inside = covered(fake, real, reach)
    shares = [range(31), range(31, 90)]
    assert torch.equal(torch.cat([covered(fake, real, reach, rows=rows) for rows in shares]), inside)
    assert precision_recall(real, fake)[0] == float(inside.double().mean())


def test_memory_maps_and_half_precision_are_taken(tmp_path, small_blocks):
    real, fake = two_sets()
    np.save(tmp_path / "real.npy", real.numpy())
    mapped = np.load(tmp_path / "real.npy", mmap_mode="r")
    assert precision_recall(mapped, fake.numpy()) == precision_recall(real, fake)
    assert precision_recall(real.half(), fake.half()) == brute_force(real.half(), fake.half(), 3)


def test_memory_does_not_grow_with_pairs(monkeypatch):
    class LargestTensor(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            if isinstance(out, torch.Tensor):
                self.size = max(self.size, out.numel())
            return out

    monkeypatch.setattr(module, "_ROWS", 64)
    monkeypatch.setattr(module, "_COLUMNS", 32)
    real, fake = two_sets(400, 300, 2)
    with LargestTensor() as largest:
        precision_recall(real, fake, 3)
    assert largest.size <= 64 * (32 + 3)  # a block, next to the nearest so far; there are 120,000 pairs


def test_what_gives_no_numbers_is_refused(refuses):
    real, fake = two_sets(10, 10)
    with refuses("fake: got 3 samples", "at least 4"):
        precision_recall(real, fake[:3])
    with refuses("[10, 5]", "[any, 6]"):
        precision_recall(real, fake[:, :5])
    with refuses("k: got 0"):
        precision_recall(real, fake, 0)
    with refuses("k: got 10 with 10 samples"):
        radii(real, 10)
    with refuses("real", "sample 2"):
        precision_recall(torch.where(torch.arange(10)[:, None] == 2, torch.inf, real), fake)
