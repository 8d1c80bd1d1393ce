import sys

from styleforge import allocator


def test_glibc_is_told_and_memory_still_works():
    import torch

    assert allocator.keep_freed_memory() == sys.platform.startswith("linux")
    for _ in range(3):
        assert torch.ones(1 << 20).sum() == 1 << 20


def test_other_systems_are_left_alone(monkeypatch):
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        assert allocator.keep_freed_memory() is False


def test_linux_without_glibc_is_left_alone(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", refuse)
    assert allocator.keep_freed_memory() is False
