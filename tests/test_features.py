import pytest
import torch

from styleforge.features import DISTANCES, EXTRACTORS, Distance, Extractor, available, load_distance, load_extractor
from styleforge.networks import Discriminator, DiscriminatorConfig

STAND_INS = ("random-vgg", "discriminator", "pixel+discriminator")


def test_stand_ins_need_nothing_and_say_what_they_are():
    D = Discriminator(DiscriminatorConfig(resolution=8, channel_base=64, channel_max=8))
    loaded = [load_extractor(name, D=D) for name in EXTRACTORS if name in STAND_INS]
    loaded += [load_distance(name, D=D) for name in DISTANCES if name in STAND_INS]
    assert [one.name for one in loaded] == ["random-vgg", "discriminator", "random-vgg", "pixel+discriminator"]
    for one in loaded:
        assert isinstance(one, Extractor | Distance)
        assert available(one.name)
        assert one.stand_in and len(one.checksum) == 64 and one.device == torch.device("cpu")


def test_unknown_names_are_refused(refuses):
    for load in (load_extractor, load_distance, available):
        with refuses("'alexnet'", "random-vgg"):
            load("alexnet")


@pytest.mark.parametrize(("load", "name"), [(load_extractor, "discriminator"), (load_distance, "pixel+discriminator")])
def test_a_discriminator_must_be_given_where_its_features_are_wanted(refuses, load, name):
    with refuses(name, "without a discriminator", "random-vgg"):
        load(name)
