"""Selections as data: every form, what it means, and what is said of a wrong one."""

import math

import pytest
import torch

from gradiseg.selection.expression import Chooser
from gradiseg.selection.free_view import entry_of
from gradiseg.selection.neighbours import grow, shrink
from tests.labelled_scene import PER_OBJECT, SIZE, camera, labelled_scene, views
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def chooser() -> Chooser:
    """For four objects, of which 1 and 2 have names."""
    return Chooser(labelled_scene(), views())


def pixel_of(id: int, index: int = 0) -> list[float]:
    """Where the middle of an object shows in a view."""
    model, view = labelled_scene(), camera(index)
    middle = model.params["xyz"][model.ids == id].mean(0)
    x, y, z = (torch.cat([middle, torch.ones(1)]) @ view.world_view_transform)[:3].tolist()
    return [view.fx * x / z + view.cx, view.fy * y / z + view.cy]


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        (1, {1}),
        ("mug", {2}),
        ("3", {3}),
        ({"id": 4}, {4}),
        ({"name": "duck"}, {1}),
        ([1, "mug"], {1, 2}),
        ({"union": [1, {"id": 4}]}, {1, 4}),
        ({"all": True}, {1, 2, 3, 4}),
        ({"not": [1, 2]}, {3, 4}),
        ({"difference": [{"all": True}, 1, 2]}, {3, 4}),
        ({"intersection": [[1, 2], [2, 3]]}, {2}),
    ],
)
def test_forms_that_speak_of_ids(expression: object, ids: set[int]) -> None:
    choose = chooser()
    chosen = choose(expression)  # type: ignore[arg-type]
    assert torch.equal(chosen, torch.isin(choose.model.ids, torch.tensor(sorted(ids))))


def test_clicked_is_the_object_under_the_points_in_any_view() -> None:
    choose = chooser()
    first = {"points": [pixel_of(1)], "view": "view_0"}
    chosen = choose({"clicked": [first]})
    assert (chosen & (choose.model.ids == 1)).sum() > 10
    second = {"points": [[1, 1], [*pixel_of(1, 1), 0]], "view": "view_1"}
    assert choose({"clicked": [first, second]})[chosen].float().mean() < 1
    assert not (choose({"clicked": [first], "hidden": [1]}) & (choose.model.ids == 1)).any()
    for wrong, message in (
        ([], "clicked must be a list of"),
        ([{"points": [], "view": "view_0"}], r"clicked must be \[x, y\]"),
        ([{"points": [[3, 4, 2]], "view": "view_0"}], r"clicked must be \[x, y\]"),
        ([{"points": [[3, 4, 0]], "view": "view_0"}], "the first point must lie on the object"),
        ([{"points": [[3, 400]], "view": "view_0"}], r"clicked: \(3, 400\) is outside of a picture of 64x48"),
        ([{"points": [[3, 4]], "view": "nowhere"}], "view 'nowhere' is none of the scene's"),
    ):
        with pytest.raises(UserError, match=message):
            choose({"clicked": wrong})
    with pytest.raises(UserError, match=r"by 'network' is not possible here\. Give --clicks_by"):
        choose({"clicked": [first], "by": "network"})
    with pytest.raises(UserError, match="clicked needs the scene's views"):
        Chooser(labelled_scene(), {})({"clicked": [{"points": [[3, 4]], "camera": entry_of(camera())}]})


def test_inside_leaves_out_what_lies_away_from_its_object() -> None:
    model, moved = labelled_scene(), torch.arange(5)  # of the duck, below everything
    model.params["xyz"][moved] = torch.tensor([0.0, 0.0, -4.0])
    chosen = Chooser(model, views())({"inside": [1, "mug"]})
    of_both = torch.isin(model.ids, torch.tensor([1, 2]))
    assert not chosen[moved].any() and not chosen[~of_both].any()
    of_both[moved] = False
    assert chosen[of_both].float().mean() > 0.9
    with pytest.raises(UserError, match="select: inside needs the scene's views"):
        Chooser(model, {})({"inside": 1})


@pytest.mark.parametrize(("id", "nearest"), [(1, 4), (2, 5), (3, 2), (4, 1)])
def test_a_click_selects_the_object_under_it(id: int, nearest: int) -> None:
    chosen = chooser()({"click": pixel_of(id, nearest), "view": f"view_{nearest}"})
    assert torch.equal(chosen, labelled_scene().ids == id)


def test_a_box_selects_what_shows_in_it_and_with_through_what_lies_behind() -> None:
    model, (x, y) = labelled_scene(), pixel_of(4)
    box = [x - 7, y - 7, x + 7, y + 7]
    shown = chooser()({"box": box, "view": "view_0"})
    through = chooser()({"box": box, "view": "view_0", "through": True})
    assert int((shown & (model.ids == 4)).sum()) > PER_OBJECT / 3
    assert bool((through | ~shown).all()) and int(through.sum()) > int(shown.sum())


def test_a_lasso_round_the_whole_picture_selects_everything_that_shows() -> None:
    width, height = SIZE
    corners = [[0, 0], [width, 0], [width, height], [0, height]]
    chosen = chooser()({"lasso": corners, "view": "view_0", "through": True})
    assert bool(chosen.all())


def test_words_select_the_ids_that_they_find() -> None:
    found = {"red things": [1, 3], "dragon": []}
    choose = Chooser(labelled_scene(), views(), find=found.__getitem__)
    assert torch.equal(choose({"words": "red things"}), choose([1, 3]))
    with pytest.raises(UserError, match="nothing in the picture is 'dragon'"):
        choose({"words": "dragon"})
    with pytest.raises(UserError, match="cannot be looked for here"):
        chooser()({"words": "red things"})


def test_growing_and_shrinking_are_bounded_by_the_radius() -> None:
    model = labelled_scene()
    points, chosen = model.params["xyz"], model.ids == 1
    distance = torch.cdist(points, points)
    wanted = chosen | (distance[:, chosen].min(1).values <= 0.8)
    assert torch.equal(grow(points, chosen, 0.8), wanted)
    assert torch.equal(shrink(points, chosen, 0.8), chosen & (distance[:, ~chosen].min(1).values > 0.8))
    assert torch.equal(chooser()({"grow": 0.8, "of": 1}), wanted)
    nothing = torch.zeros_like(chosen)
    assert torch.equal(grow(points, nothing, math.inf), nothing)


def test_a_hull_spares_what_belongs_to_another_object() -> None:
    model = labelled_scene()
    every = chooser()({"hull": "all", "of": [1, 4]})
    spared = chooser()({"hull": "spare", "of": [1, 4]})
    assert bool((every | ~spared).all())
    assert set(model.ids[spared].tolist()) == {1, 4} and len(set(model.ids[every].tolist())) > 2


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (None, "selects nothing"),
        (True, "selects nothing"),
        ([], "a list of selections"),
        ({"union": 3}, "a list of selections"),
        ({"id": "4"}, "id must be a number"),
        ({"id": 4, "name": "duck"}, "must have one of"),
        ({"id": 4, "through": True}, "has no 'through'"),
        ({"click": [1], "view": "view_0"}, r"must be \[x, y\]"),
        ({"click": [1, 2]}, "view None is none"),
        ({"click": [float("inf"), 1], "view": "view_0"}, "click must be a number, not inf"),
        ({"click": [10**400, 1], "view": "view_0"}, "click must be a number"),
        ({"click": [0, 0], "view": "view_0"}, "^select: no Gaussian has the id 0"),
        ({"grow": float("nan"), "of": 1}, "grow must be a number, not nan"),
        ({"all": False}, "all must be true"),
        ({"lasso": [[0, 0], [1, 1]], "view": "view_0"}, "three corners"),
        ({"box": [0, 0, 1], "view": "view_0"}, "left, top, right, bottom"),
        ({"grow": "far", "of": 1}, "grow must be a number"),
        ({"grow": 1.0}, "selects nothing"),
        ({"hull": "some", "of": 1}, "hull must be"),
    ],
)
def test_wrong_forms_are_named(expression: object, words: str) -> None:
    with pytest.raises(UserError, match=words if words.startswith("^") else f"select: .*{words}"):
        chooser()(expression)  # type: ignore[arg-type]
