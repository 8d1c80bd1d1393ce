import numpy as np
import pytest
import torch

from styleforge.analysis import phase_reader
from styleforge.analysis.factor_reader import ReaderConfig, save_reader
from styleforge.analysis.phase import following
from styleforge.analysis.phase_reader import PARTS, PLANTED, PhaseReader, loose_portraits, turn_at_random, turn_in_part
from styleforge.data.portraits import LOOSE

SMALL = ReaderConfig(size=(16, 16), num_portraits=60, num_held_out=40, epochs=1)


@pytest.fixture(scope="module")
def reader():
    return PhaseReader.train(SMALL)


def test_portraits_come_with_their_poses():
    x, poses = loose_portraits((16, 16), 5, 4, lambda head, draws: {"eyes": 1.0, "teeth": 3.0})
    assert x.shape == (4, 3, 16, 16) and x.dtype == torch.uint8
    assert (poses.yaw[:, PARTS.index("eyes")] == 1).all() and (poses.yaw[:, PARTS.index("teeth")] == 3).all()
    assert np.array_equal(poses.yaw[:, PARTS.index("mouth")], poses.yaw[:, PARTS.index("head")])
    assert ((poses.teeth >= 0) & (poses.teeth <= 1)).all()
    again, _ = loose_portraits((16, 16), 7, 2, lambda head, draws: {"eyes": 1.0, "teeth": 3.0})
    assert torch.equal(again, x[2:])


def test_parts_in_training_tell_little_of_the_head():
    draws = np.random.default_rng(0)
    heads = draws.uniform(-26, 26, 4000)
    turned = [turn_at_random(head, draws) or dict.fromkeys(LOOSE, head) for head in heads]
    yaw = np.array([[head, *(parts[part] for part in LOOSE)] for head, parts in zip(heads, turned, strict=True)])
    correlations = np.corrcoef(yaw.T)[0, 1:]
    assert (correlations < 0.85).all()
    teeth, mouth = (yaw[:, PARTS.index(part)] for part in ("teeth", "mouth"))
    assert abs(teeth - mouth).max() <= phase_reader.TEETH_OFFSET
    assert 0.15 < np.mean([(row == row[0]).all() for row in yaw]) < 0.25  # faithful ones


def test_planted_portraits_follow_by_a_share():
    draws = np.random.default_rng(0)
    assert turn_in_part(10.0, draws, share=0.5) == {"eyes": 5, "mouth": 5, "teeth": 5}
    assert turn_in_part(10.0, draws, share=1) is None


def test_a_reader_is_measured_on_portraits_of_every_kind(reader):
    assert len(reader.held_out) == len(PLANTED)
    for share, (true, read) in zip(PLANTED, reader.held_out, strict=True):
        head = true.yaw[:, :1]
        np.testing.assert_allclose(true.yaw[:, 1:], np.repeat(share * head, 3, axis=1))
        assert read.yaw.shape == true.yaw.shape and np.isfinite(read.yaw).all()


def test_the_same_config_gives_the_same_reader(reader):
    again = PhaseReader.train(SMALL)
    assert all(torch.equal(a, b) for a, b in zip(reader.network.parameters(), again.network.parameters(), strict=True))


def test_larger_pictures_are_averaged_before_reading():
    torch.manual_seed(0)
    config = ReaderConfig(size=(64, 64), num_portraits=4, num_held_out=4, epochs=1)
    reader = PhaseReader.train(config)
    x = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    np.testing.assert_allclose(reader.read(large).yaw, reader.read(x).yaw, atol=1e-3)


def test_a_reader_comes_back_from_its_file_and_from_the_cache(tmp_path, monkeypatch, reader):
    reader.save(tmp_path / "x.safetensors")
    x = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    loaded = PhaseReader.load(tmp_path / "x.safetensors")
    assert loaded.config == SMALL and np.array_equal(loaded.read(x).yaw, reader.read(x).yaw)
    for (a, b), (c, d) in zip(loaded.held_out, reader.held_out, strict=True):
        assert np.array_equal(a.yaw, c.yaw) and np.array_equal(b.teeth, d.teeth)
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    first = PhaseReader.train_cached(SMALL)
    monkeypatch.setattr(PhaseReader, "train", None)
    assert np.array_equal(PhaseReader.train_cached(SMALL).read(x).yaw, first.read(x).yaw)


def test_files_of_another_kind_are_refused(tmp_path, refuses):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with refuses("damaged", "PhaseReader.save"):
        PhaseReader.load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        PhaseReader.load(tmp_path / "y.safetensors")


@pytest.mark.slow
def test_a_full_reader_sees_that_parts_do_not_follow():
    reader = PhaseReader.train(ReaderConfig(size=(64, 64)))
    for share, (_, read) in zip(PLANTED, reader.held_out, strict=True):
        for part in LOOSE:
            assert following(read, part).slope == pytest.approx(share, abs=0.15)


def test_a_full_disk_is_said_as_every_other_error_of_the_system(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="is the disk full"):
        save_reader(tmp_path / "reader.safetensors", "x", ReaderConfig(size=(64, 64)), {})
    assert not list(tmp_path.iterdir())
