"""The LERF-Mask evaluation of a run: assign ids to prompts, predict the test views' masks, score them.

Definitions are Gaussian Grouping's (see `masks` and `metrics`); the assignment is given, chosen by words (see
`text`), or the oracle's, so that the 3D model is judged apart from any detector.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradiseg.evaluation.ids import (
    SOURCE_TEST,
    SOURCE_TRAINING,
    Assignment,
    ids_from_training_masks,
    read_ids,
)
from gradiseg.evaluation.masks import (
    DEFAULT_RULE,
    RULES,
    TruthMask,
    check_ids,
    ids_from_model,
    list_truth,
    predict_masks,
    read_prediction,
    score_masks,
    write_predictions,
)
from gradiseg.evaluation.text import TextChoice
from gradiseg.trained import TrainedRun
from utils.errors import UserError, some

EXACT_FOLDER = "object_mask_exact"
ORACLE = "oracle"
MEANS = ("miou", "mbiou", "mbiou_strict", "mband_error")


def evaluate_run(
    run: TrainedRun, source: Path, object_path: str, ids: str | TextChoice = ORACLE
) -> dict[str, Any]:
    """Predicts, writes and scores the masks of a run.

    Args:
        source: the scene's folder, with `test_mask/`.
        object_path: the folder of the masks that trained, inside the scene.
        ids: `oracle`, a JSON file of ids, or what words have chosen.

    Returns:
        the record of `score_masks` for the default rule, with the ids and the means of every rule.
    """
    truth = list_truth(source / "test_mask", [camera.image_name for camera in run.test_cameras])
    assignment, ids_source = choose_ids(run, source, object_path, ids, truth)
    check_ids(assignment, run.classifier)
    prompts = sorted({mask.prompt for mask in truth})
    if not set(assignment) & set(prompts):
        raise UserError(
            f"{ids_source}: none of its prompts ({some(list(assignment)) or 'none'}) is one of "
            f"{source}/test_mask ({some(prompts)}). Name them alike."
        )
    predictions = predict_masks(run.test_cameras, truth, run.render_identity, run.classifier, assignment)
    write_predictions(run.folder.text_masks("test", run.iteration), predictions[DEFAULT_RULE])
    records = {
        rule: score_masks(truth, lambda mask, rule=rule: predictions[rule].get((mask.view, mask.prompt)))  # type: ignore[misc]
        for rule in RULES
    }
    rules = {rule: {key: record[key] for key in MEANS} for rule, record in records.items()}
    return records[DEFAULT_RULE] | {
        "ids": assignment,
        "ids_source": ids_source,
        "rules": rules,
        "views": [camera.image_name for camera in run.test_cameras],
        "iteration": run.iteration,
        "num_gaussians": run.gaussians.num_gaussians,
    }


def choose_ids(
    run: TrainedRun, source: Path, object_path: str, ids: str | TextChoice, truth: Sequence[TruthMask]
) -> tuple[Assignment, str]:
    """The ids of every prompt, and where they come from."""
    if isinstance(ids, TextChoice):
        return ids.ids, ids.source
    if ids != ORACLE:
        return read_ids(Path(ids)), f"file {Path(ids).name}"
    exact, prompts = source / EXACT_FOLDER, source / "prompts.json"
    if exact.is_dir() and prompts.is_file():
        names = [camera.image_name for camera in run.train_cameras]
        return ids_from_training_masks(source / object_path, exact, read_ids(prompts), names), SOURCE_TRAINING
    return ids_from_model(run.test_cameras, truth, run.render_identity, run.classifier), SOURCE_TEST


def evaluate_folder(predictions: Path, source: Path) -> dict[str, Any]:
    """Scores the PNGs of any method, `<k>/<prompt>.png`, against a scene's `test_mask/`."""
    truth = list_truth(source / "test_mask")
    record = score_masks(truth, lambda mask: read_prediction(predictions, mask))
    if len(record["missing"]) == len(truth):
        there = sorted(path.relative_to(predictions).as_posix() for path in predictions.rglob("*.png"))
        raise UserError(
            f"{predictions}: none of its pictures ({some(there) or 'there are none'}) belongs to a true "
            f"mask. Wanted are {some([f'{mask.name}.png' for mask in truth])}."
        )
    return record


def markdown(record: Mapping[str, Any], title: str) -> str:
    """The record as a Markdown page: scores per prompt, means by rule, ids, missing predictions."""
    lines = [
        f"# {title}",
        "",
        "| prompt | ids | views | IoU | boundary IoU | strict | error within 3 px |",
        "|---|---|---|---|---|---|---|",
    ]
    ids = record.get("ids", {})
    for prompt, row in record["per_prompt"].items():
        scores = " | ".join(f"{row[key]:.3f}" for key in ("iou", "biou", "biou_strict", "band_error"))
        lines.append(f"| {prompt} | {' '.join(map(str, ids.get(prompt, [])))} | {row['views']} | {scores} |")
    lines.append("| **mean** | | | " + " | ".join(f"**{record[key]:.3f}**" for key in MEANS) + " |")
    if "rules" in record:
        lines += [
            "",
            "| mask rule | mIoU | mBIoU | strict mBIoU | error within 3 px |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {rule} | " + " | ".join(f"{means[key]:.3f}" for key in MEANS) + " |"
            for rule, means in record["rules"].items()
        ]
        lines += [
            "",
            f"Ids: {record['ids_source']}.",
            f"Iteration {record['iteration']}, {record['num_gaussians']:,} Gaussians.",
        ]
    missing = ", ".join(record["missing"]) or "none"
    return "\n".join([*lines, "", f"Missing predictions (each counts 0): {missing}.", ""])
