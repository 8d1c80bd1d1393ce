import os
import subprocess
import sys

import pytest
import torch

COMPILE = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class AGPUThatIsNotThere:
    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 80, 32)


run, compiled = JITFunction.run, []


def compile_only(self, *args, grid, warmup, **options):
    compiled.append(run(self, *args, grid=grid, warmup=True, **options).asm["cubin"])


driver.set_active(AGPUThatIsNotThere())
JITFunction.run = compile_only
from styleforge.ops import minibatch_stddev, upfirdn2d
from styleforge.ops.kernels.gpu import bias_act

for dtype, layout in ((torch.bfloat16, torch.channels_last), (torch.float64, torch.contiguous_format)):
    x = torch.zeros(4, 32, 16, 16, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    scale, bias, f, options = x[:, :, 0, 0], x[0, :, 0, 0], torch.ones(4, 4), {"slope": 0.2, "gain": 1.4, "clamp": 256}
    noise = x[:, :1] if layout == torch.channels_last else x
    bias_act.forward(x, scale, noise, bias, **options)
    bias_act.backward(x, x, x, scale, noise.shape, **options, needs=(True, True, True, True))
    bias_act.backward(x, x, None, None, None, slope=1.0, gain=1.0, clamp=None, needs=(True, False, False, True))
    upfirdn2d(x, f, padding=2, impl="triton")
    upfirdn2d(x, f, up=2, padding=2, impl="triton").sum().backward()
    minibatch_stddev(x, impl="triton").sum().backward()
assert len(compiled) == 16 and all(compiled)
"""


@pytest.fixture(scope="module")
def tiles(load_kernels):
    return load_kernels("tiles")


def test_all_kernels_compile_for_cuda_without_a_gpu(tiles, tmp_path):
    pytest.importorskip("triton.backends.nvidia", reason="needs a build of Triton for CUDA")
    settings = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=settings, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("channels_last", [False, True])
def test_tiles_are_powers_of_two_and_not_too_large(tiles, channels_last):
    for num_pixels in (0, 1, 15, 16, 1000, 2**20):
        for num_channels in (0, 1, 3, 64, 513, 10_000):
            sides = tiles.tile(num_pixels, num_channels, channels_last)
            assert all(side & (side - 1) == 0 and side > 0 for side in sides)
            assert sides[0] * sides[1] <= tiles.TILE


def test_tells_the_layouts_apart(tiles):
    x = torch.zeros(2, 3, 4, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    assert tiles.is_channels_last(last) and not tiles.is_channels_last(x)
    assert not tiles.is_channels_last(x.permute(0, 2, 1, 3))
    assert tiles.dense(x) is x and tiles.dense(last) is last
    assert tiles.dense(x, like=last).stride() == last.stride()
    assert tiles.dense(last.transpose(0, 1)).is_contiguous()
