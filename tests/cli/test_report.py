import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny
from tiny_pictures import write_pictures

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
    skipped = "droplets,ablation,normalization,smoothness,spectra,directions,diversity"
    result = invoke("--network", save_tiny(tmp_path), "--num=16", "--output", page, "--skip", skipped)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "<h2>Resolutions</h2>" in text and "<h2>Droplets</h2>" not in text and "Factors of portraits" not in text
    assert "This needs real pictures" in text  # for metrics


def test_a_section_that_does_not_exist_is_a_usage_error(tmp_path):
    result = invoke("--network", save_tiny(tmp_path), "--skip=nonsense", "--output", tmp_path / "page.html")
    assert result.exit_code == 2 and "nonsense" in result.output and "samples" in result.output
