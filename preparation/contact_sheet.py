"""The contact sheet: which id is which object. First every object at its largest, then a selection of views.

A tile is a picture with a caption. The suffix of the file chooses: one picture (.png, .jpg), or one page
(.html).
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from preparation.doctor import Patient, id_table
from scene.masks import read_id_map, resize_id_map
from utils import html
from utils.errors import UserError
from utils.files import atomic_write
from utils.image import colorize_ids, read_pixels

TILE = (320, 320)  # a view is at most as large
OBJECT_TILE = (150, 120)
FONT_SIZE = 12
CAPTION = 16  # pixels below a tile
GAP = 8
WIDTH = 4 * (TILE[0] + GAP) + GAP
CONTEXT = 0.25  # of an object's size, shown on every side of it
OPACITY = 0.4  # of the colours over the photograph
SMALLEST_LABELLED = 30  # pixels of a tile; numbers on specks hide what they name
PAPER, INK = (255, 255, 255), (20, 20, 20)
SUFFIXES = (".png", ".jpg", ".jpeg", ".html")
STYLE = (
    "body{font:14px sans-serif;margin:1em}figure{display:inline-block;margin:4px;vertical-align:top}"
    "figcaption{font-size:12px}"
)


@dataclass(frozen=True)
class Tile:
    """A picture and what is written below it."""

    picture: Image.Image
    caption: str


def write_sheet(path: str | os.PathLike[str], patient: Patient, view_count: int) -> None:
    """Write the sheet of a scene with masks; views are evenly spaced.

    Raises:
        UserError: another suffix.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"{target}: --sheet takes a name that ends in one of {' '.join(SUFFIXES)}.")
    objects, views = object_tiles(patient), view_tiles(patient, view_count)
    with atomic_write(target) as temporary:
        if target.suffix.lower() == ".html":
            temporary.write_text(_page(patient, objects, views), encoding="utf-8")
        else:
            _picture(objects, views).save(temporary)


def object_tiles(patient: Patient) -> list[Tile]:
    """Each id in the view where it is largest, outlined, in the order of ids."""
    tiles = []
    for label, row in id_table(patient).items():
        photo, ids = _load(patient, row["largest_in"])
        picture = _crop(photo, ids == label)
        tiles.append(Tile(picture, f"id {label}: {row['views']} views, {row['share']:.1%}"))
    return tiles


def view_tiles(patient: Patient, count: int) -> list[Tile]:
    """`count` of the training views that can be read, with their ids."""
    names = list(patient.areas)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    return [Tile(draw_ids(*_load(patient, names[index])), names[index]) for index in chosen]


def draw_ids(photo: Image.Image, ids: np.ndarray) -> Image.Image:
    """A photo, fitted to `TILE`, under the colours of its ids (H,W) of any size, with their numbers."""
    photo = _fitted(photo.convert("RGB"), TILE)
    ids = resize_id_map(ids, *photo.size)
    colors = colorize_ids(torch.from_numpy(ids)).permute(1, 2, 0).numpy()
    pixels = np.asarray(photo, dtype=np.float32)
    labelled = (ids > 0)[..., None]
    mixed = np.where(labelled, (1 - OPACITY) * pixels + OPACITY * colors, pixels)
    picture = Image.fromarray(np.where(_edges(ids)[..., None], colors, mixed).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for label, (x, y) in label_places(ids).items():
        draw.text((x, y), str(label), "white", _font(), anchor="mm", stroke_width=2, stroke_fill="black")
    return picture


def label_places(ids: np.ndarray) -> dict[int, tuple[int, int]]:
    """Id -> the pixel (x, y) deepest inside it, so that a number there lies on the object.

    0 and ids of fewer than `SMALLEST_LABELLED` pixels are left out.
    """
    places = {}
    for label, count in zip(*np.unique(ids, return_counts=True), strict=True):
        if label == 0 or count < SMALLEST_LABELLED:
            continue
        inside = np.pad(ids == label, 1)  # the border of the image is one of the object
        depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        places[int(label)] = (int(x), int(y))
    return places


def _edges(ids: np.ndarray) -> np.ndarray:
    """Pixels (H,W) whose right or lower neighbour has another id."""
    edges = np.zeros(ids.shape, dtype=bool)
    edges[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    edges[:-1] |= ids[1:] != ids[:-1]
    return edges


def _load(patient: Patient, name: str) -> tuple[Image.Image, np.ndarray]:
    view = next(view for view in patient.info.train_cameras if view.image_name == name)
    assert view.mask_path is not None  # only such views have areas
    return Image.fromarray(read_pixels(view.image_path)), read_id_map(view.mask_path)


def _crop(photo: Image.Image, inside: np.ndarray) -> Image.Image:
    """The part of a photo around an object (H,W), outlined in white and the rest dimmed."""
    if inside.shape != (photo.height, photo.width):
        inside = resize_id_map(inside.astype(np.int32), *photo.size) > 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return Image.new("RGB", OBJECT_TILE, PAPER)  # too small for the photo's resolution
    margin = math.ceil(CONTEXT * max(rows[-1] - rows[0], columns[-1] - columns[0], 8))
    box = (
        max(0, columns[0] - margin),
        max(0, rows[0] - margin),
        min(photo.width, columns[-1] + margin + 1),
        min(photo.height, rows[-1] + margin + 1),
    )
    pixels = np.asarray(photo, dtype=np.float32)
    pixels = np.where(inside[..., None], pixels, 0.45 * pixels + 40)
    pixels[_edges(inside.astype(np.int32))] = 255
    return _fitted(Image.fromarray(pixels.astype(np.uint8)).crop(box), OBJECT_TILE)


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture resized so that it touches `size`."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    edges = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(edges, Image.Resampling.LANCZOS)


def _picture(objects: Sequence[Tile], views: Sequence[Tile]) -> Image.Image:
    """All tiles in rows on one sheet."""
    places, height = [], GAP
    for tiles in (objects, views):
        x, row_height = GAP, 0
        for tile in tiles:
            width = max(tile.picture.width, int(_font().getlength(tile.caption))) + GAP
            if x + width > WIDTH:
                x, height, row_height = GAP, height + row_height, 0
            places.append((tile, x, height))
            x += width
            row_height = max(row_height, tile.picture.height + CAPTION + GAP)
        height += row_height
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for tile, x, y in places:
        sheet.paste(tile.picture, (x, y))
        draw.text((x, y + tile.picture.height + 1), tile.caption, INK, _font())
    return sheet


def _page(patient: Patient, objects: Sequence[Tile], views: Sequence[Tile]) -> str:
    title = f"Ids in {patient.mask_folder}"
    body = f"<h1>{escape(title)}</h1>"
    for heading, tiles in (("Objects", objects), ("Views", views)):
        body += f"<h2>{heading}</h2>" + "".join(html.figure(tile.picture, tile.caption) for tile in tiles)
    return html.page(title, STYLE, body)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)
