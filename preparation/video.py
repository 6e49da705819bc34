"""Frames of a video as photographs: the sharpest of every stretch, since moving cameras blur most."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from preparation.photos import JPEG_QUALITY
from utils.errors import UserError
from utils.files import atomic_folder
from utils.log import bar

SHARPNESS_EDGE = 800  # pixels; larger frames cost time and judge their noise


def extract_frames(video: Path, folder: Path, count: int, max_size: int) -> None:
    """Make `folder` of at most `count` frames, `frame_00001.jpg` ..., no edge above `max_size` (0 = any).

    The video is cut into `count` stretches of equal length, and the sharpest frame of each is kept.

    Raises:
        UserError: imageio-ffmpeg is missing, or the file is no video or has no frames.
    """
    total = _frames_in(video)
    stretches = min(count, total)
    best: dict[int, float] = {}
    with atomic_folder(folder) as temporary:
        for index, frame in enumerate(bar(_frames(video), "Frames", total)):
            if max_size:
                frame.thumbnail((max_size, max_size), Image.Resampling.LANCZOS)
            stretch = min(index * stretches // total, stretches - 1)
            score = sharpness(frame)
            if score > best.get(stretch, -1.0):
                best[stretch] = score
                frame.save(temporary / f"frame_{stretch + 1:05d}.jpg", quality=JPEG_QUALITY)
        if not best:
            raise UserError(f"{video}: no frames could be decoded. Play it to see whether it is whole.")


def sharpness(frame: Image.Image) -> float:
    """Mean squared difference of neighbouring pixels over the variance of brightness."""
    grey = frame.convert("L")
    grey.thumbnail((SHARPNESS_EDGE, SHARPNESS_EDGE), Image.Resampling.BOX)
    pixels = np.asarray(grey, dtype=np.float32)
    differences = (np.diff(pixels, axis=0) ** 2).mean() + (np.diff(pixels, axis=1) ** 2).mean()
    return float(differences / (pixels.var() + 1.0))


def _frames_in(video: Path) -> int:
    try:
        from imageio_ffmpeg import count_frames_and_secs
    except ImportError as error:
        raise UserError(
            f"{video}: a video needs the package imageio-ffmpeg. Install it: pip install -e '.[video]'"
        ) from error
    try:
        total, _ = count_frames_and_secs(str(video))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{video}: no video that ffmpeg can read. --photos takes a video or a folder of photographs."
        ) from error
    if not total:
        raise UserError(f"{video}: holds no frames. Record or copy it again.")
    return int(total)


def _frames(video: Path) -> Iterator[Image.Image]:
    from imageio_ffmpeg import read_frames

    frames = read_frames(str(video), pix_fmt="rgb24")
    size = next(frames)["size"]
    for frame in frames:
        yield Image.frombytes("RGB", size, frame)
