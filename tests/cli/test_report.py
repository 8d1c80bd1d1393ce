import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny, tiny_generator
from tiny_pictures import write_pictures

from styleforge import checkpoint
from styleforge.cli.main import cli


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))


def invoke(*arguments):
    return CliRunner().invoke(cli, ["report", "--device=cpu", *(str(argument) for argument in arguments)])


def test_a_report_is_one_page(tmp_path):
    page, files = tmp_path / "page.html", tmp_path / "files"
    data = write_pictures(tmp_path / "real.zip", 40)
    arguments = ["--network", save_tiny(tmp_path), "--data", data, "--num=16", "--num-fid=100", "--output", page]
    result = invoke(*arguments, "--extractor=random-vgg", "--only=samples,metrics,spectra", "--outdir", files)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "fid0.1k_full@random-vgg" in text and text.count("data:image/png;base64,") >= 3
    assert sorted(path.name for path in files.iterdir()) == ["metrics", "samples", "spectra"]


def test_portraits_and_what_is_skipped_are_left_out(tmp_path):
    page = tmp_path / "page.html"
    skipped = "droplets,ablation,normalization,smoothness,spectra,latents,directions,diversity"
    result = invoke("--network", save_tiny(tmp_path), "--num=16", "--output", page, "--skip", skipped)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "<h2>Resolutions</h2>" in text and "<h2>Droplets</h2>" not in text and "Factors of portraits" not in text
    assert "This needs real pictures" in text  # for metrics


def test_a_conditional_network_shows_all_its_classes(tmp_path):
    page = tmp_path / "page.html"
    result = invoke("--network", save_tiny(tmp_path, "conditional"), "--num=16", "--output", page, "--only=samples")
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "3, all classes in turn" in text and "data:image/png;base64," in text and "Not measured" not in text


def test_a_growing_network_is_shown_at_its_level_of_detail(tmp_path):
    page, path = tmp_path / "page.html", tmp_path / "growing.safetensors"
    checkpoint.save(path, G_ema=tiny_generator("config-a"), info={"lod": 1.0})
    result = invoke("--network", path, "--num=16", "--output", page, "--only=samples,smoothness")
    assert result.exit_code == 0, result.output
    assert "1: it is still growing" in page.read_text() and "lod: got 1, expected 0" in page.read_text()


def test_a_section_that_does_not_exist_is_a_usage_error(tmp_path):
    result = invoke("--network", save_tiny(tmp_path), "--skip=nonsense", "--output", tmp_path / "page.html")
    assert result.exit_code == 2 and "nonsense" in result.output and "samples" in result.output
