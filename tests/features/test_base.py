import pytest
import torch
from random_weights import pictures
from torch import nn

from styleforge.features import Features, load_distance, load_extractor, wrap
from styleforge.features.base import state_checksum


class Means(nn.Module):
    """The simplest network: the mean of every channel, and one more that is off while training."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout()

    def forward(self, images_uint8):
        assert images_uint8.dtype == torch.uint8 and images_uint8.shape[1] == 3
        return self.dropout(images_uint8.double().mean([2, 3]) * self.scale)


def test_any_module_becomes_an_extractor():
    extractor = wrap(Means().train(), name="means", resize="mine")
    features, logits = extractor(pictures(4))
    torch.testing.assert_close(features, 2 * pictures(4).float().mean([2, 3]))
    assert features.dtype == torch.float32 and not features.requires_grad and logits is None
    assert (extractor.name, extractor.resize, extractor.num_features, extractor.stand_in) == ("means", "mine", 3, True)
    assert len(extractor.checksum) == 64 and extractor.checksum == wrap(Means(), name="x", resize="mine").checksum
    assert extractor.to("cpu") is extractor


def test_modules_that_answer_differently_have_different_checksums():
    class Squares(Means):
        def forward(self, images_uint8):
            return super().forward(images_uint8) ** 2

    first, other_code, other_resize = (
        wrap(Means(), name="x"),
        wrap(Squares(), name="x"),
        wrap(Means(), name="x", resize="y"),
    )
    assert state_checksum(Means()) == state_checksum(Squares())
    assert len({first.checksum, other_code.checksum, other_resize.checksum}) == 3


def test_a_module_that_gives_no_features_is_refused(refuses):
    with refuses("conv", "[1, 3, 64, 64]", "[N, F]"):
        wrap(nn.Upsample(scale_factor=1), name="conv")
    with refuses("all", "[3, 64, 64]"):
        wrap(nn.Flatten(0, 1), name="all")


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_other_channels_are_seen_as_rgb(channels):
    extractor = wrap(Means(), name="means")
    x = pictures(3, channels)
    expected = x[:, :1].expand(-1, 3, -1, -1) if channels < 3 else x[:, :3]
    if channels in (2, 4):
        alpha = x[:, -1:] / 255
        expected = expected * alpha + 255 * (1 - alpha)
    assert (extractor(x).features - 2 * expected.float().mean([2, 3])).abs().max() < 1
    assert load_extractor("random-vgg")(x).features.isfinite().all()


def test_bad_pictures_are_refused(refuses):
    extractor, distance = load_extractor("random-vgg"), load_distance("random-vgg")
    with refuses("images", "float32", "to_uint8"):
        extractor(torch.zeros(1, 3, 8, 8))
    with refuses("images", "[3, 8, 8]"):
        extractor(torch.zeros(3, 8, 8, dtype=torch.uint8))
    with refuses("5 channels", "RGBA"):
        extractor(torch.zeros(1, 5, 8, 8, dtype=torch.uint8))
    with refuses("img", "uint8", "from_uint8"):
        distance.embed(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with refuses("img1", "[1, 3, 8, 8]", "[2, 3, 8, 8]"):
        distance(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_the_checksum_follows_names_types_shapes_and_values_but_not_layout():
    conv = nn.Conv2d(2, 3, 3)
    same = state_checksum(conv)
    assert state_checksum(conv.to(memory_format=torch.channels_last)) == same
    assert state_checksum(nn.Sequential(conv)) != same
    assert state_checksum(conv.double()) != same
    conv = conv.float()
    assert state_checksum(conv) == same
    conv.bias.data[0] += 1
    assert state_checksum(conv) != same


def test_features_are_a_pair():
    features, logits = Features(torch.zeros(1, 2), None)
    assert features.shape == (1, 2) and logits is None
