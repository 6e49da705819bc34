"""Sessions: what is clicked is selected, what is selected is an expression, what is done is a recipe."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from gradiseg.editing.document import Document, operation_of
from gradiseg.editing.fields import field
from gradiseg.editing.motion import Motion
from gradiseg.editing.operations import OPERATIONS, Operation, Surroundings
from gradiseg.labelled import LabelledModel
from gradiseg.selection.free_view import entry_of
from gradiseg.viewer.drawing import Layout, Mode
from gradiseg.viewer.session import Session, motion_between
from gradiseg.viewer.workspace import Workspace
from tests.gradiseg.viewer.conftest import SIZE, free_camera, pixel_of, trained_run
from tests.labelled_scene import CENTRES, camera, labelled_scene
from utils.errors import UserError


def selected(session: Session) -> set[int]:
    """Ids of which something is selected."""
    return set(session.model.ids[session.chosen()].tolist())


def replayed(session: Session) -> Document:
    """The document that the recipe gives, read back from JSON."""
    document = Document(session.workspace.document.original, session.workspace.document.surroundings)
    for entry in json.loads(session.workspace.recipe())["operations"]:
        document.apply(operation_of(entry, "recipe"))
    return document


@pytest.mark.parametrize("id", [1, 2, 4])  # 4 stands before 3
def test_a_click_selects_what_shows_there(session: Session, id: int) -> None:
    session.click(*pixel_of(id))
    assert session.selection == id and selected(session) == {id}


def test_a_click_beside_everything_selects_nothing(session: Session) -> None:
    session.click(*pixel_of(1))
    session.click(1, 1)
    assert session.selection is None and not bool(session.chosen().any())


def test_shift_adds_and_takes_away(session: Session) -> None:
    for id in (1, 2, 4):
        session.click(*pixel_of(id), add=True)
    assert selected(session) == {1, 2, 4}
    session.click(*pixel_of(2), add=True)
    assert selected(session) == {1, 4}
    session.click(1, 1, add=True)  # beside everything
    assert selected(session) == {1, 4}


def test_hidden_objects_cannot_be_clicked(session: Session) -> None:
    session.show(hidden=frozenset({1}))
    session.click(*pixel_of(1))
    assert session.selection != 1


def test_regions_select_what_shows_in_them(session: Session) -> None:
    x, y = pixel_of(1)
    session.box((x - 12, y - 12), (x + 12, y + 12))
    assert 1 in selected(session) and not bool(session.chosen()[session.model.ids == 4].any())
    session.select(None)
    for dx, dy in ((-12, -12), (12, -12), (12, 12), (-12, 12)):
        assert not session.lasso_corner(x + dx, y + dy)
    assert session.lasso_corner(x - 12, y - 11)  # near to the first: closed
    assert 1 in selected(session) and not session.lasso


def test_an_object_that_is_clicked_gets_an_id_and_a_recipe_makes_it_again(session: Session) -> None:
    with pytest.raises(UserError, match="Click on the object first"):
        session.click_object(*pixel_of(1), is_on=False)
    session.click_object(*pixel_of(1))
    assert 1 in selected(session)
    session.click_object(*pixel_of(2), is_on=False)
    session.look(entry_of(camera(1)))
    session.click_object(SIZE[0] / 3, SIZE[1] / 3, is_on=False)
    assert [len(entry["points"]) for entry in session.clicked] == [2, 1]
    count = int(session.chosen().sum())
    session.edit("split", name="new")
    assert session.selection == 5 and session.model.counts()[5] == count
    assert replayed(session).model.same_as(session.model)
    session.workspace.undo()
    assert 5 not in session.model.counts()


def test_a_lasso_ends_with_the_view_that_it_was_begun_in(session: Session) -> None:
    session.lasso_corner(3, 3)
    session.look(entry_of(free_camera()))
    assert not session.lasso
    with pytest.raises(UserError, match="three corners"):
        session.close_lasso()


def test_grow_shrink_invert(session: Session) -> None:
    session.select(1)
    before = session.chosen()
    session.grow(1.2)
    grown = session.chosen()
    assert bool((grown & before).sum() == before.sum()) and int(grown.sum()) > int(before.sum())
    session.shrink(0.3)
    assert int(session.chosen().sum()) < int(grown.sum())
    session.select(1)
    session.invert()
    assert torch.equal(session.chosen(), ~before)
    session.select(None)
    session.invert()
    assert bool(session.chosen().all())


def test_words_select_ids(session: Session) -> None:
    session.words("a ball")
    middle = SIZE[0] / 2
    assert selected(session) == {id for id in CENTRES if pixel_of(id)[0] < middle}
    with pytest.raises(UserError, match="'nothing' was not found"):
        session.words("nothing")
    with pytest.raises(UserError, match="No words"):
        session.words(" ")


def test_every_edit_is_replayed_by_the_recipe_to_the_bit(session: Session) -> None:
    session.click(*pixel_of(1))
    session.edit("recolour", hue=40.0, tint=[0.2, 0.4, 0.9])
    session.try_out(motion_between((0, 0, 0), (0.5, 0.25, 0.1), (0.9, 0.1, 0.2, 0.3)))
    session.move()
    session.edit("duplicate", translation=[0.0, 0.0, 1.5])
    session.rename(session.selection, "twin")  # type: ignore[arg-type]
    x, y = pixel_of(4)
    session.show(hidden=frozenset({1}))
    session.box((x - 8, y - 8), (x + 8, y + 8))
    session.edit("split")
    session.select([2, "twin"])
    session.edit("remove")
    assert replayed(session).model.same_as(session.model)


def test_what_an_edit_makes_is_selected(session: Session) -> None:
    session.select(1)
    session.edit("duplicate", translation=[3.0, 0.0, 0.0])
    assert selected(session) == {5}


def test_what_means_nothing_any_more_selects_nothing(session: Session) -> None:
    session.select(2)
    session.edit("remove")
    assert not bool(session.chosen().any())
    with pytest.raises(UserError, match="Nothing is selected"):
        session.edit("remove")
    session.workspace.undo()
    assert selected(session) == {2}


def test_a_movement_is_shown_before_it_is_done(session: Session) -> None:
    session.select(1)
    before = session.canvas()
    session.try_out(Motion(translation=(0.0, 1.0, 0.0)))
    model, _ = session.tried_out()
    assert not torch.equal(model.params["xyz"], session.model.params["xyz"])
    assert (session.canvas() != before).any() and not session.workspace.document.operations
    session.move()
    assert session.model.same_as(model)
    session.try_out(Motion())
    session.move()  # nowhere: not an operation
    assert len(session.workspace.document.operations) == 1


def test_colours_are_shown_before_they_are_taken(session: Session) -> None:
    session.paint(hue=120.0)  # of nothing
    plain = session.canvas()
    session.select(1)
    session.paint(hue=120.0)
    shown, (model, _) = session.canvas(), session.tried_out()
    assert (shown != plain).any() and not session.workspace.document.operations
    session.edit("recolour", hue=120.0)
    assert session.model.same_as(model)
    session.select(2)
    assert session.tried_out()[0] is session.model  # the preview was of what is not selected any more


def test_a_handle_moves_as_it_stands() -> None:
    motion = motion_between((1, 2, 3), (2, 2, 3), (np.cos(0.25), 0, 0, np.sin(0.25)))
    point = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0]])
    expected = torch.tensor([[2.0, 2.0, 3.0], [2.0 + np.cos(0.5), 2.0 + np.sin(0.5), 3.0]])
    assert torch.allclose(motion.moved(point), expected.float(), atol=1e-6)
    assert motion_between((1, 2, 3), (1, 2, 3), (1, 0, 0, 0)) == Motion(
        [1.0, 2.0, 3.0], translation=[0.0] * 3
    )


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("layout", list(Layout))
def test_every_mode_in_every_layout_fills_the_canvas(session: Session, mode: Mode, layout: Layout) -> None:
    session.show(mode=mode, layout=layout)
    canvas = session.canvas()
    assert canvas.shape == (SIZE[1], SIZE[0], 3) and canvas.dtype == np.uint8 and canvas.std() > 5


def test_a_camera_that_moves_while_a_picture_is_drawn_does_no_harm(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = session._draw

    def moving(*arguments: object) -> object:
        session.look(entry_of(free_camera().at_resolution(40, 30)))
        return draw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "_draw", moving)
    assert session.canvas().shape == (SIZE[1], SIZE[0], 3)
    assert session.canvas().shape == (30, 40, 3)


def test_before_and_after_differ_where_something_was_done(session: Session) -> None:
    session.show(layout=Layout.BEFORE)
    left, right = np.split(session.canvas(), 2, axis=1)
    assert (left == right).all()
    session.select(1)
    session.edit("remove")
    left, right = np.split(session.canvas(), 2, axis=1)
    assert (left != right).any()


def test_clicks_and_regions_count_from_the_pane_that_they_are_in(session: Session) -> None:
    session.show(layout=Layout.BEFORE)
    x, y = pixel_of(4)
    x -= SIZE[0] / 4  # of the middle half, which both panes show
    for left in (0, SIZE[0] / 2):
        session.select(None)
        session.click(left + x, y)
        assert session.selection == 4
        session.box((left + x - 4, y - 4), (left + x + 4, y + 4))
        assert 4 in selected(session) and 1 not in selected(session)


def test_selections_are_highlighted(session: Session) -> None:
    plain = session.canvas().astype(int)
    session.click(*pixel_of(1))
    x, y = (int(value) for value in pixel_of(1))
    marked = session.canvas().astype(int)
    assert marked[y, x, 0] - marked[y, x, 2] > plain[y, x, 0] - plain[y, x, 2]
    session.show(mode=Mode.COLOUR)
    assert (session.canvas() == plain).all()


class Told:
    """A client that counts what it is told."""

    def __init__(self) -> None:
        self.changes, self.shares = 0, [0.0]

    def document_changed(self) -> None:
        self.changes += 1

    def progressed(self, share: float) -> None:
        self.shares.append(share)


def test_clients_share_the_document_but_not_the_selection(session: Session) -> None:
    other, told = Session(session.workspace), Told()
    session.workspace.tell(told)
    session.select(1)
    assert other.selection is None
    session.edit("remove")
    assert told.changes == 1 and 1 not in other.model.counts()


def test_uploads_are_inserted_and_kept(session: Session, tmp_path: Path) -> None:
    session.select(3)
    content = session.workspace.ply(session.chosen())
    session.insert(content)
    assert selected(session) == {5} and int(session.chosen().sum()) == session.model.counts()[3]
    assert len(list((tmp_path / "edits/imported").glob("*.ply"))) == 1
    assert replayed(session).model.same_as(session.model)


def test_objects_of_runs_in_the_folder_are_inserted(session: Session, tmp_path: Path) -> None:
    assert session.workspace.lenders() == []
    session.select(2)
    session.rename(2, "ball")
    (tmp_path / "cfg_args").write_text("Namespace()")
    session.workspace.save("saved")
    assert session.workspace.lenders() == ["edits/saved"]
    session.insert_from("edits/saved", 2)
    new, model = session.selection, session.model
    for name in ("xyz", "f_dc", "scaling"):
        assert torch.equal(model.params[name][model.ids == new], model.params[name][model.ids == 2])
    assert new == 5 and new not in model.names  # the name is the other's
    assert replayed(session).model.same_as(model)
    for _ in range(2):  # the insertion and the name
        session.workspace.undo()
    session.insert_from("edits/saved", 2)
    assert session.model.names == {5: "ball"}
    with pytest.raises(UserError, match="has no object 77"):
        session.insert_from("edits/saved", 77)
    for path in ("../x", "/etc", str(tmp_path), "edits", "."):
        with pytest.raises(UserError, match="is none of the runs here"):
            session.insert_from(path, 2)


def test_uploads_are_not_trusted(session: Session, tmp_path: Path) -> None:
    model = labelled_scene()
    broken = Workspace(trained_run(tmp_path / "other"), lambda: None)  # type: ignore[arg-type, return-value]
    broken.document._states = [model.with_rows_changed(model.ids == 1, opacity=torch.tensor(torch.nan))]
    for content, words in (
        (b"", "no PLY"),
        (b"ply\nformat ascii 1.0\nelement vertex 9999999999\nend_header\n", "no PLY"),
        (b"/etc/passwd", "no PLY"),
        (broken.ply(model.ids == 1), "no PLY.*NaN or Inf"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            session.insert(content)
        assert str(tmp_path) not in str(raised.value)
    assert not list(tmp_path.glob("edits/imported/*")) and not session.workspace.document.operations


@pytest.mark.parametrize(
    "name", ["", "..", ".", "../x", "/x", "a/b", "a\\b", "imported", ".hidden", "x" * 99, "a\n"]
)
def test_no_name_of_an_edit_is_a_path(workspace: Workspace, name: str) -> None:
    with pytest.raises(UserError, match="name"):
        workspace.save(name)


def test_an_edit_is_replaced_only_when_asked(workspace: Workspace, tmp_path: Path) -> None:
    assert workspace.save("mine") == tmp_path / "edits/mine"
    with pytest.raises(UserError, match="holds an edit"):
        workspace.save("mine")
    (tmp_path / "cfg_args").write_text("Namespace()")
    workspace.save("mine", overwrite=True)
    assert set(workspace.objects_of("edits/mine").counts()) == {1, 2, 3, 4}
    workspace.apply({"operation": "remove", "select": 2})
    workspace.save("mine", overwrite=True)
    assert set(workspace.objects_of("edits/mine").counts()) == {1, 3, 4}


def test_one_operation_at_a_time(workspace: Workspace) -> None:
    with workspace._edit(), pytest.raises(UserError, match="still going on"):
        workspace.undo()
    workspace.undo()


def test_slow_operations_tell_how_far_they_are_and_can_be_cancelled(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Slow(Operation):
        select: int = field("selection", "not used")

        def apply(self, model: LabelledModel, scene: Surroundings) -> LabelledModel:
            for step in range(4):
                scene.told((step + 1) / 4)
            return model.rows(model.ids != self.select)

    monkeypatch.setitem(OPERATIONS, "slow", Slow)
    told = Told()
    session.workspace.tell(told)
    session.select(1)
    session.edit("slow")
    assert told.shares[-1] == 1 and 1 not in session.model.counts()
    session.workspace.undo()
    told.progressed = lambda share: session.workspace.cancel()  # type: ignore[method-assign]
    session.workspace._told_at = 0.0
    with pytest.raises(UserError, match="Cancelled"):
        session.edit("slow")
    assert 1 in session.model.counts() and not session.workspace.is_editing
    session.workspace.redo()  # and it can go on


@pytest.mark.parametrize(
    "entry",
    [
        {"operation": "insert", "source": "x.ply"},
        {"operation": "import", "source": "x.ply", "labels": "x.npy"},
        {"operation": "fill", "select": 1, "weights": "x.pt"},
        {"operation": "style", "select": 1, "style": "x.png"},
        {"operation": "extract", "select": 1, "to": "x"},
    ],
)
def test_no_path_that_a_client_sends_is_opened(session: Session, entry: dict[str, object]) -> None:
    with pytest.raises(UserError, match="files are named in"):
        session.workspace.apply(entry)


def test_a_selection_is_a_file_of_gaussians(session: Session) -> None:
    session.select(2)
    content = session.workspace.ply(session.chosen())
    assert io.BytesIO(content).readline() == b"ply\n"
