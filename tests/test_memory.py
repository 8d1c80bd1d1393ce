import sys
from pathlib import Path

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


def write(root, files):
    for name, text in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_is_left_is_the_least_of_machine_and_containers(tmp_path):
    assert memory.available_memory(tmp_path) is None
    write(tmp_path, {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n"})
    assert memory.available_memory(tmp_path) == 5000 * 1024
    outer = {"memory.max": "4000000", "memory.current": "1500000", "memory.stat": "anon 7\ninactive_file 500000\n"}
    write(tmp_path / "sys/fs/cgroup/outer", outer)
    write(tmp_path / "sys/fs/cgroup/outer/inner", {"memory.max": "max\n", "memory.current": "1\n", "memory.stat": ""})
    assert memory.available_memory(tmp_path) == 5000 * 1024
    write(tmp_path, {"proc/self/cgroup": "0::/outer/inner\n"})
    assert memory.available_memory(tmp_path) == 3000000
    write(tmp_path / "sys/fs/cgroup/outer/inner", {"memory.max": "2000", "memory.current": "4000"})
    assert memory.available_memory(tmp_path) == 0


def test_containers_of_the_old_kind_are_heeded(tmp_path):
    write(tmp_path, {"proc/meminfo": "MemAvailable:    5000 kB\n", "proc/self/cgroup": "4:memory:/x\n"})
    numbers = {"memory.limit_in_bytes": "3000", "memory.usage_in_bytes": "2500", "memory.stat": "total_inactive_file 9"}
    write(tmp_path / "sys/fs/cgroup/memory", numbers)
    assert memory.available_memory(tmp_path) == 509


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say")
def test_this_process_has_memory():
    now, peak = memory.resident_memory(), memory.resident_memory(peak=True)
    assert 1 << 20 < now <= peak < 1 << 45
    assert memory.available_memory() > 1 << 20
