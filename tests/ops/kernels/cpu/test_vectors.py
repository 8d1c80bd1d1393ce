import numba
import numpy as np
import pytest

from styleforge.ops.kernels.cpu import vectors
from styleforge.ops.kernels.cpu.vectors import LANES

DTYPES = [(np.float32, 1e-5), (np.float64, 1e-13)]
MATRIX = np.array([[0.0, 1.0, -1.0, 0.5], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1.0, -3.0]])
apply_matrix, copy = vectors.linear_map(MATRIX), vectors.copy


def normal(*shape, dtype=np.float64):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def in_panels(b):
    return np.ascontiguousarray(b.reshape(len(b), -1, LANES).swapaxes(0, 1))


@numba.njit
def call_multiply(a, panels, c):
    vectors.multiply(a, panels, c)


@numba.njit
def call_add_transposed(a, panels, c, steps):
    vectors.add_transposed(a, panels, c, steps)


@numba.njit
def call_matrix(x, at, row, into, into_at, into_row, size):
    apply_matrix(x, at, row, into, into_at, into_row, size)


@numba.njit
def call_copy(x, at, into, into_at, size):
    copy(x, at, 0, into, into_at, 0, size)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("steps", [1, 32, 100])  # 32 are summed up at a time
def test_multiplies_and_overwrites(steps, dtype, tolerance):
    a, b, c = (
        normal(12, steps + 3, dtype=dtype),
        normal(steps, 3 * LANES, dtype=dtype),
        np.full((12, 48), np.nan, dtype),
    )
    call_multiply(a, in_panels(b), c)
    np.testing.assert_allclose(c, a[:, :steps] @ b, rtol=tolerance, atol=tolerance * steps)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("rows", [16, 32, 48, 64, 80])  # in blocks of six and four
def test_adds_transposed_products(rows, dtype, tolerance):
    a, b, c = normal(9, rows, dtype=dtype), normal(9, 2 * LANES, dtype=dtype), normal(rows, 2 * LANES, dtype=dtype)
    expected = c + a[:7].T @ b[:7]
    call_add_transposed(a, in_panels(b), c, 7)
    np.testing.assert_allclose(c, expected, rtol=tolerance, atol=10 * tolerance)
    call_add_transposed(a, in_panels(b), c, 0)
    np.testing.assert_allclose(c, expected, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_applies_a_matrix_to_rows_that_lie_anywhere(dtype, tolerance):
    x, into = normal(6, 5, LANES, dtype=dtype), np.full((7, 3 * LANES), 7, dtype)
    call_matrix(x, 2 * LANES, 5 * LANES, into, 3 * LANES, 3 * LANES, 2 * LANES)
    np.testing.assert_allclose(
        into[1:5, : 2 * LANES], MATRIX @ x[:4, 2:4].reshape(4, -1), rtol=tolerance, atol=tolerance
    )
    assert (into[:, 2 * LANES :] == 7).all()
    assert (into[[0, 5, 6]] == 7).all()


def test_copies():
    x, into = normal(10, LANES), np.zeros((5, LANES))
    call_copy(x, 3 * LANES, into, LANES, 2 * LANES)
    assert (into[1:3] == x[3:5]).all()
    assert not into[[0, 3, 4]].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinity_and_what_is_not_a_number_stay(dtype):
    for value in (np.inf, np.nan):
        x, into = np.zeros((4, LANES), dtype), np.zeros((4, LANES), dtype)
        x[0, 0] = value
        call_matrix(x, 0, LANES, into, 0, LANES, LANES)
        np.testing.assert_array_equal(into[:, 0], [0, -value, 0, value])
        a, c = np.zeros((6, 1), dtype), np.zeros((6, LANES), dtype)
        a[2] = value
        call_multiply(a, np.ones((1, 1, LANES), dtype), c)
        np.testing.assert_array_equal(c[:, 0], [0, 0, value, 0, 0, 0])


def test_there_are_no_such_functions_for_arrays_of_other_kinds():
    a, panels, c = np.ones((6, 2)), np.ones((1, 2, LANES)), np.ones((6, LANES))
    for arguments in (
        (a.astype(np.float32), panels, c),
        (a, panels, c.astype(np.float32)),
        (a.astype(int), panels.astype(int), c.astype(int)),
        (np.ones((2, 6)).T, panels, c),
    ):
        with pytest.raises(numba.TypingError):
            call_multiply(*arguments)
    with pytest.raises(numba.TypingError):
        call_copy(a, 0, c.astype(np.float32), 0, 0)
