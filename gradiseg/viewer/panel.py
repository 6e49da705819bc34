"""The controls beside the picture: each calls the client's session, and holds nothing but what is typed."""

import shlex
from collections.abc import Callable
from html import escape
from typing import Any, Protocol

from gradiseg.viewer.drawing import Layout, Mode, palette
from gradiseg.viewer.session import Session
from scene.cameras import Camera
from utils.errors import UserError

LISTED = 40  # objects with a row of their own, the largest ones
INPAINTERS = ("biharmonic", "telea", "patchmatch", "clone")
NO_RUN = "choose one"
ACTIONS = ("Select", "Hide", "Fly to")
HELP = (
    "Click: select. Shift+click: add or leave out. Ctrl+drag: a box (with Shift: add). "
    "Drag: turn. Right drag: shift. Wheel: nearer."
)
UNSELECTED = "Click an object of the picture. Drag turns, the wheel goes nearer."
SELECTED = "Tab *Edit* recolours, moves and removes it; *Undo* takes back."
LASSO, GIZMO = "Draw a lasso", "Move with a handle"
NEW_OBJECT = "Click a new object"


class Browser(Protocol):
    """A client as its panel needs it; handle: viser's."""

    handle: Any
    session: Session

    def do(self, action: Callable[[], None]) -> None:
        """An action, whose errors are said to the client."""

    def say(self, text: str, is_error: bool = True) -> None:
        """One sentence to the client."""

    def changed(self) -> None:
        """What is shown has changed."""

    def redraw(self) -> None:
        """What is tried out has changed."""

    def stand_at(self, camera: Camera) -> None:
        """Stand where a view was taken."""

    def fly_to(self, id: int) -> None:
        """Look at an object."""


class Panel:
    """The panel of one client."""

    def __init__(self, client: Browser) -> None:
        self.client, self.session = client, client.session
        self.gui = client.handle.gui
        self._rows: dict[int, Any] = {}
        self.status = self.gui.add_markdown("")
        self._button_row("History", ("Undo", "Redo"), {"Undo": self._undo, "Redo": self._redo})
        self.progress = self.gui.add_progress_bar(0, visible=False)
        self.cancel = self._button("Cancel", self.session.workspace.cancel, visible=False)
        tabs = self.gui.add_tab_group()
        for name, build in (
            ("Objects", self._objects),
            ("Select", self._select),
            ("Edit", self._edit),
            ("View", self._view),
            ("Save", self._save),
        ):
            with tabs.add_tab(name):
                build()
        self._hotkeys()
        self.refresh()

    # Building blocks.

    def _button(self, label: str, action: Callable[[], None], **options: Any) -> Any:
        button = self.gui.add_button(label, **options)
        button.on_click(lambda _: self.client.do(action))
        return button

    def _button_row(self, label: str, names: tuple[str, ...], actions: dict[str, Callable[[], None]]) -> Any:
        group = self.gui.add_button_group(label, names)
        group.on_click(lambda event: self.client.do(actions[event.target.value]))
        return group

    def _hotkeys(self) -> None:
        for label, key, modifier, action in (
            ("Undo", "Z", "cmd/ctrl", self._undo),
            ("Redo", "Z", "cmd/ctrl+shift", self._redo),
            (LASSO, "L", None, self._toggle_lasso),
            ("Remove the selection", "delete", None, lambda: self.session.edit("remove")),
        ):
            command = self.gui.add_command(label, hotkey=key, modifier=modifier)
            command.on_trigger(lambda _, action=action: self.client.do(action))

    # Tabs.

    def _objects(self) -> None:
        self.legend = self.gui.add_html("")
        self.object_rows = self.gui.add_folder(None)
        self.name = self.gui.add_text("Name", "", hint="of the object that is selected")
        self._button("Rename", self._rename)
        self._button("Show all", lambda: self.session.show(hidden=frozenset()))

    def _select(self) -> None:
        self.gui.add_markdown(HELP)
        self.lasso = self.gui.add_checkbox(
            LASSO, False, hint="drag around what you want, or click corners; the first one again closes it"
        )
        self.lasso.on_update(lambda _: self.client.do(self.session.lasso.clear))
        self._button("Close the lasso", self.close_lasso)
        through = self.gui.add_checkbox("Also what lies behind", False, hint="of boxes and lassos")
        through.on_update(lambda _: self.session.show(through=through.value))
        self.new_object = self.gui.add_checkbox(
            NEW_OBJECT, False, hint="click on it; Shift+click where too much is selected; from all sides"
        )
        self.new_object.on_update(lambda _: self.client.do(self.session.clicked.clear))
        self._button("Make it an object", self._make_object)
        words = self.gui.add_text("Words", "", hint="what to look for in this picture")
        self._button("Select by words", lambda: self.session.words(words.value))
        radius = self.gui.add_number("Radius", 0.05, min=1e-4, step=0.01, hint="in the scene's units")
        actions = {
            "Grow": lambda: self.session.grow(radius.value),
            "Shrink": lambda: self.session.shrink(radius.value),
        }
        self._button_row("Edges", tuple(actions), actions)
        actions = {
            "Invert": self.session.invert,
            "All": lambda: self.session.select({"all": True}),
            "Nothing": lambda: self.session.select(None),
        }
        self._button_row("Selection", tuple(actions), actions)

    def _edit(self) -> None:
        actions = {"Remove": lambda: self.session.edit("remove"), "Keep": lambda: self.session.edit("keep")}
        self._button_row("Gaussians", tuple(actions), actions)
        with self.gui.add_folder("Colour"):
            self._recolour()
        with self.gui.add_folder("Place"):
            self._place()
        with self.gui.add_folder("Fill and restyle", expand_by_default=False):
            self._slow()
        with self.gui.add_folder("Objects"):
            self._identities()

    def _recolour(self) -> None:
        hue = self.gui.add_slider("Hue", -180, 180, 1, 0, hint="degrees")
        saturation = self.gui.add_slider("Saturation", 0, 2, 0.05, 1)
        tinted = self.gui.add_checkbox("Tint", False, hint="take the colour below, light and shade kept")
        tint = self.gui.add_rgb("Tint colour", (230, 60, 40))

        def fields() -> dict[str, Any]:
            colour = {"tint": [channel / 255 for channel in tint.value]} if tinted.value else {}
            return {"hue": float(hue.value), "saturation": float(saturation.value), **colour}

        neutral = fields()

        def preview() -> None:
            self.session.paint(**({} if fields() == neutral else fields()))
            self.client.redraw()

        def recolour() -> None:
            self.session.edit("recolour", **fields())
            hue.value, saturation.value, tinted.value = 0, 1, False  # the next one starts from what it is now

        for control in (hue, saturation, tinted):
            control.on_update(lambda _: preview())
        tint.on_update(lambda _: preview() if tinted.value else setattr(tinted, "value", True))
        self._button("Recolour", recolour)

    def _place(self) -> None:
        self.gizmo = self.gui.add_checkbox(GIZMO, False, hint="arrows move, rings turn")
        self.gizmo.on_update(lambda _: self.client.changed())
        scale = self.gui.add_number("Scale", 1.0, min=0.01, step=0.05)
        self._button("Resize", lambda: self.session.edit("transform", scale=float(scale.value)))
        shift = self.gui.add_vector3("Copy shifted by", (0.3, 0.0, 0.0), step=0.05)
        self._button(
            "Duplicate",
            lambda: self.session.edit("duplicate", translation=[float(value) for value in shift.value]),
        )

    def _slow(self) -> None:
        inpainter = self.gui.add_dropdown("Inpainter", INPAINTERS)
        rounds = self.gui.add_number("Rounds", 250, min=1, step=50, hint="of training")
        self._button(
            "Remove and fill",
            lambda: self.session.edit("fill", inpainter=inpainter.value, rounds=int(rounds.value)),
        )
        style = self.gui.add_number("Style", 0, min=0, step=1, hint="number of a built-in style")
        strength = self.gui.add_slider("Strength", 0, 1, 0.05, 1)

        def restyle() -> None:
            fields = {"strength": float(strength.value), "rounds": int(rounds.value)}
            self.session.edit("style", style=int(style.value), **fields)

        self._button("Restyle", restyle)

    def _identities(self) -> None:
        self.other = self.gui.add_dropdown("Other object", ("none",))
        self._button("Swap places with it", self._swap)
        self._button("Merge into it", lambda: self.session.edit("merge", into=self._other_id()))
        self._button("Split off as a new object", lambda: self.session.edit("split"))
        upload = self.gui.add_upload_button("Insert an object (PLY)", mime_type=".ply")
        upload.on_upload(
            lambda _: self.client.do(lambda: self._inserted(self.session.insert, upload.value.content))
        )
        self.lender = self.gui.add_dropdown("From the run", (NO_RUN, *self.session.workspace.lenders()))
        self.lender.on_update(lambda _: self.client.do(self._list_lent))
        self.lent = self.gui.add_dropdown("its object", ("none",))
        self._button("Insert it", self._insert_lent)

    def _view(self) -> None:
        mode = self.gui.add_dropdown("Show", [mode.value for mode in Mode])
        mode.on_update(lambda _: self.client.do(lambda: self.session.show(mode=Mode(mode.value))))
        layout = self.gui.add_dropdown("Layout", [layout.value for layout in Layout])
        layout.on_update(lambda _: self.client.do(lambda: self._lay_out(Layout(layout.value))))
        names = tuple(self.session.workspace.views) or ("none",)
        self.view = self.gui.add_dropdown("View of the scene", names)
        self.view.on_update(lambda _: self.client.do(lambda: self._stand_at(self.view.value)))
        actions = {"Previous": lambda: self._step(-1), "Stand there": lambda: self._step(0)}
        actions["Next"] = lambda: self._step(1)
        self._button_row("Walk", tuple(actions), actions)

    def _save(self) -> None:
        name = self.gui.add_text("Name of the edit", "viewer")
        overwrite = self.gui.add_checkbox("Replace", False, hint="an edit of this name")
        self._button("Save as a run", lambda: self._save_run(name.value, overwrite.value))
        self._button("Download the recipe", self._download_recipe)
        self._button("Download the selection (PLY)", self._download_selection)

    # What they do.

    @property
    def draws_lasso(self) -> bool:
        """Whether clicks set corners of a lasso."""
        return bool(self.lasso.value)

    @property
    def clicks_object(self) -> bool:
        """Whether clicks are points of a new object."""
        return bool(self.new_object.value)

    @property
    def wants_gizmo(self) -> bool:
        """Whether the selection has a handle; it would be misplaced in half of a picture."""
        return bool(self.gizmo.value) and self.session.shown.layout is Layout.ONE

    def lasso_click(self, x: float, y: float) -> None:
        """Set a corner; a lasso that is closed ends the drawing."""
        if self.session.lasso_corner(x, y):
            self.lasso.value = False

    def close_lasso(self, add: bool = False) -> None:
        """Select what shows in the lasso; the drawing ends."""
        try:
            self.session.close_lasso(add)
        finally:
            self.lasso.value = False

    def _make_object(self) -> None:
        self.session.edit("split")
        self.new_object.value = False

    def _toggle_lasso(self) -> None:
        self.lasso.value = not self.lasso.value

    def _undo(self) -> None:
        self.session.workspace.undo()

    def _redo(self) -> None:
        self.session.workspace.redo()

    def _rename(self) -> None:
        if not isinstance(self.session.selection, int):
            raise UserError("Select one object to rename it.")
        self.session.rename(self.session.selection, self.name.value)

    def _other_id(self) -> int:
        if self.other.value == "none":
            raise UserError("There is no other object.")
        return int(self.other.value.split()[0])

    def _swap(self) -> None:
        second = self._other_id()
        self.session.workspace.apply({"operation": "swap", "first": self.session.needed(), "second": second})

    def _list_lent(self) -> None:
        lender = self.lender.value
        model = None if lender == NO_RUN else self.session.workspace.objects_of(lender)
        found = [] if model is None else [model_name(id, model.names) for id in model.counts() if id]
        self.lent.options = tuple(found) or ("none",)

    def _insert_lent(self) -> None:
        if self.lent.value == "none":
            raise UserError("Choose a run and one of its objects first.")
        self._inserted(self.session.insert_from, self.lender.value, int(self.lent.value.split()[0]))

    def _inserted(self, insert: Callable[..., None], *what: Any) -> None:
        insert(*what)
        if isinstance(self.session.selection, int):
            self.client.fly_to(self.session.selection)  # its place is another scene's

    def _lay_out(self, layout: Layout) -> None:
        self.session.show(layout=layout)
        if layout is Layout.PHOTOGRAPH:
            self._step(0)

    def _step(self, by: int) -> None:
        names = list(self.session.workspace.views)
        if not names:
            raise UserError("The scene has no views.")
        self._stand_at(names[(names.index(self.session.shown.view) + by) % len(names)])

    def _stand_at(self, name: str) -> None:
        self.session.show(view=name)
        self.view.value = name
        self.client.stand_at(self.session.workspace.views[name])

    def _save_run(self, name: str, overwrite: bool) -> None:
        out = self.session.workspace.save(name, overwrite)
        self.lender.options = (NO_RUN, *self.session.workspace.lenders())
        self.client.say(f"Saved: {out}. See it: python render.py -m {shlex.quote(str(out))}", is_error=False)

    def _download_recipe(self) -> None:
        recipe = self.session.workspace.recipe().encode()
        self.client.handle.send_file_download("recipe.json", recipe, save_immediately=True)

    def _download_selection(self) -> None:
        self.session.needed()
        content = self.session.workspace.ply(self.session.chosen())
        self.client.handle.send_file_download("selection.ply", content, save_immediately=True)

    # What they show.

    def show_progress(self, share: float) -> None:
        """Of a slow operation."""
        self.progress.value = 100 * share
        self.progress.visible = self.cancel.visible = True

    def refresh(self) -> None:
        """Show the document and the selection as they are now."""
        self.progress.visible = self.cancel.visible = self.session.workspace.is_editing
        document, model = self.session.workspace.document, self.session.model
        selected = int(self.session.chosen().sum())
        lines = [f"**{self.session.workspace.run.folder.path.name}**: {model.count:,} Gaussians"]
        lines.append(f"{selected:,} selected" if selected else "nothing selected")
        lines.append(f"{len(document.operations)} operations")
        notes = [self.session.workspace.note, SELECTED if selected else UNSELECTED]
        self.status.content = "\n\n".join([", ".join(lines), *filter(None, notes)])
        counts = {id: count for id, count in model.counts().items() if id}
        listed = sorted(sorted(counts, key=lambda id: -counts[id])[:LISTED])
        self.legend.content = legend(listed, counts, model.names, model.num_classes, len(counts))
        self._refresh_rows(listed)
        others = [id for id in counts if id != self.session.selection]
        self.other.options = tuple(model_name(id, model.names) for id in others) or ("none",)
        if isinstance(self.session.selection, int):
            self.name.value = model.names.get(self.session.selection, "")

    def _refresh_rows(self, listed: list[int]) -> None:
        if list(self._rows) != listed:
            for row in self._rows.values():
                row.remove()
            with self.object_rows:
                self._rows = {id: self._row(id) for id in listed}
        for id, row in self._rows.items():
            row.label = model_name(id, self.session.model.names)
            eye = "Show" if id in self.session.shown.hidden else "Hide"
            row.options = (ACTIONS[0], eye, ACTIONS[2])

    def _row(self, id: int) -> Any:
        def act(action: str) -> None:
            if action == "Fly to":
                self.client.fly_to(id)
            elif action == "Select":
                self.session.select(id)
            else:
                self.session.show(hidden=self.session.shown.hidden ^ {id})

        row = self.gui.add_button_group(str(id), ACTIONS)
        row.on_click(lambda event: self.client.do(lambda: act(event.target.value)))
        return row


def model_name(id: int, names: Any) -> str:
    """An id and what it is called."""
    return f"{id} {names[id]}" if id in names else str(id)


def legend(listed: list[int], counts: dict[int, int], names: Any, num_classes: int, total: int) -> str:
    """The objects with their colours and Gaussians, as HTML."""
    colors = palette(num_classes)
    rows = []
    for id in listed:
        square = f"width:0.8em;height:0.8em;background:rgb({','.join(map(str, colors[id]))})"
        name = f"{escape(model_name(id, names))} ({counts[id]:,})"
        rows.append(f"<span><span style='display:inline-block;{square}'></span> {name}</span>")
    more = f" The largest {len(listed)} of {total} objects." if total > len(listed) else ""
    style = "padding:0 1em;font-size:0.85em;line-height:1.6"
    return f"<div style='{style}'>{' &nbsp; '.join(rows)}{more}</div>"
