"""Scores objects as they are cut out: the Gaussians of an id rendered alone, against the silhouette.

A rendered mask shows only what stands before everything else; who cuts an object out gets all of it, with
what hides below a surface or behind a neighbour. So the chosen Gaussians are rendered without the others;
where the alpha that they accumulate exceeds 1/2 is the object.

Truth is `test_mask_amodal/<k>/<prompt>.png`, the silhouette of the object with nothing before it; pixels of
`test_mask_unseen/<k>/<prompt>.png`, behind which no training view sees any of it, count as right. Without
these folders it is the visible mask in `test_mask/`, and the pixels of other prompts' masks, which may hide
the object, count as right.

`SELECTIONS` says in four ways which Gaussians belong to an object: by the id that each one's encoding says,
by its votes (`gradiseg.votes`), of these the ones with their centre where the views show the object
(`gradiseg.occupancy`), and where the softmax of the id exceeds 0.3, Gaussian Grouping's rule.
*Spill* is the alpha outside the silhouette over the alpha inside. Two numbers need no truth: the *impurity*
of an object is the share of its Gaussians' votes that went to other ids; *hidden* is the share of the alpha
of the cut-out object, by votes, that comes from Gaussians which no training view sees.

What is missing of an object is told apart (`found`, by votes): pixels of its silhouette that the view itself
shows, and those *behind* something else, which at least one training view sees.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from gaussian_renderer import draw_alone, render
from gradiseg.classifier import classify, identify
from gradiseg.evaluation.ids import Assignment
from gradiseg.evaluation.lerf_mask import ORACLE, choose_ids
from gradiseg.evaluation.masks import TruthMask, check_ids, is_mask, list_truth, read_mask
from gradiseg.evaluation.metrics import BoolArray, score_mask
from gradiseg.occupancy import centres_inside
from gradiseg.trained import TrainedRun
from gradiseg.votes import Votes, elect_by_masks
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.gaussian_ops import select
from utils.image import write_png

FloatArray = NDArray[np.float32]

SELECTIONS = ("encoding", "votes", "votes inside", "softmax>0.3")
SOFTMAX = 0.3
OPAQUE = 0.5  # accumulated alpha above which a pixel shows the object
KEYS = ("iou", "biou", "biou_strict", "spill")
AMODAL, UNSEEN, VISIBLE = "test_mask_amodal", "test_mask_unseen", "test_mask"
KINDS = {  # what is compared with, for the record
    AMODAL: "silhouettes of the objects alone; pixels that no training view sees count as right",
    VISIBLE: "visible masks; pixels of other objects' masks count as right",
}


@dataclass(frozen=True)
class ExtractedScore:
    """Scores of one object in one view."""

    iou: float
    biou: float
    biou_strict: float
    spill: float


@dataclass(frozen=True)
class Silhouette:
    """What an object should look like alone, (H, W) each: the mask, the pixels that count as right, and those
    of the mask that the view shows with all else before them."""

    file: TruthMask
    mask: BoolArray
    free: BoolArray
    shown: BoolArray


def silhouettes(source: Path, view_names: Sequence[str]) -> tuple[str, list[Silhouette]]:
    """The folder that holds the truth of a scene, and all of it.

    Raises:
        UserError: the scene has neither kind of truth.
    """
    kind = AMODAL if (source / AMODAL).is_dir() else VISIBLE
    files = list_truth(source / kind, view_names)
    masks = [read_mask(file.path) for file in files]
    free = _beside(source / UNSEEN, files, masks) if kind == AMODAL else _others(files, masks)
    shown = _beside(source / VISIBLE, files, masks) if kind == AMODAL else masks
    return kind, [Silhouette(*parts) for parts in zip(files, masks, free, shown, strict=True)]


def _beside(folder: Path, files: Sequence[TruthMask], masks: Sequence[BoolArray]) -> list[BoolArray]:
    """The masks of the same views and prompts in another folder; no file: no pixel."""
    paths = [folder / file.folder / file.path.name for file in files]
    pairs = zip(paths, masks, strict=True)
    return [read_mask(path) if path.is_file() else np.zeros_like(mask) for path, mask in pairs]


def _others(files: Sequence[TruthMask], masks: Sequence[BoolArray]) -> list[BoolArray]:
    """Pixels of the masks of a view's other prompts."""
    covered: dict[int, NDArray[np.int64]] = {}
    for file, mask in zip(files, masks, strict=True):
        covered[file.view] = covered.get(file.view, np.zeros(mask.shape, np.int64)) + mask
    return [covered[file.view] > mask for file, mask in zip(files, masks, strict=True)]


def evaluate_extracted(run: TrainedRun, source: Path, object_path: str, ids: str = ORACLE) -> dict[str, Any]:
    """Scores the objects of a run, and writes their pictures.

    Args:
        source: the scene's folder, with `test_mask_amodal/` or `test_mask/`.
        object_path: the folder of the masks that trained, inside the scene; they vote where the run has
            stored no votes.
        ids: `oracle`, or a JSON file of ids.

    Returns:
        the record of `score_extracted`, with the ids, and where truth, ids and votes come from.
    """
    kind, truth = silhouettes(source, [camera.image_name for camera in run.test_cameras])
    assignment, ids_source = choose_ids(run, source, object_path, ids, [piece.file for piece in truth])
    check_ids(assignment, run.classifier)
    votes, votes_from = run.votes, "the run's own labels"
    if votes is None:
        by_encoding = identify(run.gaussians.get_objects.flatten(1), run.classifier)
        votes, votes_from = elect_by_masks(run.gaussians, run.train_cameras, by_encoding), object_path
    pictures = run.folder.extracted_pictures(run.iteration)
    clear_pictures(pictures)
    return score_extracted(run, votes, assignment, truth, pictures) | {
        "truth": kind,
        "ids": assignment,
        "ids_source": ids_source,
        "votes_from": votes_from,
        "iteration": run.iteration,
        "num_gaussians": run.gaussians.num_gaussians,
    }


def chosen_gaussians(run: TrainedRun, votes: Votes, inside: Tensor, ids: Sequence[int]) -> dict[str, Tensor]:
    """The Gaussians of the ids by each of `SELECTIONS`, (N,) bool; `inside` (N,) by `centres_inside`."""
    classified = classify(run.gaussians.get_objects.flatten(1), run.classifier, ids)
    wanted = torch.tensor(ids, dtype=torch.int64, device=votes.ids.device)
    return {
        "encoding": torch.isin(classified.ids, wanted),
        "votes": torch.isin(votes.ids, wanted),
        "votes inside": torch.isin(votes.ids, wanted) & inside,
        "softmax>0.3": (classified.probabilities > SOFTMAX).any(1),
    }


@torch.no_grad()
def render_alone(
    model: GaussianModel, chosen: Tensor, camera: Camera, channels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The chosen Gaussians (N,) bool alone: their alpha (H, W), and their `channels` (N, D) as (D, H, W)."""
    rows = chosen.nonzero()[:, 0]
    codes = model.get_xyz.new_ones(len(rows), 1)
    if channels is not None:
        codes = torch.cat([codes, channels[rows].to(codes)], 1)
    blended = draw_alone(camera, model, rows, codes)
    return blended[0], blended[1:]


def score_silhouette(alpha: FloatArray, truth: Silhouette) -> ExtractedScore:
    """Scores of an object whose alpha (H, W) is rendered alone; free pixels count as right."""
    prediction = np.where(truth.free, truth.mask, alpha > OPAQUE)
    score = score_mask(prediction, truth.mask)
    mass = np.where(truth.free, 0.0, alpha)
    inside = float(mass[truth.mask].sum())
    spill = float(mass[~truth.mask].sum()) / max(inside, 1.0)
    return ExtractedScore(score.iou, score.biou, score.biou_strict, spill)


def count_found(alpha: FloatArray, truth: Silhouette) -> NDArray[np.int64]:
    """Pixels of the silhouette and how many of them the alpha (H, W) covers: shown, behind (2, 2) int64."""
    counted = truth.mask & ~truth.free
    parts = np.stack([counted & truth.shown, counted & ~truth.shown])
    counts: NDArray[np.int64] = np.stack([parts, parts & (alpha > OPAQUE)], 1).sum((2, 3))
    return counts


def _found(counts: NDArray[np.int64]) -> dict[str, float]:
    """The shares for the record, of counts as in `count_found`; 1 of nothing."""
    of, found = counts.T
    shown, behind = (float(share) for share in np.where(of > 0, found / np.maximum(of, 1), 1.0))
    return {"shown": shown, "behind": behind, "share_behind": float(of[1] / max(of.sum(), 1))}


def _at_size(image: Tensor, shape: tuple[int, ...]) -> FloatArray:
    """An image (H, W) rendered at the size that was trained, at the truth's; see `evaluation.masks`."""
    if image.shape != shape:
        image = interpolate(image[None, None], shape, mode="bilinear", antialias=True)[0, 0]
    array: FloatArray = image.cpu().numpy()
    return array


def score_extracted(
    run: TrainedRun, votes: Votes, ids: Assignment, truth: Sequence[Silhouette], pictures: Path | None = None
) -> dict[str, Any]:
    """Scores every prompt by every selection; per prompt the mean over its views, then over prompts.

    An object without an id, or of which nothing was chosen, has an IoU of 0. With `pictures`, every object by
    votes is written beside its silhouette as `<k>/<prompt>.png` there.

    Returns:
        `selections`, {selection: means}; `per_prompt`, {prompt: {selection: scores}, `impurity`, `hidden`,
        `found`}; `impurity` of all Gaussians, mean `hidden`, `found` of all pixels.
    """
    inside = centres_inside(run.gaussians, run.train_cameras, votes.ids)
    per_prompt: dict[str, dict[str, Any]] = {}
    counted = np.zeros((2, 2), np.int64)
    for prompt in sorted({piece.file.prompt for piece in truth}):
        pieces = [piece for piece in truth if piece.file.prompt == prompt]
        chosen = chosen_gaussians(run, votes, inside, ids.get(prompt, []))
        row: dict[str, Any] = {name: _mean(_scores(run, chosen[name], pieces)) for name in SELECTIONS}
        row["impurity"] = votes.impurity(chosen["votes"])
        row["hidden"], counts = _by_votes(run, votes, chosen["votes"], pieces)
        row["found"], counted = _found(counts), counted + counts
        per_prompt[prompt] = row
        if pictures is not None:
            write_pictures(pictures, run, chosen["votes"], pieces)
    rows = per_prompt.values()
    return {
        "selections": {
            name: {key: float(np.mean([row[name][key] for row in rows])) for key in KEYS}
            for name in SELECTIONS
        },
        "impurity": votes.impurity(),
        "hidden": float(np.mean([row["hidden"] for row in rows])),
        "found": _found(counted),
        "per_prompt": per_prompt,
    }


def _scores(run: TrainedRun, chosen: Tensor, pieces: Sequence[Silhouette]) -> Iterator[ExtractedScore]:
    for piece in pieces:
        alpha, _ = render_alone(run.gaussians, chosen, run.test_cameras[piece.file.view])
        free = piece.free & bool(chosen.any())  # where there is nothing, nothing is right
        yield score_silhouette(_at_size(alpha, piece.mask.shape), replace(piece, free=free))


def _mean(scores: Iterator[ExtractedScore]) -> dict[str, float]:
    rows = [asdict(score) for score in scores]
    return {key: float(np.mean([row[key] for row in rows])) for key in KEYS}


def _by_votes(
    run: TrainedRun, votes: Votes, chosen: Tensor, pieces: Sequence[Silhouette]
) -> tuple[float, NDArray[np.int64]]:
    """Share of the alpha of the chosen, rendered alone, that hidden Gaussians have, and `count_found`."""
    hidden = whole = 0.0
    counts = np.zeros((2, 2), np.int64)
    for piece in pieces:
        camera = run.test_cameras[piece.file.view]
        alpha, channels = render_alone(run.gaussians, chosen, camera, votes.hidden[:, None].float())
        hidden, whole = hidden + float(channels.sum()), whole + float(alpha.sum())
        counts += count_found(_at_size(alpha, piece.mask.shape), piece)
    return hidden / max(whole, 1.0), counts


def write_pictures(folder: Path, run: TrainedRun, chosen: Tensor, pieces: Sequence[Silhouette]) -> None:
    """Each view of an object alone, on black, beside its silhouette (white; grey: counts as right)."""
    model = run.gaussians
    alone = GaussianModel(model.max_sh_degree, model.device)
    alone.set_params(select(model.params, chosen))
    alone.active_sh_degree = model.active_sh_degree
    for piece in pieces:
        with torch.no_grad():
            colour = render(run.test_cameras[piece.file.view], alone)["render"].clamp(0, 1)  # (3, h, w)
        picture = np.stack([_at_size(channel, piece.mask.shape) for channel in colour], 2)  # (H, W, 3)
        truth = np.where(piece.free, 0.5, piece.mask.astype(np.float32))[..., None].repeat(3, 2)
        pixels = np.rint(255 * np.concatenate([picture, truth], 1)).astype(np.uint8)
        write_png(folder / str(piece.file.view) / f"{piece.file.prompt}.png", Image.fromarray(pixels))


def clear_pictures(folder: Path) -> None:
    """Removes those of an earlier evaluation."""
    for stale in filter(is_mask, list(folder.glob("*/*"))):
        stale.unlink()


def markdown(record: Mapping[str, Any], title: str) -> str:
    """The record as a Markdown page: means by selection, then every prompt."""
    lines = [f"# {title}", "", f"Truth: {KINDS[record['truth']]}.", ""]
    lines += ["| Gaussians by | IoU | boundary IoU | strict | spill |", "|---|---|---|---|---|"]
    for name, means in record["selections"].items():
        lines.append(f"| {name} | " + " | ".join(f"{means[key]:.3f}" for key in KEYS) + " |")
    found = record["found"]
    lines += [
        "",
        f"Of the silhouettes, by votes, {found['shown']:.1%} is there where the view shows it, and "
        f"{found['behind']:.1%} of what is behind something else ({found['share_behind']:.0%} of all).",
        "",
        f"Impurity {record['impurity']:.3f}, hidden {record['hidden']:.3f}; votes: {record['votes_from']}.",
        "",
        "| prompt | ids | "
        + " | ".join(f"IoU {name} | spill" for name in SELECTIONS)
        + " | impurity | hidden |",
        "|---|---|" + "---|" * (2 * len(SELECTIONS) + 2),
    ]
    for prompt, row in record["per_prompt"].items():
        scores = " | ".join(f"{row[name]['iou']:.3f} | {row[name]['spill']:.2f}" for name in SELECTIONS)
        ids = " ".join(map(str, record["ids"].get(prompt, [])))
        lines.append(f"| {prompt} | {ids} | {scores} | {row['impurity']:.3f} | {row['hidden']:.3f} |")
    return "\n".join([*lines, "", f"Ids: {record['ids_source']}.", ""])
