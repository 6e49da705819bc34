"""Edits scored against the truth: what the test views look like after an object was really taken away or
moved.

`<scene>/edits/<name>/` holds `edit.json` (the operation, in the scene's own frame), `images/` and `ids/` of
the test views after it, and for removals `images_lit_as_before/`: the object hidden from the camera alone, so
that its shadow stays, as it does in a model whose colours are baked. The *changed region* of a view is where
`ids/` differs from the exact ids before the edit, dilated by 2% of the image's diagonal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor

from gaussian_renderer import render
from gradiseg.classifier import identify, map_encodings
from gradiseg.editing.baking import coverage
from gradiseg.editing.document import operation_of
from gradiseg.editing.operations import Operation
from gradiseg.evaluation.images import PairMetric
from gradiseg.evaluation.metrics import BoolArray, boundary_dilation, score_mask
from gradiseg.labelled import LabelledModel
from scene.cameras import Camera
from scene.masks import read_id_map
from utils.errors import UserError
from utils.image import read_image
from utils.json_files import read_json

EDITS, BEFORE = "edits", "object_mask_exact"
IMAGES, LIT_AS_BEFORE, IDS = "images", "images_lit_as_before", "ids"
NOT_OPERATION = ("id", "prompt")  # of edit.json, beside the fields of the operation


@dataclass(frozen=True)
class TrueEdit:
    """One folder of `edits/`."""

    folder: Path
    operation: Operation
    id: int  # of the object
    removes: bool


@dataclass(frozen=True)
class EditScore:
    """Scores of one edit, means over the test views.

    miou, mbiou, mbiou_strict: of the masks of all ids, by argmax; `..._before`: the same of the model as it
    was. psnr_inside, psnr_outside (dB): of the changed region, and of the rest, against the true pictures;
    `_lit`: against those with the light as before; `psnr_outside_before`: of the model as it was.
    `lpips_inside`: of the region, the rest taken from the true picture; None unless asked for.
    `pixels_left`: of the id of an object that was removed, over all views.
    """

    miou: float | None
    mbiou: float | None
    mbiou_strict: float | None
    miou_before: float | None
    mbiou_before: float | None
    mbiou_strict_before: float | None
    psnr_inside: float | None
    psnr_outside: float | None
    psnr_outside_before: float | None
    psnr_inside_lit: float | None
    psnr_outside_lit: float | None
    pixels_left: float | None
    lpips_inside: float | None = None


def list_edits(scene: Path) -> list[TrueEdit]:
    """The edits of a scene in order of their names.

    Raises:
        UserError: there is none, or an `edit.json` that describes no operation.
    """
    found = []
    for folder in sorted(path.parent for path in (scene / EDITS).glob("*/edit.json")):
        record = read_json(folder / "edit.json")
        fields = {key: value for key, value in record.items() if key not in NOT_OPERATION}
        operation = operation_of({**fields, "select": record["id"]}, str(folder / "edit.json"))
        found.append(TrueEdit(folder, operation, record["id"], record["operation"] == "remove"))
    if not found:
        raise UserError(f"{scene / EDITS}: no folder with an edit.json. Name a scene that has true edits.")
    return found


@torch.no_grad()
def draw(model: LabelledModel, camera: Camera, background: Tensor) -> tuple[Tensor, np.ndarray]:
    """Picture (3, H, W), clamped to [0, 1], and ids (H, W) of a view."""
    drawn = render(camera, model.model(), bg_color=background)
    ids = identify(map_encodings(drawn["render_object"]), model.classifier())
    return drawn["render"].clamp(0, 1).cpu(), ids.cpu().numpy()


def score_edit(
    edit: TrueEdit,
    scene: Path,
    before: LabelledModel,
    after: LabelledModel,
    cameras: Sequence[Camera],
    background: Tensor,
    lpips: PairMetric | None = None,
) -> EditScore:
    """Scores of the test views; cameras must be those that the pictures of `edits/` show."""
    views = [_score_view(edit, scene, before, after, camera, background, lpips) for camera in cameras]
    left = sum(view["pixels_left"] for view in views) if edit.removes else None
    return EditScore(**{**_means(views), "pixels_left": left})


def _score_view(
    edit: TrueEdit,
    scene: Path,
    before: LabelledModel,
    after: LabelledModel,
    camera: Camera,
    background: Tensor,
    lpips: PairMetric | None,
) -> dict[str, Any]:
    name = f"{camera.image_name}.png"
    ids_before, ids_after = read_id_map(scene / BEFORE / name), read_id_map(edit.folder / IDS / name)
    camera = camera.at_resolution(ids_after.shape[1], ids_after.shape[0])  # the truth's own size
    old, old_ids = draw(before, camera, background)
    new, new_ids = draw(after, camera, background)
    truth = _picture(edit.folder / IMAGES, camera.image_name)
    changed = changed_region(ids_before, ids_after)
    photograph = _picture(scene / IMAGES, camera.image_name)
    scores: dict[str, Any] = {
        **score_ids(new_ids, ids_after),
        **{f"{key}_before": value for key, value in score_ids(old_ids, ids_before).items()},
        "psnr_inside": masked_psnr(new, truth, changed),
        "psnr_outside": masked_psnr(new, truth, ~changed),
        "psnr_outside_before": masked_psnr(old, photograph, ~changed),
        "psnr_inside_lit": None,
        "psnr_outside_lit": None,
        "pixels_left": int((new_ids == edit.id).sum()) if edit.removes else None,
        "lpips_inside": lpips(torch.where(torch.from_numpy(changed), new, truth), truth) if lpips else None,
    }
    if (edit.folder / LIT_AS_BEFORE).is_dir():
        lit = _picture(edit.folder / LIT_AS_BEFORE, camera.image_name)
        scores["psnr_inside_lit"] = masked_psnr(new, lit, changed)
        scores["psnr_outside_lit"] = masked_psnr(new, lit, ~changed)
    return scores


def changed_region(ids_before: np.ndarray, ids_after: np.ndarray) -> BoolArray:
    """Where exact ids (H, W) differ, dilated by 2% of the image's diagonal."""
    radius = boundary_dilation(*ids_after.shape)
    return binary_dilation(ids_before != ids_after, np.ones((3, 3), bool), radius)


def score_ids(ids: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Mean scores of the masks of all true ids but 0, of ids (H, W) of one view; None where it shows none."""
    scores = [score_mask(ids == id, truth == id) for id in np.unique(truth) if id]
    keys = {"miou": "iou", "mbiou": "biou", "mbiou_strict": "biou_strict"}
    if not scores:
        return dict.fromkeys(keys)
    return {name: fmean(asdict(score)[key] for score in scores) for name, key in keys.items()}


def masked_psnr(image: Tensor, target: Tensor, mask: BoolArray) -> float | None:
    """PSNR (dB) of the pixels of a mask (H, W); None where it is empty."""
    chosen = torch.from_numpy(mask)
    if not bool(chosen.any()):
        return None
    error = (image - target)[:, chosen].square().mean().clamp_min(1e-12)
    return float(-10 * torch.log10(error))


def _picture(folder: Path, name: str) -> Tensor:
    found = sorted(folder.glob(f"{name}.*"))
    if not found:
        raise UserError(f"{folder / name}: no such picture. The run's test views must be the scene's.")
    return read_image(found[0])


def markdown(scores: Mapping[str, EditScore]) -> str:
    """A table with a row for each edit and one for their mean."""
    heads = ("edit", "mIoU", "mBIoU", "strict", "PSNR inside", "outside", "lit as before", "id left")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, score in scores.items():
        lines.append(f"| {name} | " + " | ".join(_cells(score)) + " |")
    if len(scores) > 1:
        lines.append("| mean | " + " | ".join(_cells(mean_score(list(scores.values())))) + " |")
    return "\n".join([*lines, "", "In brackets: the model as it was, against the scene as it was.", ""])


@dataclass(frozen=True)
class Reach:
    """How far recolouring or restyling reaches: mean absolute differences of colours in [0, 1] over views.

    `inside` the mask of what was selected (pixels that are more than half its own), `outside` of the mask
    dilated by 2% of the image's diagonal, `outside_most` in the view where it is largest.
    """

    inside: float
    outside: float
    outside_most: float


def reach_of(
    before: LabelledModel,
    after: LabelledModel,
    chosen: Tensor,
    cameras: Sequence[Camera],
    background: Tensor,
) -> Reach | None:
    """The reach of an edit of the colours of the Gaussians `chosen` (N,); None if no view shows them."""
    inside, outside = [], []
    for camera in cameras:
        mask = (coverage(before, chosen, camera) > 0.5).cpu().numpy()
        if not mask.any():
            continue
        near = binary_dilation(mask, np.ones((3, 3), bool), boundary_dilation(*mask.shape))
        pictures = (draw(model, camera, background)[0] for model in (before, after))
        difference = torch.sub(*pictures).abs().mean(0)  # (H, W)
        inside.append(float(difference[torch.from_numpy(mask)].mean()))
        outside.append(float(difference[torch.from_numpy(~near)].mean()))
    return Reach(fmean(inside), fmean(outside), max(outside)) if inside else None


def mean_score(scores: Sequence[EditScore]) -> EditScore:
    """Means over edits, of the scores that each has."""
    return EditScore(**_means([asdict(score) for score in scores]))


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of the columns, over the rows that are not None; None where all are."""
    columns = {key: [row[key] for row in rows if row[key] is not None] for key in rows[0]}
    return {key: fmean(values) if values else None for key, values in columns.items()}


def _cells(score: EditScore) -> list[str]:
    lit = score.psnr_outside_lit
    left = score.pixels_left
    return [
        f"{_number(score.miou, 3)} ({_number(score.miou_before, 3)})",
        f"{_number(score.mbiou, 3)} ({_number(score.mbiou_before, 3)})",
        f"{_number(score.mbiou_strict, 3)} ({_number(score.mbiou_strict_before, 3)})",
        _number(score.psnr_inside, 2),
        f"{_number(score.psnr_outside, 2)} ({_number(score.psnr_outside_before, 2)})",
        "" if lit is None else f"{_number(score.psnr_inside_lit, 2)} / {_number(lit, 2)}",
        "" if left is None else f"{left:g}",
    ]


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
