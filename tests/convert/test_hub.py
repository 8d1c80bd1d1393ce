import shutil
from pathlib import Path

import pytest
import torch

from styleforge.checkpoint import Checkpoint
from styleforge.convert import hub
from styleforge.networks import Generator, GeneratorConfig


class FakeApi:
    """Stands for ``huggingface_hub.HfApi``: repositories are folders."""

    def __init__(self, root: Path) -> None:
        self.root, self.private = root, None

    def create_repo(self, repo_id, *, private, exist_ok):
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        self.private = private
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def hf_hub_download(self, repo_id, filename, revision=None):
        return str(self.root / repo_id / filename)


def test_networks_come_back_with_a_card_for_people(tmp_path):
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4))
    info = {"kimg": 12.0, "metrics": {"fid50k_full": 3.25}, "licence": "CC0"}
    loaded = Checkpoint(G_ema=G, info=info, training={"x": torch.ones(1)})
    api = FakeApi(tmp_path)
    assert hub.push(loaded, "someone/portraits", private=True, api=api) == "https://huggingface.co/someone/portraits"
    assert api.private
    again = hub.load("someone/portraits", api=api)
    assert all(torch.equal(x, again.G_ema.state_dict()[name]) for name, x in G.state_dict().items())
    assert again.training == {} and again.info["kimg"] == 12
    card = (tmp_path / "someone/portraits/README.md").read_text(encoding="utf-8")
    for part in ("# someone/portraits", "CC0", "12 thousand pictures", "fid50k_full**: 3.25", '"resolution": 8'):
        assert part in card


def test_no_repository_is_made_for_what_cannot_be_written(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(hub, "write", fail)
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4))
    with pytest.raises(OSError, match="No space"):
        hub.push(Checkpoint(G_ema=G), "someone/portraits", api=FakeApi(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_card_says_whether_there_are_labels(tmp_path):
    for c_dim, tag in ((0, " unconditional-image"), (2, " conditional-image")):
        G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4, c_dim=c_dim))
        hub.push(Checkpoint(G_ema=G), f"someone/c{c_dim}", api=FakeApi(tmp_path))
        assert tag in (tmp_path / f"someone/c{c_dim}/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["portraits", "/x", "a/b/c", ""])
def test_names_that_are_none_are_refused(name, refuses):
    with refuses("repo_id", "owner/name"):
        hub.load(name, api=object())


def test_a_missing_package_is_named(monkeypatch, refuses):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with refuses("styleforge[hub]"):
        hub.load("a/b")
