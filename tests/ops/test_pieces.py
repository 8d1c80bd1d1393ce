import pytest

from styleforge.ops.pieces import pieces


@pytest.mark.parametrize(("num", "rows", "columns"), [(3, 4, 5), (1, 7, 2), (5, 1, 1), (0, 3, 3)])
@pytest.mark.parametrize("size", [1, 7, 20, 45, 1000])
def test_every_row_of_every_image_is_in_one_piece_which_is_as_large_as_allowed_or_one_row(num, rows, columns, size):
    seen = []
    for images, some in pieces(num, rows, columns, size):
        found = [(n, row) for n in range(num)[images] for row in range(rows)[some]]
        assert len(found) * columns <= max(size, columns)
        assert images.stop - images.start == 1 or some == slice(0, rows)
        seen += found
    assert seen == [(n, row) for n in range(num) for row in range(rows)]
