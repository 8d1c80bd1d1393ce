from dataclasses import replace

import numpy as np
import pytest
import torch

from styleforge.analysis import FactorReader, ReaderConfig, factor_reader
from styleforge.analysis.factor_reader import CATEGORICAL, CONTINUOUS, reading_size
from styleforge.data.portraits import FACTORS, draw, sample_factors

SMALL = ReaderConfig(size=(16, 16), num_portraits=40, num_held_out=20, epochs=1, batch=16)
PLAIN = ["skin", "clothes", "background", "light", "hair_colour", "hair_style"]
"""Factors that can be read off 16×16 pixels after a few seconds' training."""
NAMES = [factor.name for factor in FACTORS]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path))
    return tmp_path / "readers"


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a reader is trained though it is in the cache")

    monkeypatch.setattr(factor_reader, "_train_network", refuse)


def portraits(num, size, seed=0):
    """[N, 3, H, W] uint8."""
    pictures = [torch.from_numpy(draw(sample_factors(i, seed), size)).permute(2, 0, 1) for i in range(num)]
    return torch.stack(pictures)


def same(a, b):
    weights = zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True)
    return (
        a.config == b.config
        and all(torch.equal(x, y) for x, y in weights)
        and np.array_equal(a.held_out, b.held_out)
        and np.array_equal(a.held_out_readings, b.held_out_readings)
    )


def test_it_learns_what_lies_in_plain_sight(reader):
    scores = dict(zip(NAMES, reader.scores(), strict=True))
    assert all(scores[name] > 0.4 for name in PLAIN), scores
    assert scores["gaze"] < 0.5  # no pixel of these shows it


def test_it_reads_portraits_that_it_has_not_seen_as_well_as_its_scores_say(reader):
    factors = np.stack([sample_factors(i, seed=3) for i in range(100)])
    readings = reader.read(portraits(100, 16, seed=3))
    assert readings.shape == factors.shape and readings.dtype == np.float64
    for name in ("skin", "clothes", "background"):
        i = NAMES.index(name)
        r2 = 1 - ((readings - factors)[:, i] ** 2).mean() / factors[:, i].var()
        assert abs(r2 - reader.scores()[i]) < 0.25
    for i in CATEGORICAL:
        assert set(readings[:, i]) <= set(range(len(FACTORS[i].values)))


def test_scores_are_r2_and_the_share_of_errors_avoided(reader):
    truth, readings, scores = reader.held_out, reader.held_out_readings, reader.scores()
    for i in CONTINUOUS:
        expected = 1 - ((readings - truth)[:, i] ** 2).sum() / ((truth[:, i] - truth[:, i].mean()) ** 2).sum()
        assert scores[i] == pytest.approx(expected)
    for i in CATEGORICAL:
        accuracy = (readings[:, i] == truth[:, i]).mean()
        majority = max((truth[:, i] == k).mean() for k in range(len(FACTORS[i].values)))
        assert scores[i] == pytest.approx((accuracy - majority) / (1 - majority))


def test_held_out_portraits_are_others_than_those_it_learns_from():
    x, factors = factor_reader._draw_portraits(5, 60, (16, 16), None)
    assert len({row.tobytes() for row in factors}) == 60
    reader = FactorReader.train(replace(SMALL, seed=2))
    _, drawn = factor_reader._draw_portraits(factor_reader.FIRST_SEED + 2, 60, (16, 16), None)
    assert np.array_equal(reader.held_out, drawn[40:])
    assert np.array_equal(x[0].permute(1, 2, 0).numpy(), draw(factors[0], 16))


def test_the_same_seed_gives_the_same_reader_whatever_was_drawn_before():
    first = FactorReader.train(SMALL)
    torch.rand(7)
    state = torch.get_rng_state()
    assert same(first, FactorReader.train(SMALL))
    assert torch.equal(state, torch.get_rng_state())
    assert not same(first, FactorReader.train(replace(SMALL, seed=1)))


def test_batches_do_not_change_readings(reader):
    pictures = portraits(7, 16)
    whole = reader.read(pictures)
    single = np.concatenate([reader.read(picture[None]) for picture in pictures])
    np.testing.assert_allclose(whole[:, CONTINUOUS], single[:, CONTINUOUS], atol=1e-4)


def test_large_pictures_are_read_at_a_smaller_size():
    assert reading_size((64, 64)) == (64, 64)
    assert reading_size((96, 96)) == (96, 96)
    assert reading_size((256, 256)) == reading_size((1024, 1024)) == (64, 64)
    assert reading_size((384, 512)) == (96, 128)
    config = ReaderConfig()
    network = factor_reader.new_network(config).eval()
    reader = FactorReader(config=config, network=network, held_out=np.empty(0), held_out_readings=np.empty(0))
    pictures = portraits(2, 64)
    large = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
    np.testing.assert_allclose(reader.read(large), reader.read(pictures), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (24, 32), (40, 28), (64, 64), (112, 80)])
def test_a_reader_exists_for_every_size_and_is_small(size):
    network = factor_reader.new_network(ReaderConfig(size=size)).eval()
    continuous, logits = network.split(network(torch.zeros(2, 3, *size)))
    assert continuous.shape == (2, len(CONTINUOUS))
    assert [part.shape[1] for part in logits] == [len(FACTORS[i].values) for i in CATEGORICAL]
    assert sum(p.numel() for p in network.parameters()) < 1_000_000


def test_progress_counts_portraits_and_then_steps():
    calls = []
    FactorReader.train(SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, 60) for i in range(60)] + [(1, 3), (2, 3), (3, 3)]


def test_a_cached_reader_is_not_trained_again(cache, no_training, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("STYLEFORGE_CACHE", str(cache.parent))
    first = FactorReader.train_cached(SMALL)
    assert [path.name for path in cache.iterdir()] == [f"{SMALL.key()}.safetensors"]
    monkeypatch.setattr(factor_reader, "_train_network", None)
    again = FactorReader.train_cached(SMALL)
    assert same(first, again)
    pictures = portraits(3, 16)
    assert np.array_equal(first.read(pictures), again.read(pictures))


def test_a_damaged_reader_is_made_anew(cache):
    path = cache / f"{SMALL.key()}.safetensors"
    first = FactorReader.train_cached(SMALL)
    whole = path.read_bytes()
    for damaged in (b"", b"not a reader", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="expected one written by FactorReader"):
            FactorReader.load(path)
        assert same(first, FactorReader.train_cached(SMALL))
        assert same(first, FactorReader.load(path))


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "file"))
    assert FactorReader.train_cached(SMALL).config == SMALL


def test_the_key_changes_with_the_config_and_with_the_drawer(monkeypatch):
    keys = {config.key() for config in (SMALL, replace(SMALL, seed=1), replace(SMALL, epochs=2), ReaderConfig())}
    assert len(keys) == 4 and SMALL.key() in keys
    before = SMALL.key()
    monkeypatch.setattr(factor_reader, "draw", lambda factors, size: draw(factors, size) // 2)
    assert SMALL.key() != before


def test_what_cannot_be_is_refused(refuses):
    with refuses("8×8", "at least 16 pixels"):
        reading_size((8, 8))
    with refuses("seed", "--seed"):
        ReaderConfig(seed=-1)
