import shutil
import sys

import pytest
import torch
from random_weights import nothing_drawn, pictures

from styleforge.features import available, load_distance
from styleforge.features.lpips import LINEAR, LINEAR_SHA256, TAPS
from styleforge.images import from_uint8

pytest.importorskip("torchvision")
lpips = pytest.importorskip("torchmetrics.functional.image.lpips")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, vgg16_file, linear_file):
    path = tmp_path_factory.mktemp("weights")
    for file in (vgg16_file, linear_file):
        shutil.copy(file, path / file.name)
    return path


@pytest.fixture(scope="module")
def distance(folder):
    return load_distance("lpips", weights_dir=folder)


@pytest.fixture(scope="module")
def images():
    return [from_uint8(pictures(3, seed=seed)) for seed in (0, 1)]


def test_equals_torchmetrics_on_the_same_weights(distance, folder, images):
    with nothing_drawn():
        theirs = lpips._LPIPS(net="vgg", pnet_rand=True, model_path=folder / LINEAR)
    trunk = distance.network.trunk.state_dict()
    slices = {name: 1 + sum(int(name.split(".")[0]) > tap for tap in TAPS) for name in trunk}
    theirs.net.load_state_dict({f"slice{slices[name]}.{name}": tensor for name, tensor in trunk.items()})
    expected = theirs(*images).flatten()
    assert (expected > 0.01).all()
    torch.testing.assert_close(distance(*images), expected, atol=1e-5, rtol=1e-5)


def test_equals_torch_fidelity_on_the_same_weights(distance, folder, images, monkeypatch):
    module = pytest.importorskip("torch_fidelity.sample_similarity_lpips")
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        vgg16 = models.vgg16()
    vgg16.features[:30].load_state_dict(distance.network.trunk.state_dict(), assign=True)
    monkeypatch.setattr(module, "torchvision_load_pretrained_vgg16", lambda: vgg16)
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: torch.load(folder / LINEAR))
    theirs = module.SampleSimilarityLPIPS("theirs")
    expected = theirs(*[127.5 * (img + 1) for img in images])
    torch.testing.assert_close(distance(*images), expected, atol=1e-5, rtol=1e-5)


def test_one_side_may_be_embedded_once(distance, images):
    difference = distance.embed(images[0]) - distance.embed(images[1])
    assert torch.equal(distance(*images), difference.square().sum(1))


def test_gradients_are_finite_even_where_no_channel_responds(distance):
    img = torch.zeros(1, 3, 32, 32, requires_grad=True)
    bias = distance.network.trunk[0].bias
    before = bias.clone()
    try:
        bias.fill_(-100)  # silences the first layer
        distance(img, torch.rand(1, 3, 32, 32)).sum().backward()
    finally:
        bias.copy_(before)
    assert img.grad.isfinite().all()


def test_other_weights_than_the_published_ones_are_a_stand_in_by_name(distance):
    assert distance.stand_in and distance.name == f"lpips-{distance.checksum[:8]}"


def test_the_linear_layers_come_from_torchmetrics_unless_a_file_is_at_hand(vgg16_file, folder, monkeypatch):
    published = "397923af" + 56 * "0"
    monkeypatch.setattr("styleforge.features.lpips.file_checksum", lambda _: published)
    without_file, with_file = load_distance("lpips", path=vgg16_file), load_distance("lpips", weights_dir=folder)
    assert (without_file.name, without_file.stand_in) == ("lpips", False)
    assert with_file.stand_in
    assert len(LINEAR_SHA256) == 64


def test_the_linear_layers_alone_do_not_make_it_available(folder, linear_file):
    assert available("lpips", folder)
    assert not available("lpips", linear_file.parent)


def test_linear_layers_of_another_layout_are_refused(tmp_path, folder, vgg16_file, refuses):
    state = torch.load(folder / LINEAR)
    for wrong, part in (
        ({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, "another network"),
        (state | {"lin1.model.1.weight": torch.zeros(1, 64, 1, 1)}, "another network"),
        (state | {"lin1.model.1.weight": torch.full((1, 128, 1, 1), -0.1)}, "below 0"),
    ):
        torch.save(wrong, tmp_path / LINEAR)
        with refuses(LINEAR, part):
            load_distance("lpips", path=vgg16_file, weights_dir=tmp_path)


def test_another_networks_weights_are_refused(tmp_path, refuses):
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    with refuses("a.pth", "another network", "torchvision's VGG16"):
        load_distance("lpips", path=tmp_path / "a.pth")


@pytest.mark.parametrize("package", ["torchvision.models", "torchmetrics"])
def test_a_missing_package_is_said_with_the_command_that_brings_it(monkeypatch, vgg16_file, refuses, package):
    monkeypatch.setitem(sys.modules, package, None)
    with refuses(package.partition(".")[0], 'pip install "styleforge[metrics]"'):
        load_distance("lpips", path=vgg16_file)
