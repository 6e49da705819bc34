"""Sheets: pictures under captions, in rows, as one JPEG."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from utils.files import atomic_write

CAPTION = 24  # pixels above a picture
QUALITY = 88


def captioned(picture: Image.Image, caption: str) -> Image.Image:
    """A picture under a caption."""
    canvas = Image.new("RGB", (picture.width, picture.height + CAPTION), "white")
    canvas.paste(picture, (0, CAPTION))
    ImageDraw.Draw(canvas).text((6, 4), caption, fill="black", font=ImageFont.load_default(14))
    return canvas


def grid(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Panels of one size in rows of `columns`, on white."""
    width, height = panels[0].size
    columns = min(columns, len(panels))
    sheet = Image.new("RGB", (columns * width, -(-len(panels) // columns) * height), "white")
    for number, one in enumerate(panels):
        sheet.paste(one, (number % columns * width, number // columns * height))
    return sheet


def save_jpeg(path: Path, sheet: Image.Image) -> None:
    """Write a sheet, whole or not at all."""
    with atomic_write(path) as temporary:
        sheet.save(temporary, "JPEG", quality=QUALITY)
