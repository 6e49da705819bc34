"""Of every stretch of a video the sharpest frame is kept."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from preparation.video import extract_frames, sharpness
from utils.errors import UserError

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="videos need the extra [video]")

SHARP = (2, 5, 7)  # one in each third of nine frames


def frame(index: int) -> Image.Image:
    """A picture whose mean brightness tells its number; all but `SHARP` are blurred."""
    pixels = np.random.default_rng(index).integers(0, 60, (48, 64, 1)) + 20 * index
    image = Image.fromarray(np.repeat(pixels, 3, axis=2).astype(np.uint8))
    return image if index in SHARP else image.filter(ImageFilter.GaussianBlur(3))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "walk.mp4"
    writer = imageio_ffmpeg.write_frames(str(path), (64, 48), fps=9, macro_block_size=2, quality=9)
    writer.send(None)
    for index in range(9):
        writer.send(frame(index).tobytes())
    writer.close()
    return path


def test_blur_lowers_sharpness_and_brightness_does_not_matter() -> None:
    sharp = frame(2)
    assert sharpness(sharp.filter(ImageFilter.GaussianBlur(1))) < 0.7 * sharpness(sharp)
    assert sharpness(sharp.point(lambda value: value + 50)) == pytest.approx(sharpness(sharp), rel=1e-3)


def test_the_sharpest_of_every_stretch(video: Path, tmp_path: Path) -> None:
    extract_frames(video, tmp_path / "input", 3, 0)
    kept = sorted((tmp_path / "input").iterdir())
    assert [path.name for path in kept] == ["frame_00001.jpg", "frame_00002.jpg", "frame_00003.jpg"]
    for path, index in zip(kept, SHARP, strict=True):
        with Image.open(path) as image:
            assert abs(np.asarray(image).mean() - np.asarray(frame(index)).mean()) < 8


def test_no_more_frames_than_there_are_and_none_larger_than_asked(video: Path, tmp_path: Path) -> None:
    extract_frames(video, tmp_path / "input", 100, 32)
    kept = list((tmp_path / "input").iterdir())
    assert len(kept) == 9
    with Image.open(kept[0]) as image:
        assert image.size == (32, 24)


@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_a_video_without_frames(video: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "empty.mp4"
    path.write_bytes(video.read_bytes()[:200] if content is None else content)
    with pytest.raises(UserError, match=r"empty\.mp4"):
        extract_frames(path, tmp_path / "input", 3, 0)
    assert not (tmp_path / "input").exists()
