"""An ablation: scenes x configurations x seeds, and the table of their means and deviations over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.run import Run, training
from utils.errors import UserError

RULES = ("softmax>0.2", "softmax>0.5", "argmax")  # all three, so that a gain is not a threshold's
COLUMNS = {  # heading -> key of a record or of its mask scores, decimals
    "mIoU": ("miou", 3),
    "mBIoU": ("mbiou", 3),
    "strict mBIoU": ("mbiou_strict", 3),
    "error within 3 px": ("mband_error", 3),
    "PSNR": ("psnr", 2),
    "SSIM": ("ssim", 3),
    "Gaussians": ("num_gaussians", 0),
    "seconds": ("seconds", 0),
}
SELECTIONS = ("encoding", "votes", "votes inside")
EXTRACTED = {
    "IoU": ("iou", 3),
    "boundary IoU": ("biou", 3),
    "strict": ("biou_strict", 3),
    "spill": ("spill", 2),
    "impurity": ("impurity", 3),
    "hidden": ("hidden", 3),
}


def cells(
    scenes: Sequence[Path], configs: Sequence[str], seeds: Sequence[int], out: Path, flags: Sequence[str]
) -> list[Run]:
    """Runs in `out/SCENE/CONFIG/SEED`, seed by seed, so that a stopped ablation has whole tables of fewer.

    Raises: UserError for a scene without true masks, whose runs have no row in the table.
    """
    for scene in scenes:
        if scene.is_dir() and not (scene / "test_mask").is_dir():  # it may lie on other machines' disks alone
            raise UserError(
                f"{scene / 'test_mask'}: not there, but an ablation compares masks. Copy the true masks "
                "there, or leave the scene out."
            )
    return [
        training(
            scene,
            out / scene.name / Path(config).stem / str(seed),
            config,
            ("--train_split", *flags),
            seed=seed,
            metrics=("--lpips", "none"),
        )
        for seed in seeds
        for scene in scenes
        for config in configs
    ]


def table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: for each mask rule the configurations of every scene, then their means over the scenes."""
    scenes = list(dict.fromkeys(record["scene"] for record in records))
    configs = list(dict.fromkeys(record["config"] for record in records))
    lines: list[str] = []
    kinds = [(f"Masks by {rule}", "rules", rule, COLUMNS) for rule in RULES]
    if all("extracted" in record for record in records):
        kinds += [(f"Objects cut out by {s}", "extracted", s, EXTRACTED) for s in SELECTIONS]
    for title, kind, name, columns in kinds:
        lines += [title, "", "| scene | configuration | seeds | " + " | ".join(columns) + " |"]
        lines.append("|---" * (3 + len(columns)) + "|")
        for scene in scenes + ["mean"] * (len(scenes) > 1):
            for config in configs:
                cell = [r for r in records if r["config"] == config and scene in (r["scene"], "mean")]
                if cell and (scene != "mean" or {r["scene"] for r in cell} == set(scenes)):
                    values = " | ".join(_columns(cell, kind, name, columns))
                    lines.append(f"| {scene} | {config} | {values} |")
        lines.append("")
    return "\n".join(lines)


def _columns(
    records: Sequence[dict[str, Any]], kind: str, name: str, columns: Mapping[str, tuple[str, int]]
) -> list[str]:
    """Number of seeds, then mean ± deviation over the seeds of the scores' means over the scenes.

    `kind`: the part of a record, `rules` or `extracted`, whose scores by `name` are meant.
    """
    seeds = sorted({record["seed"] for record in records})
    cells = [str(len(seeds))]
    for key, digits in columns.values():
        by_seed = [
            fmean(
                r[kind][name][key] if key in r[kind][name] else r[key] for r in records if r["seed"] == seed
            )
            for seed in seeds
        ]
        spread = f" ± {stdev(by_seed):.{digits}f}" if len(seeds) > 1 else ""
        cells.append(f"{fmean(by_seed):,.{digits}f}{spread}")
    return cells
