import numpy as np
import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.activations import layer_names
from styleforge.analysis.droplets import LIMIT, THRESHOLD, counting_layers, detect, highest_peaks, peak_map
from styleforge.latents import generate_ws
from styleforge.networks import Generator, GeneratorConfig

from .planted import planted


def test_the_peak_is_the_median_channel_in_units_of_what_is_usual():
    x = torch.randn(2, 5, 20, 30, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((2, 20, 30))
    for n in range(2):
        channels = []
        for channel in x[n].numpy().reshape(5, 600):
            away = np.abs(channel - np.sort(channel)[299])
            channels.append((away / np.sort(away)[600 - 30 - 1]).reshape(20, 30))  # 30 is 5 % of 600
        expected[n] = np.median(channels, axis=0)
    np.testing.assert_allclose(peak_map(x), expected, rtol=1e-5)


def test_a_spot_in_half_of_the_channels_is_a_peak_and_one_in_fewer_is_not():
    x = torch.randn(1, 10, 32, 32, generator=torch.Generator().manual_seed(0))
    peaks = []
    for count in (4, 6):
        spotted = x.clone()
        spotted[:, :count, 20, 7] += 30
        (score,), place = highest_peaks(peak_map(spotted))
        peaks.append(float(score))
    assert peaks[0] < THRESHOLD < peaks[1]
    assert place.tolist() == [[7, 20]]


def test_objects_are_usual():
    x = torch.randn(1, 10, 32, 32, generator=torch.Generator().manual_seed(0))
    x[:, :, 8:24, 8:24] += 30
    assert peak_map(x).max() < THRESHOLD


def test_scale_sign_and_offset_of_the_channels_do_not_matter():
    x = torch.randn(1, 9, 15, 17, generator=torch.Generator().manual_seed(0))  # an odd number, with one median
    factors = torch.linspace(-3, 4, 9)[:, None, None]
    torch.testing.assert_close(peak_map(factors * x + 5 * factors), peak_map(x), rtol=1e-3, atol=1e-4)


def test_flat_features_have_no_peak_and_spots_on_them_a_finite_one():
    x = torch.full((1, 4, 16, 16), 2.5)
    assert torch.equal(peak_map(x), torch.zeros(1, 16, 16))
    x[:, :, 3, 4] = 7
    assert float(peak_map(x)[0, 3, 4]) == pytest.approx(LIMIT)


@pytest.mark.parametrize("kind", ["square", "non-square", "config-a", "no-noise"])
def test_planted_droplets_are_found_and_clean_pictures_pass(kind):
    G = tiny_generator(kind)
    ws = generate_ws(G, range(200))
    assert detect(G, ws).rate <= 0.05
    for layer in counting_layers(G):
        with planted(G, layer):
            assert detect(G, ws, batch=200).rate >= 0.95


def test_droplets_are_found_where_they_were_planted():
    G = tiny_generator("non-square")
    ws, places = generate_ws(G, range(20)), []
    with planted(G, "b24x32.conv1", places=places):
        droplets = detect(G, ws, batch=20)
    assert set(droplets.strongest) == {"b24x32.conv1"}
    for (x, y), place, mask in zip(places, droplets.places[:, -1].tolist(), droplets.masks, strict=True):
        assert abs(place[0] - x) <= 1 and abs(place[1] - y) <= 1
        rows, columns = mask.nonzero(as_tuple=True)
        assert 1 <= len(rows) <= 25
        assert mask[place[1], place[0]]
        assert abs(columns.float().mean() - x) <= 1 and abs(rows.float().mean() - y) <= 1


def test_a_spot_in_an_early_layer_is_masked_at_the_pictures_size():
    G = Generator(GeneratorConfig(resolution=(48, 32), z_dim=8, w_dim=8, channel_base=256, channel_max=8)).eval()
    with planted(G, "b24x16.conv1", strength=30):
        droplets = detect(G, generate_ws(G, range(5)))
    assert droplets.masks.shape == (5, 48, 32)
    assert set(droplets.strongest) == {"b24x16.conv1"}
    place = droplets.places[:, droplets.layers.index("b24x16.conv1")]
    assert torch.equal(droplets.centres, 2 * place + 1.0)
    for i, (x, y) in enumerate(droplets.centres.int().tolist()):
        assert droplets.masks[i, y - 1 : y + 1, x - 1 : x + 1].all()  # the layer's pixel is four of the picture


def test_clean_pictures_have_empty_masks():
    G = tiny_generator()
    droplets = detect(G, generate_ws(G, range(6)))
    assert droplets.rate == 0 and not droplets.found.any() and not droplets.masks.any()


def test_small_layers_are_scored_but_do_not_count():
    G = tiny_generator("config-a")
    assert counting_layers(G) == ["b16.conv0", "b16.conv1"]
    assert counting_layers(G, lod=1.0) == ["b8.conv0", "b8.conv1"]  # of the last block in any case
    droplets = detect(G, generate_ws(G, range(4)))
    assert droplets.layers == layer_names(G)
    assert droplets.layer_scores.shape == (4, 6) and droplets.places.shape == (4, 6, 2)
    assert torch.equal(droplets.score, droplets.layer_scores[:, -2:].amax(1))


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_batches_do_not_matter(noise_mode):
    G = tiny_generator()
    ws = generate_ws(G, range(5))
    whole = detect(G, ws, noise_mode=noise_mode, batch=5)
    parts = detect(G, ws, noise_mode=noise_mode, batch=2)
    torch.testing.assert_close(whole.layer_scores, parts.layer_scores, rtol=1e-3, atol=1e-3)


def test_the_network_and_its_pictures_stay_as_they_were():
    G = tiny_generator("config-a")
    ws = generate_ws(G, range(3))
    before = G.synthesis(ws, noise_mode="const")
    droplets = detect(G, ws)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), before)
    assert torch.equal(droplets.images_uint8, (before * 127.5 + 128).clamp(0, 255).byte())


def test_no_pictures_is_an_error():
    G = tiny_generator()
    with pytest.raises(ValueError, match="ws: got none, expected at least one"):
        detect(G, torch.empty(0, G.num_ws, G.w_dim))
