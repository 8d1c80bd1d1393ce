import pytest
import torch
from PIL import Image
from tiny_generators import tiny_generator
from tiny_pictures import write_pictures

from styleforge import images
from styleforge.analysis.activations import layer_names
from styleforge.analysis.report import ANALYSES, Subject, report
from styleforge.data import ImageDataset
from styleforge.latents import generate_images, generate_ws
from styleforge.metrics import Tools

QUICK = [
    *("samples", "droplets", "ablation", "normalization", "resolutions", "smoothness", "spectra", "latents"),
    "directions",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))


def subject(kind="square", **changes):
    return Subject(G=tiny_generator(kind), tools=Tools(extractor="random-vgg"), num=16, num_fid=100, **changes)


@pytest.mark.parametrize("kind", ["square", pytest.param("conditional", marks=pytest.mark.slow)])
def test_every_section_has_pictures_and_numbers(tmp_path, kind):
    sections = report(subject(kind), QUICK, tmp_path)
    assert [section.name for section in sections] == QUICK
    for section in sections:
        assert not section.absent, section.absent
        assert section.pictures and all(path.exists() for path in section.pictures)
        assert (section.numbers is None) == (section.name == "samples")
        assert section.question.endswith(".")


def test_metrics_are_those_of_evaluate(tmp_path):
    data = write_pictures(tmp_path / "real.zip", 40)
    (section,) = report(subject(data=ImageDataset(data)), ["metrics"], tmp_path)
    assert "fid0.1k_full@random-vgg" in section.summary and "pr0.1k3_recall@random-vgg" in section.summary


def test_what_a_network_cannot_have_is_said_in_its_place(tmp_path):
    metrics, resolutions = report(subject("config-a"), ["metrics", "resolutions"], tmp_path)
    assert "--data" in metrics.absent
    assert "skip" in resolutions.absent and not resolutions.pictures


def test_classes_of_a_conditional_network_take_turns(tmp_path):
    one = subject("conditional")
    turns = torch.eye(3)[[0, 1, 2, 0]]
    assert torch.equal(one.labels(4), turns) and subject().labels(4) is None
    torch.testing.assert_close(one.ws[:4], generate_ws(one.G, range(4), c=turns))


def test_a_network_that_is_still_growing_is_looked_at_as_it_is(tmp_path):
    growing = subject("config-a", lod=1.0, data=ImageDataset(write_pictures(tmp_path / "real.zip", 40)))
    names = ["samples", "metrics", "droplets", "ablation", "spectra", "directions", "smoothness"]
    *sections, smoothness = report(growing, names, tmp_path)
    assert not any(section.absent for section in sections), [section.absent for section in sections]
    assert "lod: got 1, expected 0" in smoothness.absent
    (_, _, images_uint8), *_ = generate_images(growing.G, range(36), lod=1.0, batch=36)
    with Image.open(next(path for path in sections[0].pictures if "psi 1" in path.name)) as sheet:
        assert sheet.tobytes() == images.to_pil(images.grid(images_uint8, 12)).tobytes()
    assert set(sections[2].numbers["layers"]) == set(layer_names(growing.G, 1.0))


def test_the_network_stays_as_it_was(tmp_path):
    one = subject()
    before = {name: tensor.clone() for name, tensor in one.G.state_dict().items()}
    img = one.G.synthesis(one.ws[:2], noise_mode="const")
    report(one, QUICK, tmp_path)
    assert torch.equal(one.G.synthesis(one.ws[:2], noise_mode="const"), img)
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.G.state_dict().items())


def test_unknown_names_are_refused(tmp_path, refuses):
    with refuses("'nonsense'", *ANALYSES):
        report(subject(), ["nonsense"], tmp_path)
