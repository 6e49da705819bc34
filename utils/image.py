"""Images as tensors: files, PSNR, and the two colourings of a scene (PCA of identity encodings, id palette).

Images are (3,H,W), float32 in [0,1] or uint8; feature maps are (D,H,W); id maps are (H,W) integers.
"""

import colorsys
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from utils.errors import UserError
from utils.files import atomic_write

PCA_SAMPLES = 100_000  # pixels per feature map that enter the fit: enough for three directions
DEEPEST = 65535  # largest value of 16 bits
BEST_COMPRESSION = 1032  # of deflate (PNG); JPEG stays below it
# What PIL raises for broken files beside OSError; SyntaxError is its word for a broken PNG chunk.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of what is refused
GOLDEN_RATIO = 0.6180339887498949  # hues stepped by it stay apart for any number of ids


@dataclass(frozen=True)
class PcaColors:
    """Affine map from D channels to three colours, fitted once per scene so that colours do not flicker."""

    mean: torch.Tensor  # (D,)
    basis: torch.Tensor  # (D, 3), orthonormal columns
    low: torch.Tensor  # (3,), drawn as 0
    high: torch.Tensor  # (3,), drawn as 1


def psnr(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio (dB), a scalar, of two images in [0,1] of one shape; inf if they agree."""
    return -10.0 * torch.log10(torch.mean((image - target) ** 2))


def to_uint8(image: torch.Tensor) -> torch.Tensor:
    """Float image in [0,1] (clamped) to uint8, rounded to nearest; uint8 passes through."""
    if image.dtype == torch.uint8:
        return image
    return (image.detach().clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)


@contextmanager
def open_image(
    path: str | os.PathLike[str], kind: str = "an image", remedy: str = "Copy the file again."
) -> Iterator[Image.Image]:
    """A picture file, open in the block, where its pixels are decoded; outside of it only copies are left.

    The only place that knows what PIL raises: everything that reads a picture goes through it. `kind` and
    `remedy` make the message say what was expected. A picture has at most 179 megapixels, and no more than
    its file can hold, so that a forged header fills no memory.

    Raises:
        UserError: the file is missing, truncated, too large or no picture, as opening or the block finds out;
            a ValueError of the block says that the picture is not of the kind it needs.
    """
    try:
        with Image.open(path) as file:
            _check_size(path, file)
            yield file
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels ({error}). Shrink "
            "it."
        ) from error
    except BROKEN as error:
        raise UserError(f"{path}: cannot be read as {kind} ({error}). {remedy}") from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) of a picture file, from its header.

    Raises:
        UserError: the file is missing or no image.
    """
    with open_image(path) as file:
        return file.size


def is_deep(file: Image.Image) -> bool:
    """Whether an open picture (not loaded yet) has 16 bits per channel; PIL keeps 8 of colours."""
    return file.mode.startswith("I") or ";16" in str(getattr(file, "tile", ""))


def to_rgb(file: Image.Image) -> Image.Image:
    """The 8-bit RGB picture of an open file: 16-bit greys are scaled, not clipped; transparency is left out.

    Raises:
        ValueError: values that have no range of their own (32-bit floats or integers).
    """
    if file.mode == "F":
        raise ValueError("32-bit floats; save it with 8 or 16 bits")
    if not file.mode.startswith("I"):
        return file.convert("RGB")
    values = np.asarray(file).astype(np.int64)
    if values.min() < 0 or values.max() > DEEPEST:
        raise ValueError("32-bit integers; save it with 8 or 16 bits")
    eight = (values * 255 + DEEPEST // 2) // DEEPEST
    return Image.fromarray(eight.astype(np.uint8)).convert("RGB")


def read_pixels(path: str | os.PathLike[str]) -> np.ndarray:
    """Image file as (H,W,3) uint8, red, green, blue.

    Raises:
        UserError: the file is missing, truncated or no image.
    """
    with open_image(path) as file:
        return np.array(to_rgb(file))


def _check_size(path: str | os.PathLike[str], file: Image.Image) -> None:
    """Raise UserError where a PNG or JPEG promises more pixels than fit into its size when compressed."""
    if file.format not in ("PNG", "JPEG"):
        return
    raw = re.search(r";(\d+)", str(getattr(file, "tile", "")))  # of fewer or more bits than 8: L;4, RGB;16B
    bits = 1 if file.mode == "1" else len(file.getbands()) * (int(raw[1]) if raw else 8)
    least = file.width * file.height * bits / 8 / BEST_COMPRESSION
    if os.path.getsize(path) < least or (file.format == "PNG" and not _chunks_fit(path)):
        raise UserError(
            f"{path}: truncated or damaged, {file.width}x{file.height} do not fit into its size. "
            "Copy it again."
        )


def _chunks_fit(path: str | os.PathLike[str]) -> bool:
    """Whether no chunk of a PNG says that it is longer than the file: PIL takes memory for what it says.

    The last one of a file that was cut off does, and may, up to a megabyte.
    """
    longest = max(os.path.getsize(path), 2**20)
    with open(path, "rb") as file:
        file.seek(8)  # behind the signature
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if length > longest:
                return False
            file.seek(length + 4, os.SEEK_CUR)
    return True


def read_image(path: str | os.PathLike[str]) -> torch.Tensor:
    """`read_pixels` as (3,H,W) float32 in [0,1]."""
    return torch.from_numpy(read_pixels(path)).permute(2, 0, 1).contiguous().float() / 255.0


def write_png(path: str | os.PathLike[str], image: Image.Image) -> None:
    """Write a picture as a PNG, whole or not at all, making its folder."""
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG")


def save_png(path: str | os.PathLike[str], image: torch.Tensor) -> None:
    """`write_png` of an image (3,H,W), float in [0,1] or uint8, or of a uint8 map (H,W) as is."""
    pixels = to_uint8(image).cpu()
    pixels = pixels.permute(1, 2, 0) if pixels.ndim == 3 else pixels
    write_png(path, Image.fromarray(pixels.contiguous().numpy()))


def fit_pca(feature_maps: Iterable[torch.Tensor]) -> PcaColors:
    """Three main directions of the pixels of all `feature_maps`, each (D,H,W), and their coordinates' range.

    Colours span the 1st to 99th percentile; the sign of a direction makes its largest component positive.
    """
    samples = torch.cat([_sample_pixels(features) for features in feature_maps], dim=1).double()  # (D, M)
    mean = samples.mean(dim=1)  # (D,)
    centred = samples - mean[:, None]
    _, directions = torch.linalg.eigh(centred @ centred.T / samples.shape[1])  # ascending eigenvalues
    basis = directions[:, -3:].flip(1)  # (D, 3)
    basis = basis * basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()
    coordinates = (basis.T @ centred).sort(dim=1).values  # (3, M)
    last = samples.shape[1] - 1
    low, high = coordinates[:, round(0.01 * last)], coordinates[:, round(0.99 * last)]
    return PcaColors(*(tensor.float() for tensor in (mean, basis, low, high)))


def pca_colors(features: torch.Tensor, fit: PcaColors) -> torch.Tensor:
    """Feature map (D,H,W) as an image (3,H,W) in [0,1] by the scene's `fit`."""
    fit = PcaColors(*(tensor.to(features.device) for tensor in (fit.mean, fit.basis, fit.low, fit.high)))
    coordinates = torch.einsum("dc,dhw->chw", fit.basis, features - fit.mean[:, None, None])
    spread = (fit.high - fit.low).clamp_min(1e-12)  # a constant map is drawn black, not NaN
    return ((coordinates - fit.low[:, None, None]) / spread[:, None, None]).clamp(0.0, 1.0)


def id_palette(n: int) -> torch.Tensor:
    """Colours (n,3) uint8 of the ids 0..n-1: id 0 black, neighbours in number far apart in hue."""
    return to_uint8(torch.tensor([_id_colour(label) for label in range(n)]))


def _id_colour(label: int) -> tuple[float, float, float]:
    if label == 0:
        return 0.0, 0.0, 0.0
    saturation, value = (0.85, 0.55, 0.7)[label % 3], (1.0, 0.85, 0.65, 0.95)[label % 4]
    return colorsys.hsv_to_rgb(label * GOLDEN_RATIO % 1.0, saturation, value)


def colorize_ids(ids: torch.Tensor) -> torch.Tensor:
    """Id map (H,W) as (3,H,W) uint8 in the colours of `id_palette`; an id looks the same in every map."""
    present, position = torch.unique(ids.long().cpu(), return_inverse=True)
    palette = to_uint8(torch.tensor([_id_colour(label) for label in present.tolist()]))  # (K, 3)
    return palette[position].permute(2, 0, 1).contiguous()


def _sample_pixels(features: torch.Tensor) -> torch.Tensor:
    pixels = features.detach().flatten(1).cpu()  # (D, H*W)
    return pixels[:, :: max(1, -(-pixels.shape[1] // PCA_SAMPLES))]
