"""Animations from a stream of pictures: mp4, GIF or WebP, whole or not at all."""
# Shapes: C image channels, H W image size.

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from styleforge import images
from styleforge.files import atomic_path

MAX_FPS = {".mp4": 240, ".gif": 50, ".webp": 60}
"""Endings that `write_video` knows, and the rates up to which players keep to what the file says."""
BT709 = [
    *("-vf", "scale=out_color_matrix=bt709"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
]
"""Converts to the colours that players expect, and says so in the file: by default ffmpeg does neither."""
NO_FRAMES = "frames: got none for an animation, expected at least one"


def check_video(path: str | Path, fps: float) -> None:
    """Makes sure that an animation can be written, before anything is computed for it.

    Args:
        path: Target of `write_video`.
        fps: Frames per second.

    Raises:
        ValueError: An unknown ending, a rate that the format cannot show, or mp4 without the video extra.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MAX_FPS:
        raise ValueError(f"{path}: got the ending {suffix!r}, expected {', '.join(MAX_FPS)}")
    if not 0 < fps <= MAX_FPS[suffix]:
        raise ValueError(f"fps: got {fps:g}, expected more than 0 and at most {MAX_FPS[suffix]} for {suffix} (--fps)")
    if suffix == ".mp4":
        _ffmpeg()


def write_video(frames: Iterable[Tensor], path: str | Path, fps: float) -> int:
    """Writes an animation; the file name's ending chooses the format.

    mp4 (H.264, from the video extra) is written as the frames come. GIF (256 colours) and WebP run in an endless loop
    and need no extra, but Pillow holds their frames in memory until the last one. Alpha is shown over white, and an
    odd side of an mp4 is one pixel longer, since H.264's colours need even ones.

    Args:
        frames: [C, H, W] uint8 each, all of one shape, with channels as `images.to_pil` takes them.
        path: Target ending in ``.mp4``, ``.gif`` or ``.webp``; its folder is made, an older file is replaced at
            the end.
        fps: Frames per second, as `MAX_FPS` allows.

    Returns:
        The number of frames.

    Raises:
        ValueError: No frames, or what `check_video` refuses.
        OSError: The file could not be written; an older one stays as it was.
    """
    check_video(path, fps)
    write = _write_mp4 if Path(path).suffix.lower() == ".mp4" else _write_pillow
    with atomic_path(path) as temporary:
        return write((_to_rgb(frame) for frame in frames), temporary, fps)


def _to_rgb(frame: Tensor) -> Image.Image:
    return images.flatten(images.to_pil(frame)).convert("RGB")


def _write_pillow(frames: Iterator[Image.Image], path: Path, fps: float) -> int:
    is_gif = path.suffix.lower() == ".gif"
    # Each frame has its own palette, so that it is quantised as soon as it comes and takes a byte per pixel.
    pictures = [frame.quantize(256) if is_gif else frame for frame in frames]
    if not pictures:
        raise ValueError(NO_FRAMES)
    unit = 10 if is_gif else 1  # ms: a GIF counts in hundredths of a second
    times = [unit * round(1000 / unit * i / fps) for i in range(len(pictures) + 1)]  # rounded errors do not add up
    durations = [end - start for start, end in itertools.pairwise(times)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=90)
    return len(pictures)


def _ffmpeg() -> str:
    """Path of the ffmpeg program that the video extra brings."""
    try:
        path: str = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            'mp4 needs ffmpeg, which is missing here: pip install "styleforge[video]", or choose a name that ends in '
            ".gif or .webp, which work without"
        ) from error
    return path


def _write_mp4(frames: Iterator[Image.Image], path: Path, fps: float) -> int:
    first = next(frames, None)
    if first is None:
        raise ValueError(NO_FRAMES)
    edges = [(0, first.height % 2), (0, first.width % 2), (0, 0)]  # an odd side repeats its last row or column
    size = f"{first.width + first.width % 2}x{first.height + first.height % 2}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:g}", "-i", "-"]
    target = ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    command = [_ffmpeg(), "-y", "-v", "error", *source, *BT709, *target]
    count = 0
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=messages)
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # ffmpeg gave up: its messages tell why
                for frame in itertools.chain([first], frames):
                    process.stdin.write(np.pad(np.asarray(frame), edges, mode="edge").tobytes())
                    count += 1
                process.stdin.close()
            process.wait()
        finally:
            process.kill()  # no effect after a good end
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait()
        if process.returncode != 0:
            messages.seek(0)
            lines = messages.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"ffmpeg ended with code {process.returncode}"
            raise OSError(errno.EIO, reason)  # `atomic_path` names the file
    return count
