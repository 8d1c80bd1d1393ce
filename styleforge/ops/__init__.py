"""Pure functions on tensors: filtering, modulated convolution, bias and activation, normalization.

Every function is twice differentiable, takes any float dtype, and runs on CPU, CUDA and MPS. Where ``impl`` can be
chosen, each way is the same function; `styleforge.ops.kernels` holds those in Triton and in Numba.
"""

from styleforge.ops.bias_act import bias_act
from styleforge.ops.conv2d_resample import conv2d_resample
from styleforge.ops.modulated_conv2d import demodulation_coefficients, modulated_conv2d
from styleforge.ops.normalization import (
    instance_norm,
    minibatch_stddev,
    normalize_2nd_moment,
    pixel_instance_norm,
    pixel_norm,
)
from styleforge.ops.upfirdn2d import (
    box_downsample2d,
    downsample2d,
    filter2d,
    make_filter,
    nearest_upsample2d,
    upfirdn2d,
    upsample2d,
)

__all__ = [
    "bias_act",
    "box_downsample2d",
    "conv2d_resample",
    "demodulation_coefficients",
    "downsample2d",
    "filter2d",
    "instance_norm",
    "make_filter",
    "minibatch_stddev",
    "modulated_conv2d",
    "nearest_upsample2d",
    "normalize_2nd_moment",
    "pixel_instance_norm",
    "pixel_norm",
    "upfirdn2d",
    "upsample2d",
]
