import sys

import pytest
import torch

from styleforge import memory


def test_glibc_is_told_and_memory_still_works():
    import torch

    assert memory.keep_freed_memory() == sys.platform.startswith("linux")
    for _ in range(3):
        assert torch.ones(1 << 20).sum() == 1 << 20


def test_other_systems_are_left_alone(monkeypatch):
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        assert memory.keep_freed_memory() is False


def test_linux_without_glibc_is_left_alone(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", refuse)
    assert memory.keep_freed_memory() is False


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried"), True),
        (RuntimeError("shape of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error, ran_out):
    assert memory.out_of_memory(error) is ran_out


@pytest.mark.skipif(sys.platform != "linux", reason="what other systems do with a million gigabytes is theirs")
def test_the_processors_own_refusal_is_known():
    with pytest.raises(RuntimeError) as info:
        torch.empty(1 << 50)
    assert memory.out_of_memory(info.value)
