import pytest
from PIL import Image

from styleforge import plots


def test_a_figure_has_the_size_and_the_plots_asked_for(tmp_path):
    with plots.figure(tmp_path / "new" / "a.png", 2, 3, size=(6, 4), dpi=50) as axes:
        assert len(axes) == 6
        for ax in axes:
            ax.plot([0, 1], [0, 1])
    assert Image.open(tmp_path / "new" / "a.png").size == (300, 200)


def test_an_error_while_drawing_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("older")
    with pytest.raises(KeyError), plots.figure(path):
        raise KeyError
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"] and path.read_text() == "older"


def test_the_style_stays_inside(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with plots.figure(tmp_path / "a.svg") as (ax,):
        ax.plot([0, 1], [0, 1])
        assert ax.lines[0].get_color() == plots.COLOURS[0]
    assert dict(matplotlib.rcParams) == before
