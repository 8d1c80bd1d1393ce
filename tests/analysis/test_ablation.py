import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.ablation import (
    ablate,
    ablate_and_detect,
    ablate_in_turn,
    box_mask,
    has_style_biases,
    parse_box,
    rank_units,
    redraw_noise,
    style_biases,
    switched_off,
)
from styleforge.analysis.activations import record
from styleforge.latents import generate_ws
from styleforge.networks import Generator, GeneratorConfig

from .planted import planted


def features(G, ws, layer):
    with record(G, [layer]) as activations:
        G.synthesis(ws, noise_mode="const")
    return activations[layer]


def test_without_units_equals_weights_that_do_not_read_them():
    G = tiny_generator("config-a")
    ws = generate_ws(G, range(2))
    img = ablate(G, ws, "b8.conv1", [3, 5])
    G.synthesis.b16.conv0.weight[:, [3, 5]] = 0
    torch.testing.assert_close(img, G.synthesis(ws, noise_mode="const"), rtol=1e-4, atol=1e-5)


def test_units_are_zero_and_the_others_as_before():
    G = tiny_generator()
    ws = generate_ws(G, range(2))
    before = features(G, ws, "b8.conv1")
    with switched_off(G, "b8.conv1", [[1, 4], [2]]):
        after = features(G, ws, "b8.conv1")
    expected = before.clone()
    expected[0, [1, 4]] = 0
    expected[1, 2] = 0
    assert torch.equal(after, expected)
    with switched_off(G, "b8.conv1", [[1, 4]], keep=True):
        after = features(G, ws, "b8.conv1")
    assert torch.equal(after, before - before.index_fill(1, torch.tensor([1, 4]), 0))


def test_no_unit_changes_nothing_and_the_network_stays_as_it_was():
    G = tiny_generator("config-a")
    ws = generate_ws(G, range(2))
    before = G.synthesis(ws, noise_mode="const")
    assert torch.equal(ablate(G, ws, "b8.conv1", []), before)
    assert not torch.equal(ablate(G, ws, "b8.conv1", [], keep=True), before)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), before)


def test_units_that_are_not_there_are_refused(refuses):
    G = tiny_generator()
    before = G.synthesis(generate_ws(G, [0]), noise_mode="const")
    with refuses("12", "0 to 11", "--units"):
        ablate(G, generate_ws(G, [0]), "b8.conv1", [12])
    with refuses("b9", "--layer"):
        ablate(G, generate_ws(G, [0]), "b9", [0])
    assert torch.equal(G.synthesis(generate_ws(G, [0]), noise_mode="const"), before)


def test_units_are_ranked_by_their_magnitude_in_the_region():
    G = tiny_generator()
    ws = generate_ws(G, range(2))
    ranked, strength = rank_units(G, ws, "b8.conv1", box_mask(G, (4, 6, 9, 8)))  # pixels 2, 3 and half of 4 of row 3
    x = features(G, ws, "b8.conv1").abs()[:, :, 3]
    torch.testing.assert_close(strength, (x[:, :, 2] + x[:, :, 3] + x[:, :, 4] / 2) / 2.5)
    assert torch.equal(ranked, strength.argsort(1, descending=True))


def test_each_picture_has_its_own_region():
    G = tiny_generator()
    ws = generate_ws(G, range(2))
    boxes = [(0, 0, 2, 2), (8, 8, 16, 16)]
    _, both = rank_units(G, ws, "b16.conv0", torch.cat([box_mask(G, box) for box in boxes]))
    for i, box in enumerate(boxes):
        _, one = rank_units(G, ws[i : i + 1], "b16.conv0", box_mask(G, box))
        torch.testing.assert_close(both[i : i + 1], one, rtol=1e-4, atol=1e-5)


def test_an_empty_region_is_refused(refuses):
    G = tiny_generator()
    with refuses("without any", "--box"):
        rank_units(G, generate_ws(G, [0]), "b8.conv1", torch.zeros(1, 16, 16, dtype=torch.bool))


def test_boxes_are_read_and_checked(refuses):
    G = tiny_generator("non-square")
    mask = box_mask(G, parse_box("1, 2,32,24"))
    assert mask.shape == (1, 24, 32) and mask.sum() == 31 * 22
    assert mask[0, 2, 1] and not mask[0, 1, 1] and not mask[0, 2, 0]
    for text in ("1,2,3", "a,b,c,d", "", "1,2,3,4,5", "-1,2,3,4"):
        with refuses(repr(text), "--box"):
            parse_box(text)
    for box in ((3, 0, 3, 4), (0, 0, 33, 4), (0, 20, 4, 25)):
        with refuses(",".join(map(str, box)), "--box"):
            box_mask(G, box)


def test_units_are_switched_off_in_turn_where_the_droplet_is():
    G = tiny_generator()
    ws = generate_ws(G, range(3))
    with planted(G, "b16.conv1", strength=30, share=0.75):  # before the ablation, which acts on its result
        steps = ablate_in_turn(G, ws, "b16.conv1", 2)
    assert [len(step.units[0]) for step in steps] == [0, 1, 2]
    for i in range(3):
        assert steps[0].droplets.found[i]
        assert all(unit < 9 for unit in steps[2].units[i])  # those with the spot
        assert steps[2].units[i][0] == steps[1].units[i][0]


def test_with_a_region_the_strongest_units_follow_one_another():
    G = tiny_generator()
    ws, region = generate_ws(G, range(2)), box_mask(G, (2, 2, 6, 6))
    ranked, _ = rank_units(G, ws, "b8.conv1", region)
    steps = ablate_in_turn(G, ws, "b8.conv1", 20, regions=region)
    assert len(steps) == 13  # twelve units, and then none is left
    for i in range(2):
        assert steps[-1].units[i] == ranked[i].tolist()


def test_pictures_without_a_droplet_need_a_region(refuses):
    G = tiny_generator()
    with refuses("--box"):
        ablate_in_turn(G, generate_ws(G, range(2)), "b8.conv1", 1)


def test_a_droplet_in_one_unit_only_vanishes_with_it():
    G = tiny_generator()
    ws = generate_ws(G, range(4))
    with planted(G, "b16.conv1", strength=30):
        assert ablate_and_detect(G, ws, "b16.conv1", [[]] * 4).droplets.rate == 1
        without = ablate_and_detect(G, ws, "b16.conv1", [list(range(7))] * 4)  # five of twelve have it still
    assert without.droplets.rate == 0


def test_noise_is_redrawn_with_w_fixed(refuses):
    G = tiny_generator()
    (w,) = generate_ws(G, [3])
    redraws = redraw_noise(G, w, 4)
    assert len(redraws.images_uint8.flatten(1).unique(dim=0)) == 4
    assert torch.equal(redraw_noise(G, w, 4, batch=3).images_uint8[1], redraws.images_uint8[1])
    quiet = tiny_generator("no-noise")
    with refuses("without noise"):
        redraw_noise(quiet, generate_ws(quiet, [0])[0], 2)


@pytest.mark.parametrize("layer", ["b4.conv0", "b8.conv1"])
def test_biases_are_the_styles_of_w_zero(layer):
    G = tiny_generator("config-a")
    part = G.synthesis.get_submodule(layer)
    norm = part.norm if layer == "b4.conv0" else part.epilogue.norm
    norm.affine.bias.normal_()
    sigma, mu = style_biases(G, layer)
    assert has_style_biases(G, layer)
    x = torch.randn(1, len(mu), 6, 6)
    w = torch.zeros(1, G.w_dim)
    expected = norm.normalize(x).std([2, 3], correction=0)[0] * sigma
    torch.testing.assert_close(norm(x, w).std([2, 3], correction=0)[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm(x, w).mean([2, 3])[0].abs(), mu, rtol=1e-4, atol=1e-5)


def test_networks_without_adain_have_no_such_biases(refuses):
    G = tiny_generator()
    assert not has_style_biases(G, "b8.conv1")
    with refuses("'demodulation'", "config-a"):
        style_biases(G, "b8.conv1")
    plain = Generator(
        GeneratorConfig(resolution=8, z_dim=4, w_dim=4, channel_max=4, style_block="instance", use_styles=False)
    )
    with refuses("styles"):
        style_biases(plain, "b8.conv1")
