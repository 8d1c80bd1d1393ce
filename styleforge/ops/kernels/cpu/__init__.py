"""Numba kernels, compiled on first use for the CPU and kept for the next time.

`bias_act` (modulation scale, noise, bias, activation, gain and clamp in one pass), `upfirdn2d`, and the sums and
differences of `styleforge.ops.winograd`. They take images in channels-last layout: what lies next to each other in
memory, the channels of a pixel, is what a processor calculates at a time.
"""
