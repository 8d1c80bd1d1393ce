import errno

import numpy as np
import pytest
import torch
from processes import run_ranks

from styleforge import dist
from styleforge.metrics import collect as module
from styleforge.metrics.collect import CHUNK, MomentSink, RowSink, collect

CPU = torch.device("cpu")
NUM = 3 * CHUNK + 100


def features(indices):
    """Numbers that follow from the sample alone."""
    i = torch.as_tensor(list(indices), dtype=torch.float64)[:, None]
    return (i * torch.tensor([1.0, 0.7, 0.3]) + torch.tensor([0.0, 1.0, 2.0])).sin()


def work(chunk, wanted):
    return {"a": features(chunk)}


def sinks(num=NUM):
    return [MomentSink("a", num, 3), RowSink("a", 700, 3, np.float64)]


def check(moments, rows, num=NUM):
    everything = features(range(num)).numpy()
    np.testing.assert_allclose(moments.moments.mean, everything.mean(0), atol=1e-14)
    np.testing.assert_allclose(moments.moments.covariance, np.cov(everything.T), atol=1e-13)
    np.testing.assert_array_equal(rows.rows, everything[:700])


def test_sums_and_rows_are_those_of_the_first_samples(tmp_path):
    both, calls = sinks(), []
    collect(work, both, tmp_path, CPU, lambda done, total: calls.append((done, total)))
    check(*both)
    assert calls[-1] == (NUM, NUM) and [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_what_is_complete_is_never_done_again(tmp_path):
    collect(work, sinks(), tmp_path, CPU)

    def fails(chunk, wanted):
        raise AssertionError

    both = sinks()
    collect(fails, both, tmp_path, CPU)
    check(*both)
    asked = []

    def more(chunk, wanted):
        asked.append(chunk.start)
        return work(chunk, wanted)

    collect(more, [*sinks(), MomentSink("a", 10, 3)], tmp_path, CPU)
    assert asked == [0]  # for the sink that is new, and no further than it needs


class Killed(BaseException):
    pass


def test_work_that_was_killed_goes_on_where_it_was_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SEC", -1.0)  # after every chunk
    done = []

    def dies(chunk, wanted):
        if chunk.start == 2 * CHUNK:
            raise Killed
        done.append(chunk.start)
        return work(chunk, wanted)

    with pytest.raises(Killed):
        collect(dies, sinks(), tmp_path, CPU)
    assert done == [0, CHUNK]

    def goes_on(chunk, wanted):
        assert chunk.start >= 2 * CHUNK
        return work(chunk, wanted)

    both = sinks()
    collect(goes_on, both, tmp_path, CPU)
    check(*both)
    collect(work, whole := sinks(), tmp_path / "other", CPU)
    torch.testing.assert_close(both[0].moments.covariance, whole[0].moments.covariance, rtol=0, atol=0)


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 40])
@pytest.mark.parametrize("ending", ["safetensors", "npy"])
def test_damaged_files_are_made_again(tmp_path, damage, ending):
    collect(work, sinks(), tmp_path, CPU)
    for path in tmp_path.glob(f"*.{ending}"):
        path.write_bytes(damage)
    both = sinks()
    collect(work, both, tmp_path, CPU)
    check(*both)


def shared(folder):
    with dist.Group(CPU):
        both = sinks()
        collect(work, both, folder, CPU)
        if dist.rank() == 0:
            check(*both)
        return both[0].moments.mean.tolist(), both[0].moments.covariance.tolist()


def test_a_full_disk_is_said_before_any_work(tmp_path, monkeypatch):
    def full(file, offset, size):
        assert size > 700 * 3 * 8
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for .*STYLEFORGE_CACHE"):
        collect(lambda chunk, wanted: pytest.fail("there is no room"), sinks(), tmp_path, CPU)
    assert not list(tmp_path.glob("*.npy"))


def test_a_disk_that_cannot_say_is_trusted(tmp_path, monkeypatch):
    def unknown(file, offset, size):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(module.os, "posix_fallocate", unknown)
    both = sinks()
    collect(work, both, tmp_path, CPU)
    check(*both)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_work_and_get_what_one_gets(tmp_path, world_size):
    results = run_ranks(shared, world_size, tmp_path)
    assert all(result == results[0] for result in results)
    assert not list(tmp_path.glob("rank*"))
    both = sinks()
    collect(lambda chunk, wanted: pytest.fail("it is complete"), both, tmp_path, CPU)
    check(*both)


def test_processes_find_what_one_has_left_complete(tmp_path):
    collect(work, sinks(), tmp_path, CPU)
    first, _ = run_ranks(shared, 2, tmp_path)
    assert not isinstance(first, Exception)
