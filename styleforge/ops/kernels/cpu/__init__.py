"""Numba kernels, compiled on first use for the CPU and kept for the next time.

`bias_act` (modulation scale, noise, bias, activation, gain and clamp in one pass), `winograd` (3×3 convolutions and
their gradients with fewer multiplications) and `conv2d` (the weight gradients of all others), with what these are made
of in `vectors`. They take images in channels-last layout: what lies next to each other in memory, the channels of a
pixel, is what a processor calculates at a time. The low-pass filters are left to PyTorch's depthwise convolutions: a
kernel was no quicker.
"""
