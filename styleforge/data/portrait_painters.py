"""The painters of a portrait, in the order of their work: from the wall behind to the glasses in front."""
# Shapes: H W size of the picture or of a window into it. Coverages are [H, W]; X, Y, Z are face coordinates (`Head`).
# Lengths are picture units; (m, n) or (ex, ey) are distances on the face from the middle of a feature.

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from styleforge.data.portrait_scene import (
    CLOTHES,
    EYE,
    GLASSES_LIFT,
    GOLD,
    HAIR_LIFT,
    INK,
    IRIS,
    MAROON,
    MOUTH,
    NOSE,
    NOSE_LIFT,
    TONGUE,
    WALL,
    WHITE,
    Scene,
    along,
    mouth_lines,
    tint,
)
from styleforge.data.portrait_shapes import (
    Array,
    Point,
    between,
    blend,
    blob,
    capsule,
    ellipse,
    inside,
    ramp,
    ridge,
    rounded_box,
    stroke,
    superellipse,
)


def paint_all(s: Scene, loose: Mapping[str, Scene] | None = None) -> None:
    """Paints the whole portrait.

    Args:
        s: The scene.
        loose: What ``eyes``, ``mouth`` and ``teeth`` are painted from instead, see `Scene.turned`.
    """
    loose = loose or {}
    paint_wall(s)
    paint_back_hair(s)
    paint_body(s)
    paint_ears(s, front=False)
    paint_skin(s)
    paint_nose_shadow(s)
    paint_ears(s, front=True)
    paint_beard(s)
    paint_mouth(loose.get("mouth", s), loose.get("teeth"))
    paint_eyes(loose.get("eyes", s))
    paint_brows(s)
    paint_nose(s)
    paint_glasses(s, temples=True)
    paint_hair(s)
    paint_glasses(s, temples=False)


def paint_wall(s: Scene) -> None:
    """The background: a soft glow, a vertical fade, or a disc behind the head."""
    canvas, light = s.canvas, s.p["light"]
    wall = along(WALL, s.p["background"])
    pale, deep = wall + (1 - wall) * 0.55, wall * tint(0.70, 0.72, 0.80)
    pattern = s.choice("backdrop")
    canvas.rgb[:] = wall if pattern == "disc" else deep
    if pattern == "glow":
        canvas.paint(pale, blob(canvas.x - 0.45 * light, canvas.y + 0.25, 1.15, 1.15))
    elif pattern == "fade":
        canvas.paint(pale, ramp(0.2 * light * canvas.x - canvas.y, -1.0, 1.0))
    else:
        canvas.paint(pale, inside(ellipse(canvas.x, canvas.y + 0.06, 0.86, 0.86)))


def hair_colour(s: Scene, X: Array, Y: Array) -> Array:
    """[3, H, W]: hair with its gloss and strands, or curls; (X, Y) are face coordinates on the hair."""
    colour = s.lit(s.hair, s.head_light(1.3), 0.5)
    if s.style == "curly":
        return colour * (1 + 0.10 * np.sin(17 * X + 3 * np.sin(6 * Y)) * np.sin(15 * Y + 3 * np.sin(7 * X)))
    gloss = blob(Y + 0.62 - 0.25 * X * X, X - 0.5 * s.light[0], 0.13, 0.75)
    colour = colour + (1 - colour) * (0.6 * colour + 0.05) * gloss
    return colour * (1 + 0.03 * np.sin(24 * X + 4 * Y) + 0.025 * np.sin(41 * X + 9 * Y))


def hanging_hair(s: Scene) -> Array:
    """Outline of hair that falls to the chin (bob) or over the shoulders (long)."""
    cx, cy, _ = s.head.turn(0, -0.12, -0.25)
    x, y = s.canvas.x - cx, s.canvas.y - cy
    if s.style == "bob":
        return rounded_box(x / (1 + 0.10 * (y - 0.1)), y - 0.09, s.a * 1.15, 0.69, 0.45)
    return rounded_box(x / (1 + 0.22 * (y - 0.1)), y - 0.32, s.a * 1.12, 0.92, 0.45)


def locks(s: Scene) -> Array:
    """The two sides on which hair falls straight down from the temples, in front of the face."""
    (left, _), (right, _) = s.head.project(-0.78, 0.1), s.head.project(0.78, 0.1)
    return np.minimum(s.canvas.x - left, right - s.canvas.x) / s.a - 0.08 * (s.canvas.y + 0.2)


def paint_back_hair(s: Scene) -> None:
    """Hair that hangs or stands behind the head, and what shows of the hair on its far side."""
    if s.style == "shaved":
        return
    x, y = s.canvas.x, s.canvas.y
    if s.style == "curly":
        cx, cy, _ = s.head.turn(0, -0.22, -0.25)
        angle = np.arctan2(y - cy, x - cx)
        curls = 0.035 * np.sin(11 * angle) + 0.02 * np.sin(19 * angle + 1)
        shape, darker = ellipse(x - cx, y - cy, s.a * 1.36, s.b * 1.04) - curls, 0.90
    else:
        # Where the hair in front has the same edge, this one stays within: two coverages would add up to too much.
        outline, _ = hair_cut(s, *s.head.surface(x, y, HAIR_LIFT))
        far_side = np.maximum(outline + 0.02, y - s.head.centre[1] + 0.1)
        shape, darker = far_side, 0.80
        if s.style == "bun":
            cx, cy, _ = s.head.turn(0, -1.10, -0.15)
            shape = np.minimum(far_side, ellipse(x - cx, y - cy, 0.21, 0.16))
        elif s.style in ("bob", "long"):
            shape = np.minimum(far_side, np.maximum(outline, np.maximum(-locks(s) - 0.1, -0.5 - y)))
    s.canvas.paint(hair_colour(s, s.X, s.Y) * darker, inside(shape))


def paint_body(s: Scene) -> None:
    """Shoulders in a jumper, the neck in the shadow of the jaw, and the collar."""
    s = s.crop(s.canvas.window([(-99, 0.2), (99, 99)], 0))
    canvas, x, y = s.canvas, s.canvas.x, s.canvas.y
    below = (y - 1.23).clip(None, 0)  # The body goes on downwards in tall pictures.
    shoulders = superellipse(x, below, 0.90, 0.58, 3.0)
    jumper = s.lit(along(CLOTHES, s.p["clothes"]), s.lambert(x, below, 1.05, 0.75), 0.4)
    canvas.paint(jumper, inside(shoulders))

    neck_x = 0.35 * s.head.centre[0]
    neckline = ellipse(x - neck_x / 2, y - 0.63, 0.29, 0.165)
    throat = np.maximum(abs(x - neck_x) - 0.20, y - 0.68)
    skin = inside(np.minimum(np.maximum(throat, 0.25 - y), np.maximum(neckline, shoulders)))
    canvas.paint(s.lit(s.skin, s.lambert(x - neck_x, np.full_like(y, -0.1), 0.34, 1.0)), skin)
    under_jaw = ramp(-s.face_shape(x + 0.06 * s.light[0], y - 0.11), -0.16, 0.12)
    canvas.shade(skin * under_jaw * 0.7, tint(0.70, 0.55, 0.55))
    collar = stroke(neckline, 0.032 * s.unit) * inside(np.maximum(0.62 - y, np.maximum(shoulders - 0.03, -throat)))
    canvas.paint(jumper * 0.82, collar)


def paint_ears(s: Scene, *, front: bool) -> None:
    """Both ears behind the head, or once more in front the one that has turned to the viewer."""
    for side in (-0.98, 0.98):
        ex, ey, depth = s.head.turn(side, 0.10, -0.04)
        opacity = min(1.0, max(0.0, depth) / 0.2) if front else 1.0
        if opacity == 0:
            continue
        ear = s.crop(s.canvas.window([(ex, ey)], 0.2))
        x, y, rx = ear.canvas.x - ex, ear.canvas.y - ey, 0.075 + 0.05 * max(depth, 0)
        ear.canvas.paint(s.lit(s.skin, ear.head_light(1.2)) * 0.96, inside(ellipse(x, y, rx, 0.125)) * opacity)
        ear.canvas.shade(inside(ellipse(x, y, rx * 0.5, 0.075)) * opacity * 0.5, tint(0.80, 0.60, 0.58))


def paint_skin(s: Scene) -> None:
    """The face itself, with the light's gradient, the blush of the cheeks and the sockets of the eyes."""
    s.canvas.paint(s.lit(s.skin, s.head_light(1.1)), s.on_face)
    cheeks = blob(abs(s.X) - 0.47, s.Y - 0.36 + 0.05 * s.p["smile"], 0.20, 0.15) * s.on_face
    s.canvas.shade(cheeks * (0.5 + 0.3 * max(0.0, s.p["smile"])), tint(1.0, 0.82, 0.80))
    sockets = blob(abs(s.X) - EYE[0], s.Y - EYE[1] + 0.06, 0.24, 0.15) * s.on_face
    s.canvas.shade(sockets * 0.35, tint(0.82, 0.68, 0.68))


def paint_beard(s: Scene) -> None:
    """Stubble, a moustache, or a full beard."""
    kind = s.choice("beard")
    if kind == "none":
        return
    side, Y, y = abs(s.X), s.Y, s.canvas.y
    hair = s.lit(s.hair * 0.92, s.head_light(1.2)) * (1 + 0.04 * np.sin(30 * s.X))
    rise = 0.12 * s.p["smile"] * side - 0.6 * (side - 0.14) ** 2
    moustache = ellipse(side - 0.14, Y - 0.47 + rise, 0.23, 0.062)
    # From the sideburns down along the cheeks to the moustache, and all below.
    jaw = 0.40 + 0.16 * ramp(side, 0.15, 0.40) - 0.75 * ramp(side, 0.45, 1.0) - Y
    beard = np.minimum(np.maximum(jaw, 0.2 - s.Z - ramp(Y, 0.3, 0.7)), moustache)
    if kind == "moustache":
        s.canvas.paint(hair, inside(moustache) * s.on_face)
    elif kind == "stubble":
        s.canvas.paint(s.hair * 0.6 + s.skin * 0.15, ramp(-beard, -0.06, 0.10) * s.on_face * 0.38)
    else:
        beyond = inside(s.face_shape(s.canvas.x, y - 0.045)) * ramp(y - s.head.centre[1], 0.15, 0.45)
        s.canvas.paint(hair, inside(beard) * np.maximum(beyond, s.on_face))


def paint_mouth(s: Scene, loose_teeth: Scene | None = None) -> None:
    """Lips, and in the open mouth the teeth and the tongue; all on the face, so that they turn with the head.

    Teeth of another scene are painted where that scene has them, within the open mouth of this one.
    """
    window = s.window([MOUTH, (MOUTH[0], MOUTH[1] + 0.12)], 0.30)
    t, s = (s if loose_teeth is None else loose_teeth).crop(window), s.crop(window)
    canvas, p = s.canvas, s.p
    m, n = s.X * s.a, (s.Y - MOUTH[1]) * s.b
    half = 0.170 + 0.040 * max(0.0, p["smile"]) - 0.020 * p["mouth_openness"]
    q = 1 - (m / half) ** 2
    top, bottom, edge = mouth_lines(p, q)

    lip = s.skin * tint(0.84, 0.61, 0.60) + tint(0.05, 0.01, 0.02)
    cupid_bow = 1 - 0.25 * ridge(m, 0.04)
    lips = between(top - 0.030 * q * cupid_bow, n, bottom + 0.040 * q) * s.on_face
    canvas.paint(lip, lips)
    canvas.paint(lip + (1 - lip) * 0.25, lips * blob(m + 0.02, n - bottom - 0.018, 0.06, 0.014) * 0.7)
    closed = stroke(n - top, 0.007 * s.unit) * inside(-q) * s.on_face
    canvas.paint(MAROON, closed * (0.8 - 0.6 * min(1.0, 4 * p["mouth_openness"])))

    canvas.paint(MAROON * 0.75, between(top, n, bottom) * s.on_face)
    tongue = inside(ellipse(m, n - bottom - 0.015, 0.11, 0.065))
    canvas.paint(TONGUE, between(top, n, bottom) * tongue * s.on_face)
    opening = s.on_face
    if loose_teeth is not None:
        opening = between(top, n, bottom) * s.on_face
        m, n = t.X * t.a, (t.Y - MOUTH[1]) * t.b
        q = 1 - (m / half) ** 2
        top, _, edge = mouth_lines(p, q)
    teeth = between(top, n, edge) * inside(0.12 - q) * opening
    canvas.paint(WHITE * (0.97 - 0.10 * ridge(n - top, 0.014)), teeth)
    gaps = np.minimum(abs(m), np.minimum(abs(abs(m) - 0.048), abs(abs(m) - 0.090)))
    canvas.shade(teeth * stroke(gaps, 0.002 * s.unit) * 0.5, tint(0.70, 0.65, 0.65))


def paint_eyes(s: Scene) -> None:
    """Both eyes at once: on the face mirrored at its middle, but for the gaze and the glint."""
    s = s.around([EYE, (-EYE[0], EYE[1])], 0.22)
    canvas, p, side = s.canvas, s.p, np.sign(s.X)
    ex = (abs(s.X) - EYE[0]) * s.a
    ey = (s.Y - EYE[1]) * s.b + 0.10 * ex  # The outer corners lie a little higher.
    q = 1 - (ex / 0.120) ** 2
    upper = 0.026 - 0.094 * p["eye_openness"] * q
    lower = 0.026 + (0.032 + 0.014 * p["eye_openness"]) * q
    ball = between(upper, ey, lower) * s.on_face
    canvas.paint(WHITE * (0.98 - 0.22 * ridge(ey - upper, 0.021)), ball)

    ix, iris = ex - side * 0.042 * p["gaze"], IRIS[int(p["eye_colour"])]
    radius = np.sqrt(ix * ix + ey * ey)
    canvas.paint(iris * 0.55, ball * inside(radius - 0.068))
    canvas.paint(iris + (1 - iris) * (0.30 * ramp(ey, -0.03, 0.05)), ball * inside(radius - 0.056))
    canvas.paint(INK, ball * inside(radius - 0.030))
    glint = np.sqrt((ix - side * (0.022 if p["light"] > 0 else -0.022)) ** 2 + (ey + 0.022) ** 2) - 0.015
    canvas.paint(WHITE, ball * inside(glint))

    on_lid = inside(-q) * s.on_face
    canvas.paint(INK, stroke(ey - upper + 0.004, 0.011 * s.unit) * on_lid * 0.95)
    canvas.shade(stroke(ey - lower, 0.005 * s.unit) * on_lid * 0.5, tint(0.50, 0.35, 0.35))
    crease = stroke(ey - upper + 0.038, 0.006 * s.unit) * inside(0.15 - q) * s.on_face
    canvas.shade(crease * 0.45, tint(0.60, 0.42, 0.42))


def paint_brows(s: Scene) -> None:
    """Brows that rise, or come down and together."""
    s = s.around([(EYE[0], -0.22), (-EYE[0], -0.22)], 0.22)
    raised = s.p["brows"]
    bx, by = (abs(s.X) - EYE[0]) * s.a, (s.Y + 0.245) * s.b
    curve = -0.040 * raised + 0.16 * raised * bx + 1.8 * bx * bx
    half_width = (0.022 - 0.075 * (bx + 0.02).clip(0, 0.2)) * s.unit
    brows = stroke(by - curve, half_width) * inside(abs(bx) - 0.125) * s.on_face
    s.canvas.paint(s.hair * (0.72 if s.choice("hair_colour") in ("blond", "silver") else 0.85), brows * 0.95)


def nose_line(s: Scene) -> tuple[Point, Point]:
    """Bridge and tip of the nose in the picture; the tip floats in front of the face."""
    return s.head.project(0, -0.02, 1.03), s.head.project(*NOSE, NOSE_LIFT)


def paint_nose_shadow(s: Scene) -> None:
    """The nose's shadow on the cheek, under beard and mouth."""
    s = s.around([(0, -0.05), NOSE], 0.24)
    shadow = capsule(s.canvas.x + 0.045 * s.light[0], s.canvas.y - 0.035, *nose_line(s), 0.02, 0.075)
    s.canvas.shade(ramp(-shadow, -0.05, 0.03) * s.on_face * 0.65, tint(0.78, 0.62, 0.60))


def paint_nose(s: Scene) -> None:
    """The nose itself, round in the light."""
    s = s.around([(0, -0.05), NOSE], 0.24)
    canvas, x, y = s.canvas, s.canvas.x, s.canvas.y
    bridge, tip = nose_line(s)
    dx, dy = x - tip[0], y - tip[1]
    shape = inside(capsule(x, y, bridge, tip, 0.030, 0.068)) * ramp(y, bridge[1], tip[1])
    canvas.paint(s.lit(s.skin, s.lambert(dx, dy * 0.5, 0.085, 0.085), 0.35), shape)
    for side in (-0.085, 0.085):
        nx, ny = s.head.project(side, NOSE[1] + 0.075, 1.06)
        canvas.shade(inside(ellipse(x - nx, y - ny, 0.022, 0.013)) * 0.7, tint(0.45, 0.28, 0.28))
    canvas.paint(WHITE, blob(dx - 0.03 * s.light[0], dy + 0.02, 0.025, 0.022) * 0.35)


def hair_cut(s: Scene, X: Array, Y: Array, Z: Array) -> tuple[Array, Array]:
    """The two shapes whose overlap is the hair in front of the head: its outline, and the side of the hairline."""
    cx, cy, _ = s.head.turn(0, -0.15, -0.14)
    x, y, a, b = s.canvas.x - cx, s.canvas.y - cy, s.a, s.b
    sideburns = np.maximum(Z - 0.45, Y + 0.3 * Z)  # The sides of the head, down to the ears.
    if s.style == "shaved":
        return ellipse(x, y, a * 0.98, b * 0.88), blend(Y + 0.60 - 0.30 * X * X, sideburns, 0.15)
    if s.style == "short":  # Full on top, swept over from a parting, close to the skin at the ears.
        outline = superellipse(x, y, a * 1.04, b * 0.97, 2.6) + 0.09 * ramp(Y, -0.50, 0.05)
        part = X - 0.38
        swept = Y + 0.63 - np.where(part < 0, -0.42, 0.55) * part - 0.02 * np.sin(18 * X + 1)
        return outline, blend(swept, sideburns - 0.05, 0.12)
    if s.style == "curly":
        curls = Y + 0.50 - 0.28 * X * X + 0.035 * np.sin(17 * X)
        return ellipse(x, y, a * 1.16, b), blend(curls, sideburns - 0.18, 0.12)
    if s.style == "bun":
        outline = ellipse(x, y, a, b * 0.93) + 0.08 * ramp(Y, -0.45, 0.10)
        return outline, blend(Y + 0.56 - 0.36 * X * X, sideburns, 0.2)
    fringe = Y + 0.36 - 0.10 * X * X if s.style == "bob" else Y + 0.80 - 1.15 * abs(X + 0.12) ** 1.5
    return blend(ellipse(x, y, a * 1.09, b * 0.97), hanging_hair(s), 0.02), blend(fringe, locks(s), 0.1)


def paint_hair(s: Scene) -> None:
    """Hair on the head and in front of the face, and its shadow on the forehead."""
    X, Y, Z = s.head.surface(s.canvas.x, s.canvas.y, 1.01 if s.style == "shaved" else HAIR_LIFT)
    outline, hairline = hair_cut(s, X, Y, Z)
    hair = inside(np.maximum(outline, hairline))
    shadow = ramp(hairline, 0.16, 0.0) * inside(outline) * s.on_face * (1 - hair)
    s.canvas.shade(shadow * 0.45, tint(0.72, 0.56, 0.56))
    s.canvas.paint(hair_colour(s, X, Y), hair * (0.72 if s.style == "shaved" else 1.0))


def paint_glasses(s: Scene, *, temples: bool) -> None:
    """Frames that float in front of the face, with a glint on the lenses; or their temples, which go under the hair."""
    kind = s.choice("glasses")
    if kind == "none":
        return
    s = s.around([EYE, (-EYE[0], EYE[1])], 0.36)
    X, Y, Z = s.head.surface(s.canvas.x, s.canvas.y, GLASSES_LIFT)
    gx, gy, middle = X * GLASSES_LIFT * s.a, (Y * GLASSES_LIFT - 0.05) * s.b, 0.395 * s.a
    half_width = (0.013 if kind == "round" else 0.018) * s.unit
    colour, front = GOLD if kind == "round" else INK, inside(-Z)
    if temples:
        arms = stroke(gy + 0.04, half_width) * inside(middle + 0.16 - abs(gx)) * inside(s.face - 0.02)
        s.canvas.paint(colour, arms * front)
        return
    bridge = stroke(gy + 0.03 - 0.8 * gx * gx, half_width) * inside(abs(gx) - middle + 0.16)
    s.canvas.paint(colour, bridge * front)
    for side in (-1, 1):  # One by one: mirrored lenses would have a kink between them, at a pixel from their edges.
        x = gx - side * middle
        lens = np.sqrt(x * x + gy * gy) - 0.165 if kind == "round" else rounded_box(x, gy, 0.170, 0.125, 0.05)
        glint = ramp(0.03 - abs(x + 0.6 * gy - 0.02), 0.0, 0.02)
        s.canvas.paint(WHITE, inside(lens) * front * (0.05 + 0.18 * glint))
        s.canvas.paint(colour, stroke(lens, half_width) * front)
