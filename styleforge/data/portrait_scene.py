"""What the painters of a portrait share: palette, head, light, and the map from pixels to the face."""
# Shapes: H W size of the picture or of a window into it; colours are [3, 1, 1] or [3, H, W] in [0, 1].

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np

from styleforge.data.portrait_factors import FACTORS
from styleforge.data.portrait_shapes import Array, Canvas, Head, Point, Window, blend, ellipse, inside, ramp

EYE, NOSE, MOUTH = (0.365, 0.008), (0.0, 0.33), (0.0, 0.60)
"""Where the features lie on the face (X, Y); the other eye is at -X."""
NOSE_LIFT, HAIR_LIFT, GLASSES_LIFT = 1.17, 1.07, 1.10
"""How far nose, hair and glasses stand off the face."""

_CHOICES = {factor.name: factor.values for factor in FACTORS}


def tint(red: float, green: float, blue: float) -> Array:
    """[3, 1, 1] float32 of three numbers."""
    return np.array([red, green, blue], np.float32)[:, None, None]


def _palette(*codes: str) -> list[Array]:
    """Colours from six hexadecimal digits each."""
    return [tint(*(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))) for code in codes]


SKIN = _palette("ffe0cc", "fbd0b1", "ebb08a", "cb8a60", "9c6242", "6b412d")
HAIR = _palette("241f28", "4a2f27", "8d5430", "cb6430", "ecc477", "c2c6d0")
IRIS = _palette("6b3f22", "4f8a4c", "3f7fc4", "75838f")
CLOTHES = _palette("f1e6d3", "e8a33d", "d5573b", "7d3c66", "2f6f73", "27365e")
WALL = _palette("bfe0cf", "8ec5d6", "93a9e0", "b9a0dc", "eaa9bd", "f3c9a0", "f0dfb4")
INK, WHITE, MAROON, TONGUE, GOLD = _palette("2a1d22", "fffaf2", "6e1f2a", "cc5c61", "9e6b33")


def along(stops: Sequence[Array], t: float) -> Array:
    """The colour at t in [0, 1] of a ramp of evenly spaced stops."""
    place = t * (len(stops) - 1)
    i = min(int(place), len(stops) - 2)
    return stops[i] + (stops[i + 1] - stops[i]) * (place - i)


def mouth_lines(p: dict[str, float], q: Array) -> tuple[Array, Array, Array]:
    """Height of three lines of the open mouth, in picture units below `MOUTH` on the face.

    Args:
        p: Factors by name.
        q: 1 in the middle of the mouth, 0 at its corners.

    Returns:
        The upper lip's lower edge, the lower lip's upper edge, and the lower edge of the teeth between them.
    """
    middle = 0.075 * p["smile"] * (q - 0.45)
    gap = 0.185 * p["mouth_openness"] * q
    top, bottom = middle - 0.3 * gap, middle + 0.7 * gap
    return top, bottom, top + 0.72 * p["teeth"] * gap


class Scene:
    """One portrait in the making."""

    def __init__(self, factors: Sequence[float], height: int, width: int) -> None:
        self.p = dict(zip(_CHOICES, factors, strict=True))
        """Factors by name."""
        self.canvas = Canvas(height, width)
        self.unit = self.canvas.unit
        p = self.p
        self.head = Head(
            centre=(0.03 * p["yaw"] / 26, -0.10 - 0.02 * p["pitch"] / 14),
            radii=(0.445 + 0.075 * p["face_shape"], 0.635 - 0.025 * p["face_shape"]),
            yaw=p["yaw"],
            pitch=p["pitch"],
        )
        self.a, self.b = self.head.radii
        self.skin = along(SKIN, p["skin"])
        self.hair = HAIR[int(p["hair_colour"])]
        self.style = self.choice("hair_style")
        length = math.hypot(0.8 * p["light"], 0.45, 0.6)
        self.light = 0.8 * p["light"] / length, -0.45 / length, 0.6 / length
        """Direction to the light: right, down, towards the viewer."""
        self.X, self.Y, self.Z = self.head.surface(self.canvas.x, self.canvas.y)
        self.face = self.face_shape(self.canvas.x, self.canvas.y)
        self.on_face = inside(self.face)
        """How much of each pixel the face covers."""

    def choice(self, name: str) -> str:
        """The value of a categorical factor."""
        return _CHOICES[name][int(self.p[name])]

    def around(self, points: Sequence[Point], margin: float) -> Scene:
        """The part of the scene around some points (X, Y) of the face; painting there is quicker and paints here."""
        return self.crop(self.window(points, margin))

    def window(self, points: Sequence[Point], margin: float) -> Window:
        """Rows and columns around some points (X, Y) of the face."""
        return self.canvas.window([self.head.project(X, Y) for X, Y in points], margin)

    def crop(self, window: Window) -> Scene:
        """The part of the whole scene in a window."""
        part = copy.copy(self)
        part.canvas = self.canvas.crop(window)
        part.X, part.Y, part.Z = self.X[window], self.Y[window], self.Z[window]
        part.face, part.on_face = self.face[window], self.on_face[window]
        return part

    def turned(self, yaw: float) -> Scene:
        """The scene on a head that looks elsewhere, to paint parts that do not follow this one's.

        Canvas and outline of the face stay those of this scene.
        """
        factors = [yaw if name == "yaw" else value for name, value in self.p.items()]
        other = Scene(factors, *self.canvas.size)
        other.canvas, other.face, other.on_face = self.canvas, self.face, self.on_face
        return other

    def jaw(self) -> tuple[float, float, float, float]:
        """The ellipse of the jaw, which drops as the mouth opens: centre and radii in picture units."""
        x, y, _ = self.head.turn(0, 0.34 + 0.05 * self.p["mouth_openness"], 0.16)
        return x, y, self.a * (0.66 + 0.16 * self.p["face_shape"]), self.b * 0.62

    def face_shape(self, x: Array, y: Array) -> Array:
        """Outline of cranium and jaw, two ellipses whose centres turn with the head."""
        cx, cy, _ = self.head.turn(0, -0.14, -0.10)
        jx, jy, jaw_rx, jaw_ry = self.jaw()
        cranium = ellipse(x - cx, y - cy, self.a * 0.96, self.b * 0.86)
        return blend(cranium, ellipse(x - jx, y - jy, jaw_rx, jaw_ry), 0.35)

    def lambert(self, x: Array, y: Array, rx: float, ry: float) -> Array:
        """Light on an ellipsoid around the origin of the given coordinates: 0 turned away, 1 facing the light."""
        nx, ny = x / rx, y / ry
        nz = np.sqrt((1 - nx * nx - ny * ny).clip(0.02))
        return ((nx * self.light[0] + ny * self.light[1] + nz * self.light[2]) * 0.5 + 0.5).clip(0, 1)

    def head_light(self, size: float) -> Array:
        """`lambert` on the head, blown up by a factor."""
        cx, cy = self.head.centre
        return self.lambert(self.canvas.x - cx, self.canvas.y - cy, self.a * size, self.b * size)

    def lit(self, colour: Array, light: Array, depth: float = 0.45) -> Array:
        """[3, H, W]: a colour under the light of `lambert`, warm in the shade and a little paler in full light."""
        shade = colour * tint(1 - 0.8 * depth, 1 - 1.1 * depth, 1 - depth)
        return shade + (colour * 1.04 + 0.02 - shade) * ramp(light, 0.1, 1.0)

    def landmarks(self) -> dict[str, Point]:
        """Points of the drawn face in picture units; see `portraits.landmarks`."""
        top, bottom, edge = (float(line) / self.b for line in mouth_lines(self.p, np.ones(())))
        jaw_x, jaw_y, _, jaw_ry = self.jaw()
        return {
            "left_eye": self.head.project(-EYE[0], EYE[1]),
            "right_eye": self.head.project(*EYE),
            "nose": self.head.project(*NOSE, NOSE_LIFT),
            "mouth": self.head.project(MOUTH[0], MOUTH[1] + (top + bottom) / 2),
            "teeth": self.head.project(MOUTH[0], MOUTH[1] + (top + edge) / 2),
            "chin": (jaw_x, jaw_y + jaw_ry),
        }
