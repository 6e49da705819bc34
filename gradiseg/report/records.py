"""What a run left behind: its records and the folders of its pictures.

Everything is read from the run's folder: `training_summary.json` and `training_log.json` (train.py),
`results.json` (metrics.py), `eval_lerf_mask.json` and `eval_extracted.json` (scripts of these names) and the
pictures of render.py, eval_lerf_mask.py, eval_extracted.py and edit_object_removal.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arguments import read_cfg_args
from gradiseg.evaluation.masks import TruthMask, list_truth
from scene.run_folder import RunFolder
from utils.errors import UserError
from utils.json_files import read_json

SUMMARY_KEYS = ("num_gaussians", "seconds_per_iteration", "iterations", "seconds", "peak_memory_mb")
SCORE_KEYS = ("miou", "mbiou", "mbiou_strict")
IMAGE_KEYS = ("psnr", "ssim")


@dataclass(frozen=True)
class Run:
    """A run's folder and records."""

    title: str
    folder: RunFolder
    summary: dict[str, Any]
    log: list[dict[str, Any]]
    images: dict[str, Any]
    masks: dict[str, Any]
    objects: dict[str, Any]  # cut out; empty where they were not scored

    @property
    def renders(self) -> Path:
        """Folder of its pictures, without `renders/`."""
        return self.folder.renders(self.images["split"], self.images["iteration"])

    @property
    def predictions(self) -> Path:
        """Folder of its predicted masks."""
        return self.folder.text_masks("test", self.masks["iteration"])

    @property
    def objects_alone(self) -> Path:
        """Folder of the pictures of its objects, each alone beside its silhouette."""
        return self.folder.extracted_pictures(self.objects["iteration"])

    @property
    def edit(self) -> tuple[Path, str] | None:
        """Its latest edit, None where there is none: the folder of the renders and what they show."""
        iteration = self.folder.latest_edited()
        if iteration is None:
            return None
        record = read_json(self.folder.edit_record(iteration))
        prompts = {identity: prompt for prompt, ids in self.masks.get("ids", {}).items() for identity in ids}
        objects = ", ".join(prompts.get(identity, f"id {identity}") for identity in record["select_obj_id"])
        caption = f"without {objects}" if record["mode"] == "remove" else f"{objects} alone"
        return self.folder.edited_renders(self.images["split"], iteration), caption

    @property
    def scene(self) -> Path:
        """The scene that it was trained on."""
        return Path(str(read_cfg_args(self.folder.path).get("source_path", "")))

    def record(self) -> dict[str, Any]:
        """Its line in report.json."""
        images = {key: self.images[key] for key in IMAGE_KEYS}
        masks = {key: self.masks.get(key) for key in SCORE_KEYS}
        return images | masks | {key: self.summary.get(key) for key in SUMMARY_KEYS}

    def truth(self) -> list[TruthMask]:
        """The ground truth of its scene; none for a run without test views."""
        if self.images["split"] != "test" or not self.masks:
            return []
        count = len(list((self.renders / "renders").glob("*.png")))
        truth = list_truth(self.scene / "test_mask", self.masks.get("views"))
        return [mask for mask in truth if mask.view < count]


def read_run(title: str, folder: Path) -> Run:
    """Reads the records of a run; a scene without true masks needs no scores of masks.

    Raises:
        UserError: a record is missing; says which command writes it.
    """
    run = RunFolder(folder)
    makers = {
        run.training_summary: "train.py",
        run.training_log: "train.py",
        run.results: "render.py and metrics.py",
        run.lerf_mask: "scripts/eval_lerf_mask.py",
    }
    scores_masks = Path(str(read_cfg_args(folder).get("source_path", "")), "test_mask").is_dir()
    for path, command in makers.items():
        needed = scores_masks or path != run.lerf_mask
        if needed and not path.is_file():
            raise UserError(f"{path}: missing. Run {command} on this run first.")
    records = (read_json(path) if path.is_file() else {} for path in (*makers, run.extracted))
    return Run(title, run, *records)
