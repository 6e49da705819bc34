"""A mask of one view carried to the others over a splat's surface, and what the views say of it.

Points of a mask are seen in another view where the surface there is as far away as they are. Masks err, so
every point remembers how many of the views that see it have it in their mask; with less than half of them it
prompts no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter

from scene.cameras import Camera, resize_image
from utils.image import image_size, read_pixels

TOLERANCE = 0.03  # relative; what lies further from the surface of a view than that is not seen in it
RIM = 2  # pixels inside a mask's outline that give no points: depth is a mixture there
POINTS = 100  # that a mask adds, at most
PROMPTS = 3  # in a view, at most
SPREAD = 0.5  # of the points' standard deviation: the radius in which their density counts
AGREEMENT = 0.5  # share of what prompts in a view that its mask must contain


@dataclass(frozen=True)
class SeenSurface:
    """A view and how far away what it shows is."""

    camera: Camera  # of the size of `depth`, on the CPU
    depth: np.ndarray  # (h, w) along the camera's axis, 0 where nothing is
    photograph: Path | np.ndarray  # its file, or itself (H, W, 3) uint8
    size: tuple[int, int]  # width and height of the picture that is segmented

    def picture(self) -> np.ndarray:
        """The photograph (H, W, 3) uint8 at `size`."""
        given = self.photograph
        pixels = read_pixels(given) if isinstance(given, Path) else given
        return np.array(resize_image(Image.fromarray(pixels), *self.size))

    def shrunk(self, points: np.ndarray) -> np.ndarray:
        """Pixels (K, 2) of the photograph as those of the picture."""
        given = self.photograph
        whole = image_size(given) if isinstance(given, Path) else given.shape[1::-1]
        return points * (np.array(self.size) / whole)

    def pixels_of(self, points: np.ndarray) -> np.ndarray:
        """Where points (P, 3) are seen: index into the flat `depth` (P,) int32, -1 where they are hidden."""
        x, y, z, inside = (part.numpy() for part in self.camera.project(torch.from_numpy(points)))
        column, row = (np.where(inside, pixel, 0).astype(np.int32) for pixel in (x, y))
        index = row * self.camera.image_width + column
        return np.where(inside & (np.abs(self.depth.ravel()[index] - z) < TOLERANCE * z), index, -1)

    def points_at(self, index: np.ndarray) -> np.ndarray:
        """Points (P, 3) of the surface at indices (P,) into the flat `depth`."""
        row, column = map(torch.from_numpy, np.divmod(index, self.camera.image_width))
        depth = torch.from_numpy(self.depth.ravel()[index]).double()
        points: np.ndarray = self.camera.unproject(column + 0.5, row + 0.5, depth).numpy()
        return points

    def sampled(self, mask: np.ndarray) -> np.ndarray:
        """A mask (H, W) of the picture at the pixels of `depth`, (h, w)."""
        rows, columns = (
            ((np.arange(count) + 0.5) * of / count).astype(int)
            for count, of in zip(self.depth.shape, mask.shape, strict=True)
        )
        return mask[rows[:, None], columns]


class Trail:
    """What is known of one object: points (P, 3) of its surface, and how views judge them.

    Attributes: points; pixels (V, P) int32, where each view sees them, -1 = not; seen, inside (P,), of how
    many masks.
    """

    def __init__(self, views: Sequence[SeenSurface]) -> None:
        self.views = views
        self.points = np.zeros((0, 3))
        self.pixels = np.zeros((len(views), 0), np.int32)
        self.seen = self.inside = np.zeros(0, np.int64)

    @property
    def prompting(self) -> np.ndarray:
        """Which points (P,) most of the masks contain."""
        return 2 * self.inside >= self.seen

    def visible(self) -> np.ndarray:
        """How many prompting points each view sees, (V,)."""
        return (self.pixels[:, self.prompting] >= 0).sum(1)

    def add(self, number: int, mask: np.ndarray) -> None:
        """Take the mask (H, W) of a view: it judges the points that are seen there, and adds some."""
        view, small = self.views[number], self.views[number].sampled(mask)
        index = self.pixels[number]
        self.seen = self.seen + (index >= 0)
        self.inside = self.inside + ((index >= 0) & small.ravel()[index])
        solid = small & (view.depth > 0)
        inner = binary_erosion(solid, iterations=RIM)
        places = np.flatnonzero(inner if inner.any() else solid)
        chosen = np.linspace(0, len(places), min(POINTS, len(places)), endpoint=False).astype(int)
        points = view.points_at(places[chosen])
        self.points = np.concatenate([self.points, points])
        self.pixels = np.concatenate(
            [self.pixels, np.stack([other.pixels_of(points) for other in self.views])], 1
        )
        once = np.ones(len(points), np.int64)
        self.seen, self.inside = np.r_[self.seen, once], np.r_[self.inside, once]

    def agrees(self, number: int, mask: np.ndarray) -> bool:
        """Whether the mask of a view contains half of what prompts there."""
        index = self.pixels[number][self.prompting]
        return bool(self.views[number].sampled(mask).ravel()[index[index >= 0]].mean() >= AGREEMENT)

    def prompts(self, number: int) -> np.ndarray:
        """Pixels (K, 2) of a view's picture where points lie densest, the more trusted the better."""
        view = self.views[number]
        height, width = view.depth.shape
        here = self.prompting & (self.pixels[number] >= 0)
        index, trust = self.pixels[number][here], (self.inside / self.seen)[here]
        weight = np.zeros(height * width)
        np.maximum.at(weight, index, trust)
        sigma = max(1.0, SPREAD * float(np.stack(np.divmod(index, width)).std(1).mean()))
        density = gaussian_filter(weight.reshape(height, width), sigma, mode="constant")
        rows, columns = np.indices(density.shape)
        free = weight.reshape(density.shape) > 0
        chosen: list[tuple[float, float]] = []
        while len(chosen) < PROMPTS and free.any():
            row, column = np.unravel_index(np.where(free, density, -1.0).argmax(), density.shape)
            chosen.append((column + 0.5, row + 0.5))
            free = free & (np.hypot(rows - row, columns - column) > 2 * sigma)
        return np.array(chosen) * (np.array(view.size) / (width, height))
