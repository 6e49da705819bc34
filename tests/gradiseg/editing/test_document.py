"""Documents: undo, redo, recipes; any sequence of operations can be taken back to the bits it began with."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gradiseg.editing.document import Document, entry_of, operation_of, read_recipe
from gradiseg.editing.operations import OPERATIONS, Surroundings
from tests.labelled_scene import labelled_scene, views
from utils.errors import UserError

SCENE = Surroundings(views())
SHIFT = st.tuples(*[st.floats(-2, 2, width=32)] * 3).map(list)


def opened() -> Document:
    """A document of four objects."""
    return Document(labelled_scene(), SCENE)


def test_undo_and_redo_restore_bits() -> None:
    document = opened()
    first = document.apply(operation_of({"operation": "recolour", "select": 1, "hue": 50}, "x"))
    second = document.apply(operation_of({"operation": "remove", "select": "mug"}, "x"))
    assert document.undo() and document.model.same_as(first)
    assert document.redo() and document.model.same_as(second)
    assert document.undo() and document.undo() and not document.undo()
    assert document.model.same_as(labelled_scene()) and document.recipe() == {"operations": []}


def test_an_operation_that_fails_changes_nothing() -> None:
    document = opened()
    with pytest.raises(UserError):
        document.apply(operation_of({"operation": "remove", "select": 99}, "x"))
    assert document.model.same_as(labelled_scene()) and not document.operations


def test_what_is_done_after_an_undo_replaces_what_was_undone() -> None:
    document = opened()
    document.apply(operation_of({"operation": "remove", "select": 1}, "x"))
    document.undo()
    document.apply(operation_of({"operation": "remove", "select": 2}, "x"))
    assert not document.redo() and set(document.model.counts()) == {1, 3, 4}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"operation": "remve"}, "'remve' is none of remove, keep"),
        ("remove", "'remove' is none of"),
        ({"operation": ["remove"]}, r"\['remove'\] is none of"),
        ({"operation": "remove"}, "entry: remove: select is missing"),
        ({"operation": "remove", "selct": 1}, "no field 'selct'. Nearest: 'select'"),
        ({"operation": "transform", "select": 1, "axis": [0, 0, 0]}, "not all of them 0"),
        ({"operation": "transform", "select": 1, "scale": 0}, "above 0"),
        ({"operation": "recolour", "select": 1, "tint": [2, 0, 0]}, "from 0 to 1"),
        ({"operation": "recolour", "select": 1, "hue": float("nan")}, "finite"),
    ],
)
def test_a_wrong_entry_is_named(entry: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        operation_of(entry, "entry")


@pytest.mark.parametrize("text", ["[]", '{"operations": 3}', "nonsense"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"recipe\.json"):
        read_recipe(path)


class Edits(RuleBasedStateMachine):
    """Random operations on random objects; the model stays whole, and everything can be taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.document = opened()
        self.next_name = 0

    def ids(self) -> list[int]:
        return sorted(self.document.model.counts())

    def do(self, **entry: object) -> None:
        before = self.document.model
        try:
            self.document.apply(operation_of(entry, "edit"))
        except UserError:  # nothing would be left, or a selection that is empty: the model must be as it was
            assert self.document.model is before

    @rule(pick=st.integers(0, 99), hue=st.floats(-180, 180), saturation=st.floats(0, 2))
    def recolour(self, pick: int, hue: float, saturation: float) -> None:
        self.do(
            operation="recolour", select=self.ids()[pick % len(self.ids())], hue=hue, saturation=saturation
        )

    @rule(pick=st.integers(0, 99), degrees=st.floats(-180, 180), shift=SHIFT, scale=st.floats(0.5, 2))
    def transform(self, pick: int, degrees: float, shift: list[float], scale: float) -> None:
        chosen = self.ids()[pick % len(self.ids())]
        self.do(operation="transform", select=chosen, degrees=degrees, translation=shift, scale=scale)

    @precondition(lambda self: self.document.model.count < 1500)
    @rule(pick=st.integers(0, 99), shift=SHIFT)
    def duplicate(self, pick: int, shift: list[float]) -> None:
        self.do(operation="duplicate", select=self.ids()[pick % len(self.ids())], translation=shift)

    @rule(pick=st.integers(0, 99))
    def remove(self, pick: int) -> None:
        self.do(operation="remove", select=self.ids()[pick % len(self.ids())])

    @precondition(lambda self: len(self.document.operations) > 8)  # little is left to edit after it
    @rule(pick=st.integers(0, 99), other=st.integers(0, 99))
    def keep(self, pick: int, other: int) -> None:
        self.do(operation="keep", select=[self.ids()[number % len(self.ids())] for number in (pick, other)])

    @rule(first=st.integers(0, 99), second=st.integers(0, 99))
    def swap_or_merge(self, first: int, second: int) -> None:
        one, other = (self.ids()[pick % len(self.ids())] for pick in (first, second))
        if (first + second) % 2:
            self.do(operation="merge", select=one, into=other)
        else:
            self.do(operation="swap", first=one, second=other)

    @rule(pick=st.integers(0, 99), radius=st.floats(0.05, 0.5))
    def split(self, pick: int, radius: float) -> None:
        self.do(operation="split", select={"shrink": radius, "of": self.ids()[pick % len(self.ids())]})

    @rule(pick=st.integers(0, 99))
    def rename(self, pick: int) -> None:
        self.next_name += 1
        self.do(operation="rename", id=self.ids()[pick % len(self.ids())], name=f"thing {self.next_name}")

    @rule()
    def undo(self) -> None:
        self.document.undo()

    @rule()
    def redo(self) -> None:
        self.document.redo()

    @invariant()
    def every_tensor_has_a_row_for_every_gaussian(self) -> None:
        model = self.document.model
        assert all(len(tensor) == model.count > 0 for tensor in model.params.values())
        assert all(tensor.isfinite().all() for tensor in model.params.values())
        assert int(model.ids.min()) >= 0 and int(model.ids.max()) < model.num_classes

    def teardown(self) -> None:
        end, steps = self.document.model, len(self.document.operations)
        replayed = opened()
        for entry in json.loads(json.dumps(self.document.recipe()))["operations"]:
            replayed.apply(operation_of(entry, "replay"))
        assert replayed.model.same_as(end)  # the recipe gives the same bits
        for _ in range(steps):
            assert self.document.undo()
        assert self.document.model.same_as(labelled_scene())


TestEdits = Edits.TestCase
TestEdits.settings = settings(
    max_examples=50, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEdits = pytest.mark.usefixtures("one_thread")(TestEdits)


def test_every_operation_describes_itself_in_a_recipe() -> None:
    entry = {"operation": "transform", "select": 1, "degrees": 30}
    assert entry_of(operation_of(entry, "x")) == entry
    assert set(OPERATIONS) >= {
        "remove",
        "keep",
        "recolour",
        "transform",
        "duplicate",
        "swap",
        "insert",
        "merge",
    }
