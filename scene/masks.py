"""Id maps: the masks that say which object a pixel shows.

An id map is an (H,W) int32 array, 0 = unlabelled. Files are single-channel PNG (8-bit, 16-bit, palette index,
1-bit) or RGB-coded, id = r + 256 g + 65536 b. Resizing never invents ids and keeps maps ALIGNED with images
resized over the same field of view: half a pixel of shift costs points of mIoU.
"""

import os

import numpy as np
from PIL import Image

from utils.image import is_deep, open_image, write_png

LOSSY = ("JPEG", "MPO")
TIE = 1e-6  # shares this close to one half are ties
BAYER = (
    np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) + 0.5
) / 16  # ordered dither


def read_id_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Id map (H,W) int32 of a mask file.

    An RGB file whose three channels agree everywhere is a grey map saved in colour, and read as one.
    Raises:
        UserError: the file is missing, truncated, no image or of another pixel format.
    """
    with open_image(path, "a mask", "Write it again as an 8- or 16-bit PNG of one channel.") as file:
        if file.mode not in ("RGB", "RGBA", "L", "LA", "P", "1") and not file.mode.startswith("I"):
            raise ValueError(f"pixel format {file.mode}")
        if file.format in LOSSY:
            raise ValueError(f"{file.format} changes ids")
        if is_deep(file) and len(file.getbands()) > 1:
            raise ValueError("16 bits per channel in colour, of which only 8 can be read")
        has_palette, pixels = file.mode == "P", np.array(file)
        if file.mode == "I" and pixels.min() < 0:
            raise ValueError("negative ids")
    if pixels.ndim == 2 or has_palette:
        return pixels.astype(np.int32)
    channels = pixels.astype(np.int32)
    if channels.shape[2] < 3:  # grey with alpha
        return channels[..., 0]
    red, green, blue = (channels[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    return red + 256 * green + 65536 * blue


def write_id_map(
    path: str | os.PathLike[str], ids: np.ndarray, pixel_type: type[np.generic] | None = None
) -> None:
    """Id map (H,W) as a PNG of one channel: `pixel_type`, else 8 bits where they suffice, otherwise 16."""
    needed = np.uint8 if ids.max(initial=0) < 256 else np.uint16
    write_png(path, Image.fromarray(ids.astype(needed if pixel_type is None else pixel_type)))


def resize_id_map(ids: np.ndarray, width: int, height: int) -> np.ndarray:
    """Id map (H,W) resized to (height, width) over the same field of view.

    Enlarging takes the source pixel under each output centre. Otherwise every output pixel takes the id that
    covers most of its footprint: for integer factors, the majority of the block. What the footprint cannot
    decide is dithered between its two largest ids, so that boundaries stay where they are on average: exact
    ties (always giving them to one side moved boundaries by 0.14 pixel at factor 2), and for other factors
    near ties (0.19 pixel for 637 -> 318).
    """
    source_height, source_width = ids.shape
    if width >= source_width and height >= source_height:
        rows, columns = _nearest_source(source_height, height), _nearest_source(source_width, width)
        enlarged: np.ndarray = ids[rows[:, None], columns]
        return enlarged
    is_block = source_width % width == 0 and source_height % height == 0
    # An edge falls on multiples of 1/factor of a footprint; shares between two of them are undecided.
    undecided = TIE if is_block else min(1.0, max(width / source_width, height / source_height))
    return _vote(ids, _overlaps(source_height, height), _overlaps(source_width, width), undecided)


def _nearest_source(source: int, target: int) -> np.ndarray:
    """Source pixel under each target pixel's centre: floor((t + 1/2) source / target), in integers."""
    return (2 * np.arange(target) + 1) * source // (2 * target)


def _overlaps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source pixel, target pixel, length) of all overlaps of two grids; length 1 = 1/(source target)."""
    edges = np.union1d(np.arange(source + 1) * target, np.arange(target + 1) * source)
    return edges[:-1] // target, edges[:-1] // source, np.diff(edges)


def _vote(
    ids: np.ndarray, rows: tuple[np.ndarray, ...], columns: tuple[np.ndarray, ...], undecided: float
) -> np.ndarray:
    """Id with most area per target pixel; `rows`, `columns` are `_overlaps`. See `resize_id_map` for ties."""
    present, index = np.unique(ids, return_inverse=True)
    K, width = len(present), columns[1][-1] + 1
    key = (rows[1][:, None] * width + columns[1]) * K + index.reshape(ids.shape)[np.ix_(rows[0], columns[0])]
    area = (rows[2][:, None] * columns[2]).ravel()
    order = np.argsort(key, axis=None, kind="stable")
    key = key.ravel()[order]  # sorted by target pixel, then id
    start = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    area, target, label = np.add.reduceat(area[order], start), key[start] // K, key[start] % K

    group = np.flatnonzero(
        np.r_[True, target[1:] != target[:-1]]
    )  # one per target pixel: every one has a footprint
    best = np.maximum.reduceat(area * K + label, group)
    area_left = np.where(label == best[target] % K, 0, area)
    second = np.maximum.reduceat(area_left * K + label, group)
    low, high = np.minimum(best % K, second % K), np.maximum(best % K, second % K)
    area_low = np.where(low == best % K, best // K, second // K)
    share = area_low / (best // K + second // K)
    y, x = np.divmod(np.arange(len(group)), width)
    threshold = 0.5 + undecided * (BAYER[y % 4, x % 4] - 0.5)
    winners: np.ndarray = present[np.where(share > threshold, low, high)]
    return winners.reshape(-1, width)
