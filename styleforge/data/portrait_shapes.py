"""Drawing with implicit functions: a canvas, anti-aliased shapes, and the round head on which a face is painted.

A shape is a function f of the picture, negative inside and positive outside. It need not be a true distance: its edge
is found from f divided by its change per pixel, so shapes may be stretched, bent and turned freely.
"""
# Shapes: H W size of the picture or of a window into it. All maps are float32.
# Picture units: the shorter side is SPAN long; x grows to the right, y downwards.

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np

Array = np.ndarray
Point = tuple[float, float]
Window = tuple[slice, slice]

SPAN, MIDDLE_Y = 1.80, -0.07
"""Length of the picture's shorter side, and the y in the picture's middle (x is 0 there), in picture units."""


class Canvas:
    """A picture under the brush, painted from back to front."""

    def __init__(self, height: int, width: int) -> None:
        self.size = height, width
        """Pixels of the whole picture, also in a window into it."""
        self.unit = min(height, width) / SPAN
        """Pixels per picture unit."""
        xs = (np.arange(width, dtype=np.float32) + (0.5 - width / 2)) / self.unit
        ys = (np.arange(height, dtype=np.float32) + (0.5 - height / 2)) / self.unit + MIDDLE_Y
        self.x, self.y = (np.broadcast_to(axis, self.size) for axis in (xs[None, :], ys[:, None]))
        self.rgb = np.zeros((3, *self.size), np.float32)
        """[3, H, W] in [0, 1]."""

    def to_pixels(self, point: Point) -> Point:
        """(x, y) in pixels of a point in picture units; the top left pixel covers [0, 1] × [0, 1]."""
        height, width = self.size
        return point[0] * self.unit + width / 2, (point[1] - MIDDLE_Y) * self.unit + height / 2

    def window(self, points: Sequence[Point], margin: float) -> Window:
        """Rows and columns of the box around some points, with a margin in picture units on each side."""

        def span(pixels: Sequence[float]) -> slice:
            low, high = min(pixels) - margin * self.unit, max(pixels) + margin * self.unit
            return slice(max(0, math.floor(low)), max(0, math.ceil(high)))

        xs, ys = zip(*(self.to_pixels(point) for point in points), strict=True)
        return span(ys), span(xs)

    def crop(self, window: Window) -> Canvas:
        """A canvas onto a window of the whole picture: painting there paints here."""
        part = copy.copy(self)
        part.x, part.y, part.rgb = self.x[window], self.y[window], self.rgb[(slice(None), *window)]
        return part

    def paint(self, colour: Array, coverage: Array) -> None:
        """Lays a colour, [3, 1, 1] or [3, H, W], over the picture where the coverage [H, W] in [0, 1] says so."""
        self.rgb += coverage * (colour - self.rgb)

    def shade(self, strength: Array, colour: Array) -> None:
        """Multiplies the picture by a colour where the strength [H, W] is 1, and leaves it alone where it is 0."""
        self.rgb *= 1 - strength * (1 - colour)

    def to_uint8(self) -> Array:
        """The picture as [H, W, 3] uint8, rounded to the nearest."""
        return np.ascontiguousarray((self.rgb.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def change_per_pixel(f: Array) -> Array:
    """Length of the gradient of f [H, W], per pixel."""
    dy, dx = np.empty_like(f), np.empty_like(f)
    np.subtract(f[2:], f[:-2], out=dy[1:-1])
    np.subtract(f[:, 2:], f[:, :-2], out=dx[:, 1:-1])
    dy[0], dy[-1] = 2 * (f[1] - f[0]), 2 * (f[-1] - f[-2])
    dx[:, 0], dx[:, -1] = 2 * (f[:, 1] - f[:, 0]), 2 * (f[:, -1] - f[:, -2])
    dy *= dy
    dx *= dx
    dy += dx
    dy += 1e-12  # where f is flat
    return np.sqrt(dy, out=dy) * 0.5


def inside(f: Array) -> Array:
    """How much of each pixel lies where f < 0: the anti-aliased shape, in [0, 1]."""
    return (0.5 - f / change_per_pixel(f)).clip(0, 1)


def between(low: Array, value: Array, high: Array) -> Array:
    """How much of each pixel lies where low < value < high; right for bands thinner than a pixel too."""
    return (inside(low - value) + inside(value - high) - 1).clip(0, 1)


def stroke(f: Array, half_width: float | Array) -> Array:
    """A line along f = 0, its half width in pixels; right for lines thinner than a pixel too."""
    distance = f / change_per_pixel(f)
    return (0.5 - distance + half_width).clip(0, 1) - (0.5 - distance - half_width).clip(0, 1)


def blend(f: Array, g: Array, k: float) -> Array:
    """Union of two shapes with a seam smoothed over the width k (the polynomial smooth minimum)."""
    h = (k - abs(f - g)).clip(0) / k
    return np.minimum(f, g) - h * h * (k / 4)


def ellipse(x: Array, y: Array, rx: float, ry: float) -> Array:
    """An ellipse around the origin of the given coordinates."""
    return np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1


def capsule(x: Array, y: Array, start: Point, end: Point, r_start: float, r_end: float) -> Array:
    """A line from start to end whose radius changes evenly from ``r_start`` to ``r_end``."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = (((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy)).clip(0, 1)
    return np.sqrt((x - start[0] - t * dx) ** 2 + (y - start[1] - t * dy) ** 2) - (r_start + t * (r_end - r_start))


def rounded_box(x: Array, y: Array, rx: float, ry: float, corner: float) -> Array:
    """A box of half sides rx, ry whose corners are rounded with the radius ``corner``."""
    qx, qy = abs(x) - (rx - corner), abs(y) - (ry - corner)
    return np.sqrt(qx.clip(0) ** 2 + qy.clip(0) ** 2) + np.maximum(qx, qy).clip(None, 0) - corner


def superellipse(x: Array, y: Array, rx: float, ry: float, power: float) -> Array:
    """An ellipse with fuller corners: a power of 2 is the ellipse itself, more comes closer to a box."""
    return (abs(x / rx) ** power + abs(y / ry) ** power + 1e-9) ** (1 / power) - 1


def blob(x: Array, y: Array, rx: float, ry: float) -> Array:
    """A soft spot around the origin: 1 in the middle, 1/e at the ellipse of radii rx, ry."""
    return np.exp(-((x / rx) ** 2) - (y / ry) ** 2)


def ridge(x: Array, radius: float) -> Array:
    """A soft ridge along x = 0: 1 on it, 1/e at the radius."""
    return np.exp(-((x / radius) ** 2))


def ramp(x: Array, start: float, end: float) -> Array:
    """Smooth step from 0 at start to 1 at end."""
    t = ((x - start) / (end - start)).clip(0, 1)
    return t * t * (3 - 2 * t)


class Head:
    """An ellipsoid, turned by yaw and pitch, on whose front a face is painted.

    Face coordinates (X, Y, Z) lie on the unit sphere: X to the picture's right, Y down, Z out of the face, as seen
    when the head looks straight ahead. ``lift`` is the height above the skin: 1.1 floats 10 % of a radius in front of
    it, which is how nose, hair and glasses shift against the cheeks behind them.
    """

    def __init__(self, *, centre: Point, radii: Point, yaw: float, pitch: float) -> None:
        self.centre, self.radii = centre, radii
        self.yaw = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        self.pitch = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))

    def turn(self, X: float, Y: float, Z: float) -> tuple[float, float, float]:
        """Where a point of the head comes to lie: x, y in picture units, and its depth towards the viewer."""
        (cos_yaw, sin_yaw), (cos_pitch, sin_pitch) = self.yaw, self.pitch
        x, z = cos_yaw * X + sin_yaw * Z, cos_yaw * Z - sin_yaw * X
        y, z = cos_pitch * Y - sin_pitch * z, cos_pitch * z + sin_pitch * Y
        return self.centre[0] + x * self.radii[0], self.centre[1] + y * self.radii[1], z

    def project(self, X: float, Y: float, lift: float = 1.0) -> Point:
        """Where the point of the face at (X, Y), lifted off the skin, lies in the picture."""
        Z = math.sqrt(max(0.0, 1 - X * X - Y * Y))
        return self.turn(X * lift, Y * lift, Z * lift)[:2]

    def surface(self, x: Array, y: Array, lift: float = 1.0) -> tuple[Array, Array, Array]:
        """Face coordinates (X, Y, Z) seen at each pixel: the inverse of `project`, on the visible half.

        Beyond the ellipsoid's rim they go on in the plane through its centre.
        """
        (cos_yaw, sin_yaw), (cos_pitch, sin_pitch) = self.yaw, self.pitch
        x, y = (x - self.centre[0]) / (self.radii[0] * lift), (y - self.centre[1]) / (self.radii[1] * lift)
        z = np.sqrt((1 - x * x - y * y).clip(0))
        Y, z = cos_pitch * y + sin_pitch * z, cos_pitch * z - sin_pitch * y
        return cos_yaw * x - sin_yaw * z, Y, sin_yaw * x + cos_yaw * z
