"""A run opened for editing by several people at once: one document, its files, and who is told of changes."""

import functools
import hashlib
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gradiseg.editing.document import Document, operation_of
from gradiseg.editing.files import open_run, save_run
from gradiseg.editing.object_files import read_object
from gradiseg.editing.placement import box_of, up_of
from gradiseg.evaluation.text import Marker
from gradiseg.evaluation.views import fit_identity_colors
from gradiseg.labelled import LabelledModel
from gradiseg.trained import TrainedRun
from gradiseg.viewer.runs import objects_of, runs_of
from pretrained.prompted import PromptedSegmenter
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.ply import write_ply
from utils.errors import UserError
from utils.files import atomic_write
from utils.image import PcaColors

IMPORTED = Path("edits", "imported")  # below the run: what was uploaded, by its hash
PATHS = ("source", "labels", "weights", "style", "to")  # fields of operations that can name a file
TOLD_EVERY = 0.2  # seconds between two reports of a slow operation
LARGEST_UPLOAD = 2**30  # bytes; a million Gaussians are 250 MB
SAVED_NAME = re.compile(r"\w[\w .-]{0,62}\w|\w")  # of an edit; a folder below the run, never a path


class Listener(Protocol):
    """A client, as far as it is told of what others do."""

    def document_changed(self) -> None:
        """An edit has ended, whoever made it."""

    def progressed(self, share: float) -> None:
        """So much of a slow operation is done."""


class Workspace:
    """The document of a run, and everything about it that its clients share.

    words: finds words in pictures; what it raises where its weights are missing is what the client is told.
    segmenter: a network that cuts out what is clicked.
    shelf: the folder whose runs may lend their objects; default: the run's own, with its edits.
    """

    def __init__(
        self,
        run: TrainedRun,
        words: Callable[[], Marker],
        shelf: Path | None = None,
        segmenter: PromptedSegmenter | None = None,
    ) -> None:
        self.run, self.note = run, ""  # note: what clients are told about the run
        self._shelf = shelf or run.folder.path
        self._lender: tuple[str, LabelledModel] | None = None  # the run that was looked into last
        self.document = open_run(run)
        self.drawing = threading.Lock()  # one picture at a time: each takes all threads
        self._editing = threading.Lock()
        self._words = words
        self._marker: Marker | None = None
        self._colors: PcaColors | None = None
        self._listeners: list[Listener] = []
        self._cancelled = threading.Event()
        self._told_at = 0.0
        self.document.surroundings = replace(
            self.document.surroundings, told=self._progressed, segmenter=segmenter
        )

    @property
    def views(self) -> Mapping[str, Camera]:
        """The scene's views by name."""
        return self.document.surroundings.views

    @property
    def segmenter(self) -> PromptedSegmenter | None:
        """The network that cuts out what is clicked, if there is one."""
        return self.document.surroundings.segmenter

    @property
    def is_editing(self) -> bool:
        """Whether an operation is going on."""
        return self._editing.locked()

    @property
    def up(self) -> Tensor:
        """Unit vector (3,) that points up; z where the cameras do not tell."""
        try:
            return up_of(self.views.values())
        except UserError:
            return self.run.background.new_tensor([0.0, 0.0, 1.0])

    @functools.cached_property
    def middle(self) -> NDArray[np.float64]:
        """The middle of the scene as it was opened (3,)."""
        return box_of(self.document.original.params["xyz"].cpu()).centre.numpy()

    def tell(self, listener: Listener) -> None:
        """Have a client told of every change."""
        self._listeners.append(listener)

    def forget(self, listener: Listener) -> None:
        """End `tell`."""
        self._listeners.remove(listener)

    @contextmanager
    def _edit(self) -> Iterator[None]:
        """One edit at a time; everybody is told of it afterwards.

        Raises: UserError where another one is going on.
        """
        if not self._editing.acquire(blocking=False):
            raise UserError("Another operation is still going on. Wait for its end, or cancel it.")
        try:
            self._cancelled.clear()
            yield
        finally:
            self._editing.release()
            for listener in list(self._listeners):
                listener.document_changed()

    def _progressed(self, share: float) -> None:
        """Told by slow operations."""
        if self._cancelled.is_set():
            raise UserError("Cancelled: nothing has changed.")
        if share >= 1 or time.monotonic() - self._told_at >= TOLD_EVERY:
            self._told_at = time.monotonic()
            for listener in list(self._listeners):
                listener.progressed(share)

    def cancel(self) -> None:
        """Stop the slow operation that is going on; the document stays as it was."""
        self._cancelled.set()

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Do the operation of a recipe's entry, which may come from a client: it opens no file.

        Raises: UserError where it cannot be done, or where another is going on.
        """
        named = {key: value for key, value in entry.items() if key in PATHS and isinstance(value, str)}
        if named or entry.get("operation") == "insert":
            raise UserError(f"{entry['operation']}: files are named in edit.py, not from a browser.")
        self._apply(entry)

    def _apply(self, entry: Mapping[str, Any]) -> None:
        operation = operation_of(entry, "viewer")
        with self._edit():
            self.document.apply(operation)

    def follow(self, iteration: int, gaussians: GaussianModel, classifier: nn.Conv2d, note: str) -> bool:
        """Show a newer state of the run, unless something was edited; whether it is shown.

        Raises: UserError where an operation begins at this moment.
        """
        self.note = note
        if self.document.operations or self.is_editing:
            return False
        with self._edit():
            if self.document.operations:  # done between these two lines
                return False
            self.run = replace(
                self.run, iteration=iteration, gaussians=gaussians, classifier=classifier, votes=None
            )
            model = LabelledModel.of(gaussians, classifier, None, self.document.model.names)
            self.document = Document(model, self.document.surroundings)
        return True

    def undo(self) -> None:
        """Take the last operation back."""
        with self._edit():
            self.document.undo()

    def redo(self) -> None:
        """Do again what was undone last."""
        with self._edit():
            self.document.redo()

    def save(self, name: str, overwrite: bool = False) -> Path:
        """Save the model as a run, `edits/<name>` below the run that is open.

        Raises: UserError for a name that is a path, or is taken.
        """
        if not SAVED_NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name an edit. Use letters, digits, dots and dashes.")
        out = self.run.folder.edit(name).path
        if out == self.run.folder.path / IMPORTED:
            raise UserError(f"{name!r} is where imported objects lie. Choose another name.")
        with self._edit():
            save_run(self.document, self.run, out, overwrite)
            self._lender = None  # it may have been replaced
        return out

    def recipe(self) -> str:
        """What was done, as the text of a recipe that `edit.py --recipe` takes."""
        return json.dumps(self.document.recipe(), indent=2) + "\n"

    def ply(self, chosen: Tensor) -> bytes:
        """A selection (N,) bool as a PLY file."""
        return ply_of(self.document.model.rows(chosen))

    def insert(self, content: bytes, name: str = "") -> None:
        """Insert the object of a PLY file, of which only the content is trusted to be anything at all.

        It is kept below the run under its hash, so that the recipe can be replayed.

        Raises: UserError where it is no PLY file of Gaussians.
        """
        if len(content) > LARGEST_UPLOAD:
            raise UserError(f"{len(content) / 2**20:.0f} MB are too many. Insert it with edit.py insert.")
        kept = self.run.folder.path / IMPORTED / f"{hashlib.sha256(content).hexdigest()[:16]}.ply"
        with atomic_write(kept) as temporary:
            temporary.write_bytes(content)
            check_object(temporary, self.document.model.origin)
        self._apply({"operation": "insert", "source": str(kept), **({"name": name} if name else {})})

    def lenders(self) -> list[str]:
        """Names of the runs whose objects can be inserted."""
        return list(runs_of(self._shelf))

    def objects_of(self, lender: str) -> LabelledModel:
        """The objects of a run that is one of `lenders`.

        Raises: UserError where it is none of them, or cannot be read.
        """
        if self._lender is None or self._lender[0] != lender:
            run = runs_of(self._shelf).get(lender)
            if run is None:
                raise UserError(f"{lender!r} is none of the runs here. Choose one of the list.")
            self._lender = (lender, objects_of(run, self.document.model.origin))
        return self._lender[1]

    def insert_from(self, lender: str, id: int) -> None:
        """Insert an object of another run, with its name where that is free; kept like an upload."""
        model = self.objects_of(lender)
        if id not in model.counts():
            raise UserError(f"{lender} has no object {id}.")
        name = model.names.get(id, "")
        content = ply_of(model.rows(model.ids == id))
        self.insert(content, "" if name in self.document.model.names.values() else name)

    def identity_colors(self) -> PcaColors:
        """Colours of identity maps, fitted to the run when they are first wanted."""
        if self._colors is None:
            self._colors = fit_identity_colors(self.run.train_cameras, self.run.render_identity)
        return self._colors

    def marker(self) -> Marker:
        """What finds words in pictures, loaded when it is first wanted."""
        if self._marker is None:
            self._marker = self._words()
        return self._marker


def ply_of(model: LabelledModel) -> bytes:
    """Gaussians as a PLY file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "object.ply")
        write_ply(path, model.params, model.origin)
        return path.read_bytes()


def check_object(path: Path, origin: NDArray[np.float64]) -> None:
    """Raise a UserError, which names no path, unless a file holds Gaussians that can be drawn."""
    try:
        read_object(path, origin)
    except UserError as error:
        raise UserError(f"The file is no PLY of Gaussians ({str(error).replace(str(path), 'it')})") from error
