import pytest
import torch

from styleforge.metrics.tools import PUBLISHED, Tools
from styleforge.networks import Discriminator, DiscriminatorConfig


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["inception", "vgg16", "lpips"]),
        ("published", ["inception", "vgg16", "lpips"]),
        ("random-vgg", ["random-vgg"] * 3),
        ("discriminator", ["discriminator", "discriminator", "pixel+discriminator"]),
        ("vgg16", ["vgg16", "vgg16", "lpips"]),
        ("inception", ["inception", "inception", "lpips"]),
    ],
)
def test_each_metric_has_its_network(choice, names):
    assert [Tools(extractor=choice).name_for(kind) for kind in ("fid", "pr", "ppl")] == names


def test_auto_takes_what_is_at_hand(monkeypatch):
    monkeypatch.setattr("styleforge.metrics.tools.available", lambda name, folder: name == "vgg16")
    assert [Tools(extractor="auto").name_for(kind) for kind in PUBLISHED] == ["random-vgg"] * 3 + [
        "vgg16",
        "random-vgg",
    ]


def test_stand_ins_mark_the_numbers():
    tools = Tools(extractor="random-vgg")
    assert tools.suffix("fid") == tools.suffix("ppl") == "@random-vgg"
    assert tools.extractor_for("fid") is tools.extractor_for("pr")


def test_the_discriminator_needs_one(refuses):
    with refuses("without a discriminator"):
        Tools(extractor="discriminator").extractor_for("fid")
    D = Discriminator(DiscriminatorConfig(resolution=16, channel_base=128, channel_max=8))
    tools = Tools(extractor="discriminator", D=D)
    images_uint8 = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert tools.extractor_for("fid")(images_uint8).features.shape[0] == 2 and tools.suffix("fid") == "@discriminator"


def test_other_choices_are_refused(refuses):
    with refuses("'resnet'", "random-vgg", "--extractor"):
        Tools(extractor="resnet").name_for("fid")
