import itertools

import pytest

from styleforge.networks import nearest_legal_sizes, size_plan
from styleforge.networks.sizes import block_name

LEGAL = {  # by the definition: a base grid of at most 8×8, doubled n times
    (h << n, w << n) for n, h, w in itertools.product(range(1, 9), range(1, 9), range(1, 9)) if max(h << n, w << n) >= 8
}


def is_legal(size):
    try:
        size_plan(size)
    except ValueError:
        return False
    return True


def test_exactly_the_doubled_base_grids_are_legal():
    assert all(is_legal(size) for size in LEGAL)
    for size in itertools.product(range(8, 36), range(1, 36, 3)):
        assert is_legal(size) == (size in LEGAL), size


@pytest.mark.parametrize(
    ("resolution", "base", "doublings"),
    [
        (1024, (4, 4), 8),
        (8, (4, 4), 1),
        ((512, 384), (4, 3), 7),
        ((384, 512), (3, 4), 7),
        ((320, 448), (5, 7), 6),
        ((96, 64), (6, 4), 4),
        (14, (7, 7), 1),
        ((16, 128), (1, 8), 4),
    ],
)
def test_known_sizes_have_the_papers_grids(resolution, base, doublings):
    plan = size_plan(resolution)
    assert (plan.base, plan.doublings) == (base, doublings)


def test_every_plan_doubles_its_base_up_to_the_image():
    for size in LEGAL:
        plan = size_plan(size)
        assert plan.sizes[0] == plan.base and plan.sizes[-1] == size
        assert 4 <= max(plan.base) <= 8
        assert all((2 * h, 2 * w) == large for (h, w), large in itertools.pairwise(plan.sizes))
        assert len(plan.nominal) == len(plan.sizes) and plan.nominal[0] == 4
        if size[0] == size[1] and size[0] & (size[0] - 1) == 0:
            assert plan.base == (4, 4)
            assert plan.nominal == [side for side, _ in plan.sizes]


@pytest.mark.parametrize("wanted", [(100, 100), (500, 333), (1000, 1000), (9, 9), (33, 70)])
def test_the_nearest_sizes_are_the_nearest_of_all_legal_ones(wanted):
    def distance(size):
        return abs(size[0] - wanted[0]) / wanted[0] + abs(size[1] - wanted[1]) / wanted[1]

    near = nearest_legal_sizes(*wanted, count=5)
    assert len(near) == 5 and all(is_legal(size) for size in near)
    distances = [distance(size) for size in near]
    assert distances == sorted(distances)
    assert distances == pytest.approx(sorted(map(distance, LEGAL))[:5])


def test_a_legal_size_is_nearest_to_itself():
    for size in [(64, 64), (512, 384), (320, 448)]:
        assert nearest_legal_sizes(*size)[0] == size


@pytest.mark.parametrize("size", [(100, 100), (1, 1), (31, 32), (9, 5), (2048, 2), (72, 136)])
def test_an_impossible_size_is_refused_with_the_nearest_legal_ones(refuses, size):
    height, width = nearest_legal_sizes(*size)[0]
    with refuses(f"{size[0]}×{size[1]}", "nearest legal sizes", f"{height}×{width}"):
        size_plan(size)


@pytest.mark.parametrize("resolution", [0, -8, (64,), (64, 64, 3), (64, 0), (64.0, 64), "64", None, 64.0])
def test_what_is_no_size_is_refused(refuses, resolution):
    with refuses("resolution", "(height, width)"):
        size_plan(resolution)


def test_block_names_are_official_for_squares():
    assert block_name((64, 64)) == "b64"
    assert block_name((64, 48)) == "b64x48"
