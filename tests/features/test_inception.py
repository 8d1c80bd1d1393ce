import sys

import pytest
import torch
from random_weights import nothing_drawn, pictures

from styleforge.features import load_extractor
from styleforge.features.weights import file_checksum

inceptionv3 = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")


@pytest.fixture(scope="module")
def extractor(inception_file):
    return load_extractor("inception", path=inception_file)


@pytest.fixture(scope="module")
def mine(extractor):
    return extractor(pictures(3))


def test_equals_torch_fidelity_on_the_same_file(inception_file, mine):
    with nothing_drawn():
        theirs = inceptionv3.FeatureExtractorInceptionV3(
            "theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=inception_file
        )
    features, logits = theirs(pictures(3))
    assert features.std() > 0.01 and logits.std() > 0.01
    torch.testing.assert_close(mine.features, features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.logits, logits, atol=1e-5, rtol=1e-5)


def test_a_pictures_features_do_not_depend_on_the_batch(extractor, mine):
    torch.testing.assert_close(extractor(pictures(3)[1:2]).features, mine.features[1:2], atol=1e-5, rtol=1e-5)


def test_the_facts_go_with_it(extractor, mine, inception_file):
    assert mine.features.shape == (3, extractor.num_features) == (3, 2048)
    assert mine.logits.shape == (3, 1008)
    assert extractor.checksum == file_checksum(inception_file)
    assert extractor.resize == "tensorflow-bilinear-299"
    assert not mine.features.requires_grad


def test_other_weights_than_the_published_ones_are_a_stand_in_by_name(extractor):
    assert extractor.stand_in
    assert extractor.name == f"inception-{extractor.checksum[:8]}"


def test_the_published_digest_gives_the_published_name(inception_file, monkeypatch):
    monkeypatch.setattr("styleforge.features.fidelity.file_checksum", lambda _: "6726825d" + 56 * "0")
    extractor = load_extractor("inception", path=inception_file)
    assert (extractor.name, extractor.stand_in) == ("inception-2015-12-05", False)


def test_loading_draws_no_random_numbers(inception_file):
    before = torch.get_rng_state()
    load_extractor("inception", path=inception_file)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_networks_weights_are_refused(tmp_path, refuses):
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    with refuses("a.pth", "another network", "torch-fidelity's InceptionV3"):
        load_extractor("inception", path=tmp_path / "a.pth")


def test_a_missing_package_is_said_with_the_command_that_brings_it(monkeypatch, refuses):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with refuses("torch_fidelity", 'pip install "styleforge[metrics]"'):
        load_extractor("inception")
