"""Predicts the masks of prompts in the test views and scores them against `test_mask/<view>/<prompt>.png`.

Naming contract: `truth` are the ground-truth files, `ids` an assignment `{prompt: [ids]}`, `rule` one of
`RULES`. Folder `k` of `test_mask` is the k-th test view in name order. Masks are predicted at the ground
truth's own resolution, because resizing a mask by half a pixel costs more than most methods gain.
Masks are 0/255 PNGs and belong to the object where they exceed 128, as in Gaussian Grouping; unlike there,
a missing prediction counts 0.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gaussian_renderer import IdentityRenderer
from gradiseg.classifier import classify, identify, map_encodings
from gradiseg.evaluation.ids import Assignment, Overlap, best_ids
from gradiseg.evaluation.metrics import ZERO_SCORE, BoolArray, MaskScore, score_mask
from scene.cameras import Camera
from scene.masks import resize_id_map
from scene.names import without_folders
from utils.errors import UserError
from utils.image import image_size, open_image, write_png

# The rule is worth as much as a method (seven points of mIoU on noisy masks), so all three are reported.
RULES: dict[str, float | None] = {"softmax>0.2": 0.2, "softmax>0.5": 0.5, "argmax": None}
DEFAULT_RULE = "softmax>0.2"
MASK_THRESHOLD = 128
MASK_SUFFIXES = (".png", ".jpg", ".jpeg")

MaskKey = tuple[int, str]  # (view index, prompt)


@dataclass(frozen=True)
class TruthMask:
    """One ground-truth file: the mask of `prompt` in the test view number `view`."""

    path: Path
    folder: str
    view: int
    prompt: str

    @property
    def name(self) -> str:
        """Its name in reports: folder/prompt."""
        return f"{self.folder}/{self.prompt}"


def list_truth(test_mask: Path, view_names: Sequence[str] | None = None) -> list[TruthMask]:
    """All ground-truth files below `test_mask/`, ordered by view and prompt.

    A folder is named after its test view or by the view's number k in name order; names win where every
    folder is a view's. A view's own folders are left out. Without `view_names` (no model), folders that are
    no numbers count in order.

    Raises:
        UserError: no masks, a folder that stands for no test view, or masks of one view that differ in size.
    """
    folders = (
        sorted(entry.name for entry in test_mask.iterdir() if entry.is_dir() and entry.name[0] != ".")
        if test_mask.is_dir()
        else []
    )
    names = folders if view_names is None else without_folders(sorted(view_names))
    by_name = set(folders) <= set(names) and (view_names is not None or not all(map(str.isdecimal, folders)))
    truth = [
        TruthMask(
            path, folder, _view_number(test_mask, folder, names, by_name, view_names is not None), path.stem
        )
        for folder in folders
        for path in sorted(filter(is_mask, (test_mask / folder).iterdir()))
    ]
    if not truth:
        raise UserError(
            f"{test_mask}: no <view>/<prompt>.png there. Only scenes with true masks can be scored."
        )
    _check(truth)
    return sorted(truth, key=lambda mask: (mask.view, mask.prompt))


def _check(truth: Sequence[TruthMask]) -> None:
    """Raises where a mask is there twice, or masks of one view differ in size."""
    known: set[str] = set()
    sizes: dict[str, tuple[str, tuple[int, int]]] = {}
    for mask in truth:
        if mask.name in known:
            raise UserError(f"{mask.path}: a second mask of {mask.name} lies beside it. Leave one of them.")
        known.add(mask.name)
        size = image_size(mask.path)
        name, other = sizes.setdefault(mask.folder, (mask.name, size))
        if size != other:
            raise UserError(
                f"{mask.path}: {size[0]}x{size[1]} pixels, but {name} of the same view has "
                f"{other[0]}x{other[1]}. Bring them to one size."
            )


def is_mask(path: Path) -> bool:
    """Whether a file can be a true mask, by its name; Gaussian Grouping reads JPEGs too."""
    return path.suffix.lower() in MASK_SUFFIXES and not path.name.startswith(".")


def _view_number(test_mask: Path, folder: str, names: Sequence[str], by_name: bool, bounded: bool) -> int:
    if by_name:
        return names.index(folder)
    if not folder.isdecimal() or (bounded and int(folder) >= len(names)):
        raise UserError(
            f"{test_mask / folder}: neither the name of a test view nor its number; there are {len(names)}. "
            "Train with the split the masks belong to (--train_split or --eval)."
        )
    return int(folder)


def read_mask(path: Path) -> BoolArray:
    """Reads a picture of one object as a mask (H, W).

    Usual are 0 and 255. A picture of 0 and one darker value (1, say) means the same, and one of a single
    colour has its shape in its transparency.
    Raises:
        UserError: the file is no readable picture, or has several values but none above the threshold.
    """
    with open_image(path, "a mask") as file:
        if "A" in file.getbands() or "transparency" in file.info:
            pixels = np.asarray(file.convert("RGBA"))
            opaque: BoolArray = pixels[..., 3] > MASK_THRESHOLD
            if not opaque.all() and len(np.unique(pixels[opaque][:, :3], axis=0)) <= 1:
                return opaque
        grey = np.asarray(file if file.mode.startswith("I") else file.convert("L"))
    if (grey > MASK_THRESHOLD).any():
        bright: BoolArray = grey > MASK_THRESHOLD
        return bright
    if len(np.unique(grey[grey != 0])) > 1:
        raise UserError(
            f"{path}: values from {grey.min()} to {grey.max()}, none of which counts as the object (above "
            f"{MASK_THRESHOLD}). Write the object as 255 and the rest as 0."
        )
    dark: BoolArray = grey > 0
    return dark


def write_mask(path: Path, mask: BoolArray) -> None:
    """Writes a mask (H, W) as a 0/255 PNG."""
    write_png(path, Image.fromarray(mask.astype(np.uint8) * 255))


def apply_rules(features: Tensor, classifier: nn.Conv2d, ids: Assignment) -> dict[str, dict[str, BoolArray]]:
    """Masks of every prompt by every rule: `{rule: {prompt: (H, W)}}`.

    A pixel belongs to a prompt where any of its ids passes the rule; without ids the mask is empty.
    """
    flat = sorted({identity for chosen in ids.values() for identity in chosen})
    classified = classify(map_encodings(features), classifier, flat)
    masks: dict[str, dict[str, BoolArray]] = {rule: {} for rule in RULES}
    for prompt, chosen in ids.items():
        of_prompt = classified.probabilities[
            ..., [flat.index(identity) for identity in chosen]
        ]  # (H, W, ids)
        won = torch.isin(classified.ids, classified.ids.new_tensor(chosen))  # (H, W)
        for rule, threshold in RULES.items():
            passed = won if threshold is None else (of_prompt > threshold).any(-1)
            masks[rule][prompt] = passed.cpu().numpy()
    return masks


def predict_masks(
    cameras: Sequence[Camera],
    truth: Sequence[TruthMask],
    render_identity: IdentityRenderer,
    classifier: nn.Conv2d,
    ids: Assignment,
) -> dict[str, dict[MaskKey, BoolArray]]:
    """Predicts a mask for every true one whose prompt is in `ids`: `{rule: {(view, prompt): (H, W)}}`.

    Args:
        cameras: the test views in name order.
    """
    check_ids(ids, classifier)
    predictions: dict[str, dict[MaskKey, BoolArray]] = {rule: {} for rule in RULES}
    for view, features, files in _rendered(cameras, truth, render_identity):
        wanted = {mask.prompt: ids[mask.prompt] for mask in files if mask.prompt in ids}
        for rule, masks in apply_rules(features, classifier, wanted).items():
            predictions[rule].update({(view, prompt): mask for prompt, mask in masks.items()})
    return predictions


def ids_from_model(
    cameras: Sequence[Camera],
    truth: Sequence[TruthMask],
    render_identity: IdentityRenderer,
    classifier: nn.Conv2d,
) -> Assignment:
    """Oracle assignment where a scene has no exact training masks.

    For each prompt: the id whose argmax region best covers the ground truth, pooled over its test views.
    """
    overlaps = {mask.prompt: Overlap() for mask in truth}
    for _, features, files in _rendered(cameras, truth, render_identity):
        winners = identify(map_encodings(features), classifier).cpu().numpy()
        for mask in files:
            overlaps[mask.prompt].add(winners, read_mask(mask.path))
    return best_ids(overlaps)


def check_ids(ids: Assignment, classifier: nn.Conv2d) -> None:
    """Refuses ids that the classifier does not have.

    Raises:
        UserError: names the prompt, its id and the number of classes.
    """
    for prompt, chosen in ids.items():
        for identity in chosen:
            if identity >= classifier.out_channels:
                raise UserError(
                    f"prompt '{prompt}': id {identity} is not in the model, whose classifier has "
                    f"{classifier.out_channels} classes (0 to {classifier.out_channels - 1})."
                )


def _rendered(
    cameras: Sequence[Camera], truth: Sequence[TruthMask], render_identity: IdentityRenderer
) -> Iterable[tuple[int, Tensor, list[TruthMask]]]:
    """Each view with ground truth: its number, its identity map at the ground truth's size, its files.

    Rendered at the size that was trained and then interpolated: Gaussians are fitted to that size's pixels
    and the rasterizer's 0.3 px filter, and drawn finer, thin objects fall apart
    (docs/experiments/mask-size.md).
    """
    for view in sorted({mask.view for mask in truth}):
        files = [mask for mask in truth if mask.view == view]
        width, height = image_size(files[0].path)
        features = render_identity(cameras[view])  # (16, h, w)
        if features.shape[1:] != (height, width):
            features = interpolate(features[None], (height, width), mode="bilinear", antialias=True)[0]
        yield view, features, files


def write_predictions(folder: Path, masks: Mapping[MaskKey, BoolArray]) -> None:
    """Writes masks as `folder/<k>/<prompt>.png`, replacing those of an earlier evaluation."""
    for stale in list(folder.glob("*/*.png")):
        stale.unlink()
    for (view, prompt), mask in masks.items():
        write_mask(folder / str(view) / f"{prompt}.png", mask)


def read_prediction(folder: Path, mask: TruthMask) -> BoolArray | None:
    """The prediction that belongs to a ground-truth file, None where there is none.

    It is looked for under the ground truth's own folder name, then under k and under k with five digits.
    """
    for name in (mask.folder, str(mask.view), f"{mask.view:05d}"):
        for prompt in (mask.prompt, mask.prompt.replace(" ", "_"), mask.prompt.replace("_", " ")):
            path = folder / name / f"{prompt}.png"
            if path.is_file():
                return read_mask(path)
    return None


def score_masks(
    truth: Sequence[TruthMask], prediction_of: Callable[[TruthMask], BoolArray | None]
) -> dict[str, Any]:
    """Scores predictions: per prompt the mean over its views, then the mean over prompts.

    A prediction of another size is brought to the ground truth's over the same field of view, by area.

    Returns:
        `miou`, `mbiou`, `mbiou_strict`, `mband_error`; `per_prompt`, {prompt: its four scores, `views`};
        `missing`, the names of the ground-truth files without a prediction, each of which counts 0.
    """
    scores: dict[str, list[MaskScore]] = {}
    missing = []
    for mask in truth:
        prediction = prediction_of(mask)
        if prediction is None:
            missing.append(mask.name)
        score = ZERO_SCORE if prediction is None else _score_file(mask, prediction)
        scores.setdefault(mask.prompt, []).append(score)
    per_prompt = {prompt: _mean_scores(scores[prompt]) for prompt in sorted(scores)}
    means = {
        f"m{key}": float(np.mean([row[key] for row in per_prompt.values()]))
        for key in ("iou", "biou", "biou_strict", "band_error")
    }
    return means | {"per_prompt": per_prompt, "missing": missing}


def _score_file(mask: TruthMask, prediction: BoolArray) -> MaskScore:
    truth = read_mask(mask.path)
    if prediction.shape != truth.shape:
        prediction = resize_id_map(prediction.astype(np.uint8), truth.shape[1], truth.shape[0]) == 1
    return score_mask(prediction, truth)


def _mean_scores(scores: Sequence[MaskScore]) -> dict[str, Any]:
    rows = [asdict(score) for score in scores]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} | {"views": len(rows)}
