import pytest
import torch
from random_weights import nothing_drawn, pictures

from styleforge.features import load_extractor
from styleforge.features.weights import file_checksum

vgg16 = pytest.importorskip("torch_fidelity.feature_extractor_vgg16")


@pytest.fixture(scope="module")
def extractor(vgg16_file):
    return load_extractor("vgg16", path=vgg16_file)


def test_equals_torch_fidelity_on_the_same_file(extractor, vgg16_file):
    with nothing_drawn():
        theirs = vgg16.FeatureExtractorVGG16("theirs", ["fc2_relu"], feature_extractor_weights_path=vgg16_file)
    (features,) = theirs(pictures())
    mine = extractor(pictures())
    assert features.std() > 0.01
    assert (mine.features - features).abs().max() <= 1e-5 * features.abs().max()
    assert mine.logits is None


def test_the_facts_go_with_it(extractor, vgg16_file):
    assert (extractor.num_features, extractor.resize) == (4096, "tensorflow-bilinear-224")
    assert extractor.checksum == file_checksum(vgg16_file)
    assert extractor.stand_in and extractor.name == f"vgg16-{extractor.checksum[:8]}"


def test_another_networks_weights_are_refused(tmp_path, vgg16_file, refuses):
    state = torch.load(vgg16_file, weights_only=True)
    state["features.0.weight"] = torch.zeros(64, 4, 3, 3)
    torch.save(state, tmp_path / "a.pth")
    with refuses("a.pth", "features.0.weight", "torchvision's VGG16"):
        load_extractor("vgg16", path=tmp_path / "a.pth")
