"""The folder of a run: where everything in it lies, what belongs to a run, and when it may change.

    cfg_args  cameras.json  input.ply                         the start of a training
    chkpntN.pth  training_log.json  events.out.tfevents*      while it goes on
    point_cloud/iteration_N/{point_cloud.ply, classifier.pth} a saved model, and votes.npz
    training_summary.json                                     its end: a run is finished when this is there
    segmented.json  cleaned.json                              segment_splat.py, clean_objects.py: in its place
    {train,test}/ours_N/{renders,gt,...}/00000.png            render.py
    {train,test}/ours_N_text/test_mask/<k>/<prompt>.png       render.py --text, eval_lerf_mask.py
    {train,test}/ours_N_extracted/<k>/<prompt>.png            scripts/eval_extracted.py
    results.json  eval_{lerf_mask,text,extracted}.{json,md}  scores.json
    edits/<name>/  eval_edits.{json,md}                       edit.py, scripts/eval_edits.py
    exports/                                                  export.py
    run.json  run.log  run.lock                               experiments/: record, output, owner
    point_cloud_object_removal/iteration_N/  {train,test}/ours_object_removal/iteration_N/renders

Names are Gaussian Grouping's where it has one. Other files may lie beside them; no command touches those.
"""

import os
import re
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from arguments.cfg_args import CFG_ARGS
from utils.errors import UserError
from utils.files import TEMPORARY, check_free_space

MIN_FREE_BYTES = 200 * 2**20  # a model of 200,000 Gaussians with its checkpoint
NAMES_SHOWN = 3
POINT_CLOUD, CLASSIFIER, VOTES = "point_cloud.ply", "classifier.pth", "votes.npz"
SPLITS = ("train", "test")
_CHECKPOINT = re.compile(r"chkpnt(\d+)\.pth")
_SAVED = re.compile(r"iteration_(\d+)")
_RENDERED = re.compile(r"ours_(\d+)")
# All that the commands write. The summary goes first, so that a run half cleared is not taken for finished.
_OWN = (
    "training_summary.json",
    "segmented.json",
    "cleaned.json",
    "training_log.json",
    "results.json",
    "eval_lerf_mask.json",
    "eval_lerf_mask.md",
    "eval_text.json",
    "eval_text.md",
    "eval_extracted.json",
    "eval_extracted.md",
    "eval_edits.json",
    "eval_edits.md",
    "scores.json",
    "chkpnt*.pth",
    "events.out.tfevents*",
    *(f"{split}/ours_*" for split in SPLITS),
    "point_cloud",
    "point_cloud_object_removal",
    "edits",
    "exports",
    "cameras.json",
    "input.ply",
    CFG_ARGS,
)


@dataclass(frozen=True)
class RunFolder:
    """Paths of the run in `path`, which need not exist."""

    path: Path

    @classmethod
    def for_training(
        cls, model_path: str | os.PathLike[str], overwrite: bool = False, resume: bool = False
    ) -> "RunFolder":
        """The folder that a training may write to; nothing in it has changed yet, see `begin`.

        Raises: UserError unless it is named, free of another run (or `overwrite` or `resume` is set), and
            there is space on the disk.
        """
        if not str(model_path):
            raise UserError("-m (--model_path) is required: the folder that the run is written to.")
        if overwrite and resume:
            raise UserError(
                "--overwrite and --resume exclude each other, --overwrite and --start_checkpoint too: "
                "replace the run or go on with it."
            )
        folder = cls(Path(model_path))
        if folder.path.exists() and not folder.path.is_dir():
            raise UserError(f"{folder.path}: a file, not a folder. Choose another -m (--model_path).")
        held = [path.relative_to(folder.path).as_posix() for path in folder.contents()]
        if held and not (overwrite or resume):
            more = ", ..." if len(held) > NAMES_SHOWN else ""
            raise UserError(
                f"{folder.path}: holds another run ({', '.join(held[:NAMES_SHOWN])}{more}). Choose another "
                "-m, replace the run with --overwrite or go on with --resume."
            )
        folder.check_links()
        check_free_space(folder.path, MIN_FREE_BYTES, "-m (--model_path)")
        return folder

    def check_links(self) -> None:
        """Raise UserError where a link in the folder leads out of it, where commands would then write."""
        root, own = self.path.resolve(), {Path(pattern).parts[0] for pattern in _OWN}
        for top in self.path.iterdir() if self.path.is_dir() else ():
            if not any(fnmatch(top.name, pattern) for pattern in own):
                continue
            for path in (top, *top.rglob("*")):
                if path.is_symlink() and not path.resolve().is_relative_to(root):
                    raise UserError(
                        f"{path}: a link that leads out of the run's folder, to {path.resolve()}. Put the "
                        "file or folder itself there."
                    )

    # Training.

    @property
    def cfg_args(self) -> Path:
        """The options; see `arguments.read_cfg_args`."""
        return self.path / CFG_ARGS

    @property
    def cameras(self) -> Path:
        """Every camera, for 3DGS's viewers."""
        return self.path / "cameras.json"

    @property
    def input_points(self) -> Path:
        """The points that training started from."""
        return self.path / "input.ply"

    @property
    def training_log(self) -> Path:
        """Losses and numbers of Gaussians, entry by entry."""
        return self.path / "training_log.json"

    @property
    def training_summary(self) -> Path:
        """How the training went; there if and only if it came to its end."""
        return self.path / "training_summary.json"

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return self.training_summary.is_file()

    @property
    def segmented(self) -> Path:
        """How a splat got its identities, where the run is one that segment_splat.py made."""
        return self.path / "segmented.json"

    @property
    def cleaned(self) -> Path:
        """What changed, where the run is one that clean_objects.py made."""
        return self.path / "cleaned.json"

    def checkpoint(self, iteration: int) -> Path:
        """The run as it stood after an iteration."""
        return self.path / f"chkpnt{iteration}.pth"

    def latest_checkpoint(self) -> Path:
        """The checkpoint of the highest iteration.

        Raises: UserError where there is none.
        """
        found = _numbered(self.path, _CHECKPOINT)
        if not found:
            raise UserError(
                f"{self.path}: no chkpntN.pth to resume from. "
                "Train with --checkpoint_interval, or anew with --overwrite."
            )
        return found[max(found)]

    # Models.

    def saved(self, iteration: int) -> Path:
        """Folder of a saved model."""
        return self.path / "point_cloud" / f"iteration_{iteration}"

    def ply(self, iteration: int) -> Path:
        """The Gaussians of a saved model."""
        return self.saved(iteration) / POINT_CLOUD

    def classifier(self, iteration: int) -> Path:
        """The classifier of a saved model, a state dict of a 1x1 Conv2d."""
        return self.saved(iteration) / CLASSIFIER

    def votes(self, iteration: int) -> Path:
        """Whose each of them is, see `gradiseg.votes`; older runs and other tools' have none."""
        return self.saved(iteration) / VOTES

    def latest_saved(self) -> int:
        """The last iteration whose model was saved; without a PLY, which is written last, it does not count.

        Raises: UserError where there is none.
        """
        folder = self.path / "point_cloud"
        found = [iteration for iteration in _numbered(folder, _SAVED) if self.ply(iteration).is_file()]
        if not found:
            raise UserError(
                f"{folder}: no iteration_N folder with a model in it. Train first (train.py -m {self.path})."
            )
        return max(found)

    # What is made of a model.

    def renders(self, split: str, iteration: int) -> Path:
        """Pictures of the views of a split; `renders` and `gt` below it are what metrics.py reads."""
        return self.path / split / f"ours_{iteration}"

    def rendered(self, split: str) -> dict[int, Path]:
        """`renders` of every iteration that has some."""
        folders = _numbered(self.path / split, _RENDERED)
        return {n: path for n, path in folders.items() if any((path / "renders").glob("*.png"))}

    def text(self, split: str, iteration: int) -> Path:
        """Folder of what words have chosen."""
        return self.path / split / f"ours_{iteration}_text"

    def text_masks(self, split: str, iteration: int) -> Path:
        """Folder of the masks `<k>/<prompt>.png`, as LERF-Mask's `test_mask`."""
        return self.text(split, iteration) / "test_mask"

    @property
    def results(self) -> Path:
        """Scores of the pictures (metrics.py)."""
        return self.path / "results.json"

    @property
    def lerf_mask(self) -> Path:
        """Scores of the masks (scripts/eval_lerf_mask.py)."""
        return self.path / "eval_lerf_mask.json"

    @property
    def extracted(self) -> Path:
        """Scores of the objects that are cut out (scripts/eval_extracted.py)."""
        return self.path / "eval_extracted.json"

    def extracted_pictures(self, iteration: int) -> Path:
        """Folder of their pictures, `<k>/<prompt>.png`."""
        return self.path / "test" / f"ours_{iteration}_extracted"

    def edited(self, iteration: int) -> Path:
        """Folder of the model without (or of nothing but) the objects that were chosen."""
        return self.path / "point_cloud_object_removal" / f"iteration_{iteration}"

    def edit_record(self, iteration: int) -> Path:
        """What was chosen for it."""
        return self.edited(iteration) / "edit.json"

    def latest_edited(self) -> int | None:
        """The last iteration whose model was edited."""
        found = _numbered(self.path / "point_cloud_object_removal", _SAVED)
        return max((n for n in found if self.edit_record(n).is_file()), default=None)

    def edited_renders(self, split: str, iteration: int) -> Path:
        """Its pictures."""
        return self.path / split / "ours_object_removal" / f"iteration_{iteration}" / "renders"

    def edit(self, name: str) -> "RunFolder":
        """An edit (edit.py): a run of its own, with the recipe that made it."""
        return RunFolder(self.path / "edits" / name)

    @property
    def recipe(self) -> Path:
        """The recipe of an edit; other runs have none."""
        return self.path / "edit.json"

    def edits(self) -> dict[str, "RunFolder"]:
        """The edits by their names."""
        names = sorted(path.parent.name for path in self.path.glob("edits/*/edit.json"))
        return {name: self.edit(name) for name in names}

    @property
    def true_edits(self) -> Path:
        """Scores of edits against what the scene looks like after them (scripts/eval_edits.py)."""
        return self.path / "eval_edits.json"

    # What belongs to a run.

    def contents(self) -> list[Path]:
        """Everything there that commands wrote, in the order in which it is cleared."""
        return [path for pattern in _OWN for path in sorted(self.path.glob(pattern))]

    def begin(self, overwrite: bool) -> None:
        """Make the folder ready for a training, once all it needs has been read and checked.

        The old run goes (`overwrite`), or is unfinished again; what a killed command left goes either way.
        """
        stale = self.contents() if overwrite else [self.training_summary]
        for path in [*stale, *self._temporaries()]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for split in SPLITS:
            if (self.path / split).is_dir() and not any((self.path / split).iterdir()):
                (self.path / split).rmdir()

    def _temporaries(self) -> list[Path]:
        folders = [path for path in self.contents() if path.is_dir()]
        found = [*self.path.glob(".*"), *(path for folder in folders for path in folder.rglob(".*"))]
        return [path for path in found if TEMPORARY.fullmatch(path.name)]


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """Entries of a folder whose name fits, by the number in it."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return {int(match[1]): entry for entry in entries if (match := pattern.fullmatch(entry.name))}
