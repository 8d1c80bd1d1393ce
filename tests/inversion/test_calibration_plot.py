from PIL import Image

from styleforge.inversion import Calibration, plot_calibrations


def test_every_network_has_a_histogram_and_a_curve(tmp_path):
    one = Calibration(generated=[0.1, 0.2, 0.15], real=[0.4, 0.5, 0.19])
    same = Calibration(generated=[0, 0], real=[0, 0])
    plot_calibrations({"a": one}, tmp_path / "one.png", "lpips")
    plot_calibrations({"a": one, "b": same}, tmp_path / "two.png", "lpips")
    with Image.open(tmp_path / "one.png") as first, Image.open(tmp_path / "two.png") as second:
        assert second.width == first.width and second.height == 2 * first.height
