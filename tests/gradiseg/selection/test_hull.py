"""The convex hull of an object: what lies inside, flat ones, strays."""

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from gradiseg.selection.hull import inside_hull, without_strays


@pytest.mark.parametrize("seed", range(3))
def test_hull_equals_a_triangulation(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(400, 3, generator=generator)
    members = torch.rand(400, generator=generator) < 0.1
    inside = inside_hull(points, members)
    expected = (
        Delaunay(without_strays(points[members].double().numpy())).find_simplex(points.double().numpy()) >= 0
    )
    assert inside is not None and np.array_equal(inside.numpy() | members.numpy(), expected | members.numpy())


def test_flat_or_few_members_have_no_hull() -> None:
    points = torch.rand(50, 3)
    members = torch.zeros(50, dtype=torch.bool)
    assert inside_hull(points, members) is None
    members[:3] = True
    assert inside_hull(points, members) is None
    points[:, 2] = 0.5
    assert inside_hull(points, torch.ones(50, dtype=torch.bool)) is None


def test_a_stray_does_not_inflate_the_hull() -> None:
    directions = torch.randn(300, 3, generator=torch.Generator().manual_seed(5)).double()
    core = (directions / directions.norm(dim=1, keepdim=True)).numpy()
    assert len(without_strays(np.vstack([core, [[50.0, 0, 0]]]))) == len(without_strays(core))
    assert len(without_strays(core)) == 300
