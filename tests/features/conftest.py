"""Weight files in the layouts of torch-fidelity, torchvision and LPIPS, filled with random numbers."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from random_weights import random_state

from styleforge.features.lpips import CHANNELS


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    inceptionv3 = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = inceptionv3.FeatureExtractorInceptionV3
    with torch.device("meta"), mock.patch.object(torch, "load"), mock.patch.object(network, "load_state_dict"):
        shapes = network("x", ["2048"], feature_extractor_weights_path="x").state_dict()
    path = tmp_path_factory.mktemp("inception") / "weights-inception-2015-12-05-6726825d.pth"
    torch.save(random_state(shapes), path)
    return path


@pytest.fixture(scope="session")
def vgg16_file(tmp_path_factory):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        shapes = models.vgg16().state_dict()
    path = tmp_path_factory.mktemp("vgg16") / "vgg16-397923af.pth"
    torch.save(random_state(shapes), path)
    return path


@pytest.fixture(scope="session")
def linear_file(tmp_path_factory):
    random = torch.Generator().manual_seed(1)
    path = tmp_path_factory.mktemp("lpips") / "weights-vgg16-lpips.pth"
    state = {f"lin{i}.model.1.weight": torch.rand(1, C, 1, 1, generator=random) for i, C in enumerate(CHANNELS)}
    torch.save(state, path)
    return path


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    """No test finds weights that somebody has, and none downloads."""
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("STYLEFORGE_OFFLINE", "1")
    monkeypatch.delenv("STYLEFORGE_WEIGHTS", raising=False)
