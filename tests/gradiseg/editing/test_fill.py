"""Filling holes: what the photographs never saw goes, surfaces continue, nothing else changes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gradiseg.editing import operations
from gradiseg.editing.fill import Hole, continued, ids_around, in_the_way, trust
from gradiseg.editing.inpainting import clone, inpainter
from gradiseg.editing.operations import Fill, Surroundings
from gradiseg.labelled import LabelledModel
from tests.labelled_scene import PER_OBJECT, labelled_scene, views
from utils.errors import UserError
from utils.sh import RGB2SH

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE_TOP, TABLE = -0.9, 6  # its height, and its id


def scene_on_a_table() -> LabelledModel:
    """Object 3 on a flat grey table that has a hole under it, as no photograph ever saw what is there."""
    model = labelled_scene()
    model = model.rows(model.ids == 3)
    steps = torch.arange(-3.0, 3.0, 0.12)
    x, y = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="xy"))
    outside = torch.hypot(x + 1.0, y - 1.0) > 0.5
    points = torch.stack([x, y, torch.full_like(x, TABLE_TOP)], 1)[outside]
    count = len(points)
    params = {
        "xyz": points,
        "f_dc": RGB2SH(torch.full((count, 1, 3), 0.6)),
        "f_rest": torch.zeros(count, 15, 3),
        "opacity": torch.full((count, 1), 4.0),
        "scaling": torch.tensor([-2.3, -2.3, -5.0]).repeat(count, 1),
        "rotation": torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        "obj_dc": 6.0 * torch.nn.functional.one_hot(torch.full((count, 1), TABLE), 16).float(),
    }
    return model.with_class(TABLE, torch.eye(16)[TABLE], 0.0).followed_by(params, torch.full((count,), TABLE))


def grey_inside(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
    """An inpainter that knows the table's colour."""
    return np.where(region[..., None], np.uint8(153), picture)


def test_a_plane_in_inverse_depth_is_continued_exactly() -> None:
    rows, columns = np.indices((30, 40))
    plane = 0.2 + 0.01 * rows - 0.003 * columns
    region = np.hypot(rows - 14, columns - 20) < 9
    np.testing.assert_allclose(continued(np.where(region, 7.0, plane), region), plane, atol=1e-9)


def test_unknown_neighbours_of_a_region_say_nothing_of_it() -> None:
    """As beyond the picture; a region with no other neighbours gets 0."""
    values = np.full((9, 20), np.nan)
    values[:, :6] = 0.5
    region = np.zeros((9, 20), bool)
    region[2:7, 4:8] = True
    region[2:7, 12:16] = True
    result = continued(values, region)
    np.testing.assert_allclose(result[2:7, 4:8], 0.5, atol=1e-6)
    assert not result[2:7, 12:16].any() and np.isnan(result[~region & np.isnan(values)]).all()


def test_what_an_object_hid_is_not_trusted() -> None:
    """A blob in the middle of an object shows once the object is gone; the table was seen all the time."""
    model = scene_on_a_table()
    hidden = model.rows(model.ids == 3).params
    centre = hidden["xyz"].mean(0)
    blob = {name: tensor[:1].clone() for name, tensor in hidden.items()}
    blob["xyz"], blob["scaling"] = centre[None], torch.full((1, 3), -3.0)
    solid = {
        **hidden,
        "opacity": torch.full((PER_OBJECT, 1), 6.0),
        "scaling": torch.full((PER_OBJECT, 3), -1.0),
    }
    model = model.rows(model.ids == TABLE).followed_by(solid, torch.full((PER_OBJECT,), 3))
    model = model.followed_by(blob, torch.tensor([TABLE]))
    known = trust(model, model.ids == 3, list(views().values()))
    assert known[-1] < 0.25 and float(known[model.ids == TABLE].median()) > 0.6
    assert not known[model.ids == 3].any()


def test_the_hole_is_closed_at_the_surface_and_the_rest_keeps_its_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "inpainter", lambda name, weights: grey_inside)
    model = scene_on_a_table()
    told: list[float] = []
    result = Fill(select=3, rounds=20).apply(model, Surroundings(views(), told=told.append))
    kept = int((model.ids == TABLE).sum())
    new = torch.arange(result.count) >= kept
    assert bool(new.any()) and 3 not in result.counts() and told[-1] == 1.0
    assert torch.equal(result.params["xyz"][~new], model.params["xyz"][model.ids == TABLE])
    assert float((result.ids[new] == TABLE).float().mean()) > 0.9
    height = result.params["xyz"][new, 2]
    assert float((height - TABLE_TOP).abs().median()) < 0.1
    colours = result.params["f_dc"][new, 0] - RGB2SH(torch.tensor(0.6))
    assert float(colours.abs().median()) < 0.3


def test_a_hole_at_the_edge_of_what_is_modelled_is_filled_at_the_surface() -> None:
    """The table ends below the object: nothing new stands in the air before the cameras."""
    model = scene_on_a_table()
    model = model.rows((model.ids == 3) | (model.params["xyz"][:, 0] > -1.0))
    result = Fill(select=3, inpainter="clone").apply(model, Surroundings(views()))
    new = result.params["xyz"][int((model.ids == TABLE).sum()) :]
    assert len(new) > 0 and float(new[:, 2].max()) < 0
    assert float((new[:, 2] - TABLE_TOP).abs().median()) < 0.2


@pytest.mark.parametrize("left", [1, 10])
def test_few_gaussians_are_neighbours_enough(left: int) -> None:
    model = scene_on_a_table()
    table = (model.ids == TABLE).nonzero().flatten()[:left]
    few = model.rows(table).with_rows_changed(torch.ones(left, dtype=torch.bool), ids=torch.arange(left) % 2)
    assert ids_around(torch.zeros(3, 3), few).tolist() == [0, 0, 0]


def test_what_no_view_shows_stays() -> None:
    model = scene_on_a_table()
    far = {name: tensor[-1:].clone() for name, tensor in model.params.items()}
    far["xyz"] = torch.tensor([[0.0, 0.0, 500.0]])
    model = model.followed_by(far, torch.tensor([TABLE]))
    result = Fill(select=3, inpainter="clone").apply(model, Surroundings(views()))
    assert bool((result.params["xyz"][:, 2] == 500).any())


def test_clones_close_it_at_once_and_without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradiseg.editing.fill.bake", None)  # nothing is trained
    monkeypatch.setattr("gradiseg.editing.inpainting._library", None)
    model = scene_on_a_table()
    told: list[float] = []
    result = Fill(select=3, inpainter="clone").apply(model, Surroundings(views(), told=told.append))
    kept = int((model.ids == TABLE).sum())
    assert result.count > kept and told[-1] == 1.0
    assert float((result.params["xyz"][kept:, 2] - TABLE_TOP).abs().median()) < 0.1
    colours = result.params["f_dc"][kept:, 0] - RGB2SH(torch.tensor(0.6))
    assert float(colours.abs().median()) < 0.1


def test_nothing_new_hides_what_a_view_shows() -> None:
    """Points above the table hide it from a view, unless they lie in its hole; those on it hide nothing."""
    model = scene_on_a_table()
    table, view = model.rows(model.ids == TABLE), views()["view_0"]
    ground = torch.tensor([[0.0, 0.0, TABLE_TOP], [0.5, -0.5, TABLE_TOP], [0.0, 0.0, 50.0]])  # and behind it
    lifted = ground + torch.tensor([0.0, 0.0, 0.8])
    assert in_the_way(lifted, table, [], [view]).tolist() == [True, True, False]
    assert not in_the_way(ground, table, [], [view]).any()
    everywhere = torch.ones(view.image_height, view.image_width, dtype=torch.bool)
    hole = Hole(view, everywhere, torch.zeros(3, *everywhere.shape), torch.ones(everywhere.shape))
    assert not in_the_way(lifted, table, [hole], [view]).any()


def test_a_clone_takes_the_colour_of_the_nearest_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    region = np.zeros((5, 9), bool)
    region[1:4, 2:5] = True
    filled = clone(picture, region)
    assert np.array_equal(filled[~region], picture[~region])
    assert np.array_equal(filled[2, 2], picture[2, 1]) and np.array_equal(filled[2, 4], picture[2, 5])


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UserError, match="'nothing' is none of clone"):
        inpainter("nothing")
    with pytest.raises(UserError, match="TorchScript"):
        inpainter("lama", "no such file.pt")


class Half(torch.nn.Module):
    """A network that fills with half grey, as LaMa's is called: picture and mask from 0 to 1, in eights."""

    def forward(self, picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert picture.size(2) % 8 == 0 and picture.size(3) % 8 == 0
        return torch.where(mask > 0, torch.full_like(picture, 0.5), torch.zeros_like(picture))


def test_a_network_of_the_users_fills(tmp_path: Path) -> None:
    torch.jit.script(Half()).save(str(tmp_path / "half.pt"))
    picture = np.random.default_rng(0).integers(0, 256, (21, 30, 3), dtype=np.uint8)
    region = np.zeros((21, 30), bool)
    region[5:9, 20:] = True
    filled = inpainter("lama", str(tmp_path / "half.pt"))(picture, region)
    assert np.array_equal(filled[~region], picture[~region]) and (filled[region] == 128).all()
    (tmp_path / "half.pt").write_bytes(b"weights")
    with pytest.raises(UserError, match="no TorchScript network"):
        inpainter("lama", str(tmp_path / "half.pt"))


@pytest.mark.parametrize("name", ["biharmonic", "telea", "patchmatch"])
def test_inpainters_fill_the_region_and_leave_the_rest(name: str) -> None:
    pytest.importorskip({"biharmonic": "skimage", "telea": "cv2", "patchmatch": "patchmatch_cython"}[name])
    columns = np.indices((32, 40))[1]
    image = np.repeat((3 * columns + 60)[..., None], 3, 2).astype(np.uint8)
    region = np.zeros((32, 40), bool)
    region[12:20, 15:25] = True
    filled = inpainter(name)(np.where(region[..., None], np.uint8(0), image), region)
    assert filled.dtype == np.uint8 and np.array_equal(filled[~region], image[~region])
    assert np.abs(filled[region].astype(int) - image[region]).mean() < 12
    noise = np.random.default_rng(0).integers(0, 255, image.shape, dtype=np.uint8)
    assert np.array_equal(inpainter(name)(noise, region), inpainter(name)(noise, region))
