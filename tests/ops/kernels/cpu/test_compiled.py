import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch

from styleforge.ops.kernels.cpu import compiled


def test_threads_are_as_many_as_pytorchs_and_leave_their_number_alone(monkeypatch):
    asked, before, ask = [], torch.get_num_threads(), numba.set_num_threads
    monkeypatch.setattr(numba, "set_num_threads", lambda number: asked.append(number) or ask(number))
    most = numba.config.NUMBA_NUM_THREADS
    try:
        for threads in (1, most, most + 3):
            torch.set_num_threads(threads)
            compiled.start_threads()
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert asked == [1, most, most]
    assert numba.threading_layer() == "omp"


def test_other_threads_than_openmps_are_refused(monkeypatch):
    monkeypatch.setattr(numba, "threading_layer", lambda: "workqueue")
    with pytest.raises(RuntimeError, match="its threads are of the kind 'workqueue', expected OpenMP's"):
        compiled.start_threads()


def test_callers_may_come_at_the_same_time():
    numbers = [np.zeros(1000, np.float32) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda array: [compiled._count_up(array) for _ in range(50)], numbers))
    assert all((array == 50).all() for array in numbers)


def test_where_nothing_can_be_kept_it_is_compiled_anew(monkeypatch):
    def njit(function, *, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda *arguments: function(*arguments)

    monkeypatch.setattr(numba, "njit", njit)
    array = np.zeros(3, np.float32)
    compiled.compiled(lambda numbers: np.add(numbers, 2, out=numbers))(array)
    assert array.tolist() == [2, 2, 2]


def test_where_what_is_kept_cannot_be_read_it_is_compiled_anew(monkeypatch):
    def njit(function, *, cache=False, **options):
        def kernel(*arguments):
            if cache:
                raise EOFError("Ran out of input")
            function(*arguments)

        return kernel

    monkeypatch.setattr(numba, "njit", njit)
    array = np.zeros(3, np.float32)
    run = compiled.compiled(lambda numbers: np.add(numbers, 2, out=numbers))
    run(array)
    run(array)
    assert array.tolist() == [4, 4, 4]


def test_says_what_is_missing(monkeypatch):
    def none(*arguments):
        raise ValueError("No threading layer could be loaded.\nHINT: many lines")

    with monkeypatch.context() as patched:
        patched.setattr(compiled, "_count_up", none)
        with pytest.raises(RuntimeError, match="it finds no OpenMP: install libgomp1"):
            compiled.start_threads()
    with monkeypatch.context() as patched:
        patched.setattr(numba.config, "DISABLE_JIT", 1)
        with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT is set"):
            compiled.start_threads()
    with monkeypatch.context() as patched:
        patched.setattr(compiled, "_started_in", os.getpid() + 1)
        with pytest.raises(RuntimeError, match="forked"):
            compiled.start_threads()


def test_what_was_compiled_is_kept_for_the_next_process(tmp_path):
    program = (
        "import torch; from styleforge.ops.kernels.cpu import compiled as c; c.start_threads(); "
        "kernel = next(f.cell_contents for f in c._count_up.__closure__ if hasattr(f.cell_contents, 'stats')); "
        "print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))"
    )
    environment = dict(os.environ, NUMBA_CACHE_DIR=str(tmp_path))
    outputs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [output.stdout.split() for output in outputs] == [["0", "1"], ["1", "0"]]


def test_layouts():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(torch.from_numpy(compiled.pixels_first(x)), x.permute(0, 2, 3, 1))
    assert compiled.pixels_first(compiled.channels_last(x)).flags.c_contiguous
