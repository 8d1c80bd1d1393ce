from PIL import Image

from styleforge.inversion.evaluation_plot import plot_interpolations


def test_the_figure_has_both_spaces_and_both_errors(tmp_path):
    rows = [
        {"space": "w", "prior_weight": None, "kind": "R"},
        {
            "space": "w+",
            "prior_weight": 1e-4,
            "kind": "G+",
            "interpolation_image_error": [1, 2, 1],
            "interpolation_latent_error": [3, 2, 3],
        },
    ]
    plot_interpolations(rows, tmp_path / "x.png", "lpips")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > picture.height > 300
