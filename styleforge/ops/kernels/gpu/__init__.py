"""Triton kernels, compiled on first use for the GPU.

`bias_act` (modulation scale, noise, bias, activation, gain and clamp in one pass), `upfirdn2d` and `minibatch_stddev`.
"""
