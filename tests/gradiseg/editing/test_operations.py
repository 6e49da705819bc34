"""Operations: what each does to the picture and to the masks, exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gaussian_renderer import render
from gradiseg.editing.motion import Motion
from gradiseg.editing.object_files import read_names
from gradiseg.editing.operations import (
    Duplicate,
    Extract,
    Insert,
    Keep,
    Merge,
    Operation,
    Recolour,
    Remove,
    Rename,
    Split,
    Surroundings,
    Swap,
    Transform,
    moved,
)
from gradiseg.editing.placement import foot_of
from gradiseg.export.exported import export
from gradiseg.labelled import LabelledModel
from gradiseg.selection.expression import Expression
from scene.cameras import Camera
from scene.formats.files import FORMATS
from tests.labelled_scene import PER_OBJECT, camera, labelled_scene, views
from utils.errors import UserError
from utils.image import psnr
from utils.sh import RGB2SH

pytestmark = pytest.mark.usefixtures("one_thread")
SCENE = Surroundings(views())


@torch.no_grad()
def picture(model: LabelledModel, view: Camera | None = None) -> Tensor:
    """Colours (3, H, W) of a view."""
    return render(view or camera(), model.model())["render"]


@torch.no_grad()
def id_map(model: LabelledModel, view: Camera | None = None) -> Tensor:
    """The id (H, W) that shows at every pixel."""
    encodings = render(view or camera(), model.model())["render_object"]
    logits = torch.einsum("kc,chw->khw", model.weight, encodings) + model.bias[:, None, None]
    return logits.argmax(0)


def test_what_is_selected_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "gradiseg"):
        Remove(select=[2, 3]).apply(labelled_scene(), SCENE)
    (line,) = caplog.messages
    assert line.startswith("remove: 120 Gaussians of 2 (mug), 3; box of [")
    middle = [float(x) for x in line.split("about [")[1].rstrip("].").split(", ")]
    assert middle == pytest.approx([0.0, 0.0, 0.0], abs=0.2)  # of (1, -1, 0) and (-1, 1, 0)


def cover(model: LabelledModel, id: int, view: Camera | None = None) -> Tensor:
    """Share (H, W) of every pixel that is of an id's Gaussians."""
    with torch.no_grad():
        own = (model.ids == id).float()[:, None].expand(-1, 3).contiguous()
        return render(view or camera(), model.model(), override_color=own)["render"][0]


def test_removing_and_keeping_are_complements() -> None:
    model = labelled_scene()
    removed, kept = Remove(select=2).apply(model, SCENE), Keep(select="mug").apply(model, SCENE)
    assert set(removed.counts()) == {1, 3, 4} and kept.counts() == {2: PER_OBJECT}
    assert not (id_map(removed) == 2).any()


@pytest.mark.parametrize("operation", [Remove(select=2), Keep(select=[1, 3, 4])])
def test_a_removed_id_shows_nowhere_even_if_a_neighbours_encoding_says_it(operation: Operation) -> None:
    model = labelled_scene()
    astray = model.ids == 4
    says_two = model.params["obj_dc"][model.ids == 2][: int(astray.sum())]
    model = model.with_rows_changed(astray, obj_dc=says_two)
    assert (id_map(model, camera(1)) == 2).any()
    for index in range(6):
        assert not (id_map(operation.apply(model, SCENE), camera(index)) == 2).any()


def test_there_and_back_gives_the_same_picture() -> None:
    model = labelled_scene()
    there = Motion((1.0, 2.0, 0.5), (1.0, -2.0, 0.5), 77.0, 1.4, (0.3, -0.2, 0.9))
    chosen = model.ids == 3
    back = Motion((1.3, 1.8, 1.4), there.axis, -77.0, 1 / 1.4, (-0.3, 0.2, -0.9))
    away = moved(model, chosen, there)
    assert psnr(picture(away), picture(model)) < 40
    assert psnr(picture(moved(away, chosen, back)), picture(model)) > 90


def test_a_turn_is_one_in_double_precision() -> None:
    turn = Motion(degrees=90.0).rotation
    right = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(turn, right, atol=1e-12, rtol=0)


def test_a_scene_turned_with_its_camera_looks_the_same() -> None:
    model, view = labelled_scene(), camera(1)
    motion = Motion(axis=(1.0, 2.0, -1.0), degrees=50.0, translation=(1.0, 2.0, 3.0))
    turn = motion.rotation.numpy()
    centre = turn @ (-view.R @ view.T) + np.array(motion.translation)
    rotation = turn @ view.R
    size, intrinsics = (view.image_width, view.image_height), (view.fx, view.fy, view.cx, view.cy)
    turned = Camera(0, "turned", *size, *intrinsics, rotation, -rotation.T @ centre)
    everything = torch.ones_like(model.ids, dtype=torch.bool)
    assert psnr(picture(moved(model, everything, motion), turned), picture(model, view)) > 100


def test_a_transform_changes_nothing_else() -> None:
    model = labelled_scene()
    result = Transform(select=1, degrees=30.0, translation=[0.5, 0.0, 0.0]).apply(model, SCENE)
    others = model.ids != 1
    assert all(torch.equal(result.params[name][others], model.params[name][others]) for name in model.params)
    assert torch.equal(result.params["obj_dc"], model.params["obj_dc"]) and torch.equal(result.ids, model.ids)


@pytest.mark.parametrize("degrees", [120.0, 37.0])
def test_recolouring_back_restores_the_coefficients(degrees: float) -> None:
    model = labelled_scene()
    there = Recolour(select=2, hue=degrees, offset=[0.1, 0.0, -0.1]).apply(model, SCENE)
    back = Recolour(select=2, offset=[-0.1, 0.0, 0.1]).apply(there, SCENE)
    back = Recolour(select=2, hue=-degrees).apply(back, SCENE)
    assert psnr(picture(there), picture(model)) < 40
    for name in ("f_dc", "f_rest"):
        torch.testing.assert_close(back.params[name], model.params[name], rtol=0, atol=2e-6)
        assert torch.equal(back.params[name][model.ids != 2], model.params[name][model.ids != 2])


def test_recolouring_maps_every_pixel_of_the_object_by_the_same_matrix() -> None:
    """The object alone, on black: colours of pixels are sums of colours, each mapped."""
    model = Keep(select=1).apply(labelled_scene(), SCENE)
    swap = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    painted = Recolour(select=1, matrix=swap).apply(model, SCENE)
    torch.testing.assert_close(picture(painted), picture(model)[[1, 2, 0]], rtol=0, atol=1e-5)


def test_a_tint_gives_the_object_that_hue_and_keeps_its_shades() -> None:
    model = Keep(select=1).apply(labelled_scene(), SCENE)
    pixels = picture(Recolour(select=1, tint=[0.8, 0.2, 0.1]).apply(model, SCENE)).flatten(1)
    shown = pixels[0] > 0.05
    ratios = pixels[1:, shown] / pixels[0, shown]
    torch.testing.assert_close(
        ratios, torch.tensor([[0.25], [0.125]]).expand_as(ratios), rtol=0.02, atol=0.01
    )
    assert pixels[0, shown].std() > 0.01


@pytest.mark.parametrize("hue", [0.0, 120.0, 240.0])
def test_a_tint_does_not_depend_on_the_hue_that_was_turned_before(hue: float) -> None:
    model = labelled_scene()
    own = model.ids == 1
    red = RGB2SH(torch.tensor([0.8, 0.1, 0.1])).expand(PER_OBJECT, 1, 3)
    model = model.with_rows_changed(own, f_dc=red, f_rest=torch.zeros(PER_OBJECT, 15, 3))
    grey = Recolour(select=1, hue=hue, tint=[0.5, 0.5, 0.5]).apply(model, SCENE).params["f_dc"][own]
    torch.testing.assert_close(grey, RGB2SH(torch.full_like(grey, 0.5)), atol=1e-5, rtol=0)


def test_a_copy_has_a_new_id_and_a_mask_that_is_right() -> None:
    model = labelled_scene()
    copy = Duplicate(select=1, translation=[0.0, 0.0, 1.2], name="second duck").apply(model, SCENE)
    new = copy.free_id() - 1
    assert copy.names[new] == "second duck" and copy.counts()[new] == PER_OBJECT
    for index in range(3):
        for id in (1, 2, 3, 4, new):
            covered, shown = cover(copy, id, camera(index)), id_map(copy, camera(index)) == id
            assert not (shown & (covered < 0.2)).any() and shown[covered > 0.8].all()


@pytest.mark.parametrize("count", [8, 24])  # an encoding has 16 channels
def test_many_copies_can_be_told_apart(count: int, caplog: pytest.LogCaptureFixture) -> None:
    model = labelled_scene()
    for step in range(count):
        model = Duplicate(select=2, translation=[0.0, 0.0, 0.4 * (step + 1)]).apply(model, SCENE)
    encodings = model.params["obj_dc"].flatten(1)
    assert torch.equal((encodings @ model.weight.T + model.bias).argmax(1), model.ids)
    assert ("no free direction" in caplog.text) == (count > 16)


def test_more_copies_than_can_be_told_apart_are_refused() -> None:
    model = labelled_scene()
    model = model.rows(torch.arange(0, model.count, 30))
    with pytest.raises(UserError, match="Merge some"):
        for _ in range(200):
            model = Duplicate(select=2).apply(model, SCENE)
    encodings = model.params["obj_dc"].flatten(1)
    assert torch.equal((encodings @ model.weight.T + model.bias).argmax(1), model.ids)


def test_swapped_objects_stand_where_the_other_stood() -> None:
    model = labelled_scene()
    up = torch.tensor([0.0, 0.0, 1.0])

    def foot(of: LabelledModel, id: int) -> Tensor:
        return foot_of(of.params["xyz"][of.ids == id], up)

    swapped = Swap(first=1, second=4, up=[0.0, 0.0, 1.0]).apply(model, SCENE)
    torch.testing.assert_close(foot(swapped, 1), foot(model, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(foot(swapped, 4), foot(model, 1), rtol=0, atol=1e-5)
    upright = Swap(first=1, second=4).apply(model, SCENE)  # by the cameras, which were held upright
    torch.testing.assert_close(upright.params["xyz"], swapped.params["xyz"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("select", [2, "duck", [1, 3]])
def test_what_was_extracted_and_put_back_gives_the_same_bits(tmp_path: Path, select: Expression) -> None:
    model = labelled_scene()
    assert Extract(select=select, to=str(tmp_path / "out")).apply(model, SCENE) is model
    without = Remove(select=select).apply(model, SCENE)
    again = Insert(source=str(tmp_path / "out")).apply(without, SCENE)
    assert again.same_as(model)
    for index in range(6):
        drawn, before = (render(camera(index), each.model()) for each in (again, model))
        assert all(torch.equal(drawn[name], before[name]) for name in ("render", "render_object"))


def test_an_object_that_is_still_there_is_inserted_as_a_new_one(tmp_path: Path) -> None:
    model = labelled_scene()
    Extract(select=[1, 4], to=str(tmp_path / "two")).apply(model, SCENE)
    twice = Insert(source=str(tmp_path / "two"), translation=[0.0, 0.0, 1.4]).apply(model, SCENE)
    assert twice.counts() == dict.fromkeys(range(1, 7), PER_OBJECT) and dict(twice.names) == model.names
    for id in (1, 4, 5, 6):
        covered, shown = cover(twice, id), id_map(twice) == id
        assert not (shown & (covered < 0.2)).any() and shown[covered > 0.8].all()
    alone = Insert(source=str(tmp_path / "two"), select="duck", name="third duck").apply(model, SCENE)
    assert alone.counts()[5] == PER_OBJECT and alone.names[5] == "third duck"
    with pytest.raises(UserError, match="Select one of them"):
        Insert(source=str(tmp_path / "two"), name="both").apply(model, SCENE)


@pytest.mark.parametrize("name", FORMATS)
def test_exported_objects_keep_their_ids_and_names_where_they_are_free(tmp_path: Path, name: str) -> None:
    model = labelled_scene()
    path = tmp_path / f"two{FORMATS[name].suffix}"
    export(path, model.rows((model.ids == 1) | (model.ids == 4)), name, (0.0, 0.0, 1.0))
    other = Remove(select=1).apply(Rename(id=1, name="goose").apply(model, SCENE), SCENE)
    result = Insert(source=str(path)).apply(other, SCENE)
    assert result.counts() == dict.fromkeys((1, 2, 3, 4, 5), PER_OBJECT)
    assert result.names == {1: "duck", 2: "mug"}


def test_what_was_extracted_is_not_replaced_unasked(tmp_path: Path) -> None:
    model, out = labelled_scene(), tmp_path / "out"
    Extract(select=2, to=str(out)).apply(model, SCENE)
    with pytest.raises(UserError, match="--overwrite"):
        Extract(select=1, to=str(out)).apply(model, SCENE)
    Extract(select=1, to=str(out)).apply(model, replace(SCENE, overwrite=True))
    assert read_names(out / "objects.json") == {1: "duck"}
    (out / "mine.txt").touch()
    with pytest.raises(UserError, match="something else"):
        Extract(select=2, to=str(out)).apply(model, replace(SCENE, overwrite=True))
    assert read_names(out / "objects.json") == {1: "duck"}


def test_merging_and_splitting_move_masks_from_one_id_to_another() -> None:
    model = labelled_scene()
    before = id_map(model)
    merged = id_map(Merge(select=1, into=2).apply(model, SCENE))
    assert not (merged == 1).any()
    assert ((merged == 2) == ((before == 1) | (before == 2))).float().mean() > 0.99
    split = Split(select={"id": 3}, name="another").apply(model, SCENE)
    (new,) = set(split.counts()) - set(model.counts())
    assert ((id_map(split) == new) == (before == 3)).float().mean() > 0.99


def test_names_are_given_and_kept_apart() -> None:
    model = Rename(id=3, name="ball").apply(labelled_scene(), SCENE)
    assert Remove(select="ball").apply(model, SCENE).counts().keys() == {1, 2, 4}
    with pytest.raises(UserError, match="name of another"):
        Rename(id=4, name="duck").apply(model, SCENE)


def test_a_name_belongs_to_one_object_and_goes_with_it(caplog: pytest.LogCaptureFixture) -> None:
    model = Remove(select="duck").apply(labelled_scene(), SCENE)
    renamed = Rename(id=3, name="duck").apply(model, SCENE)
    assert renamed.names == {2: "mug", 3: "duck"}
    assert Split(select=3, name="mug").apply(model, SCENE).names_in_use == {2: "mug"}
    assert "name of another" in caplog.text
    assert Duplicate(select=3, id=1).apply(model, SCENE).names == {2: "mug"}


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (Remove(select=9), r"no Gaussian has the id 9.*1 \(duck\) \(60\)"),
        (Remove(select="dog"), "no object is called 'dog'"),
        (Remove(select={"all": True}), "nothing would be left"),
        (Remove(select={"click": [3, 4], "view": "nowhere"}), "view 'nowhere'"),
        (Remove(select={"click": [900, 4], "view": "view_0"}), "outside of a picture of 64x48"),
        (Remove(select={"clik": [3, 4]}), "must have one of"),
        (Remove(select={"difference": [1, 1]}), "selects no Gaussian"),
        (Duplicate(select=1, id=2), "id 2 is taken"),
        (Merge(select=1, into=7), r"merge: into: no Gaussian has the id 7.*1 \(duck\)"),
        (Merge(select=1, into="-3"), "no object is called '-3'"),
        (Merge(select=1, into=70_000), "no Gaussian has the id 70000"),
        (Rename(id="99", name="ball"), "rename: id: no Gaussian has the id 99"),
        (Swap(first=1, second=[1, 2]), "in common"),
        (Insert(), "source is missing"),
        (Insert(source="no such file.ply"), "not there"),
        (Insert(source="."), "Name a file, an extracted object, or a run"),
    ],
)
def test_what_cannot_be_done_is_said(operation: Remove, words: str) -> None:
    with pytest.raises(UserError, match=words):
        operation.apply(labelled_scene(), SCENE)
