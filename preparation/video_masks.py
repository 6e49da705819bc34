"""Objects tracked through the views, in the order of their names, by SAM 2's video model.

Every `interval`-th view is a key frame. There, automatic masks meet the propagated ones: at an IoU above
`SAME` they are one object, which takes the new mask; where more than `NEW` of a mask is covered by none, it
is a new object. From a key frame to the next all objects are propagated in a session of their own, so that
memory does not grow with the number of views. An object that the key frame does not show is prompted with
the earlier view that showed most of it, and so keeps its id when it comes back.

Ids are written view by view; the files are all that a later call needs to go on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from preparation.segment_folder import SegmentFolder
from pretrained.loading import load_pretrained, require_transformers
from pretrained.sam import HUB, PromptedModel, automatic_masks, load_sam, model_input, paint
from scene.masks import read_id_map
from scene.views import CameraInfo
from utils.image import read_pixels
from utils.log import bar

SAME = 0.5  # IoU above which an automatic mask and a propagated one are one object
NEW = 0.5  # share of a mask that no object may cover, for it to be a new one


@dataclass(frozen=True)
class Tracker:
    """SAM 2's two models of one set of weights: of single images and of videos."""

    automatic: PromptedModel
    video: Any
    device: torch.device


def load_tracker(weights: str, device: torch.device) -> Tracker:
    """SAM 2 from a local folder or the hub.

    Raises:
        UserError: transformers or the weights are missing; the message says what to fetch.
    """
    loader = require_transformers().Sam2VideoModel
    video = load_pretrained(loader, weights or HUB["sam2"], "--weights", HUB["sam2"])
    return Tracker(load_sam("sam2", weights, device), video.to(device).eval(), device)


def track_objects(
    folder: SegmentFolder,
    views: Sequence[CameraInfo],
    weights: str,
    interval: int,
    device: torch.device,
) -> dict[str, Path]:
    """View name -> id map with ids that hold for all views."""
    paths = [folder.path(view) for view in views]
    if not all(path.is_file() for path in paths):
        tracker = load_tracker(weights, device)
        best: dict[int, tuple[int, int]] = {}  # id -> most pixels of it in one view, and that view
        keys = [*range(0, len(views) - 1, interval), len(views) - 1]
        for first, last in bar(list(zip([0, *keys], keys, strict=False)), "Tracking"):
            if not all(path.is_file() for path in paths[first : last + 1]):
                _track_interval(tracker, folder, views, (first, last), best)
            for index in range(first, last + 1):
                ids, pixels = np.unique(read_id_map(paths[index]), return_counts=True)
                for identity, count in zip(ids.tolist(), pixels.tolist(), strict=True):
                    if identity:
                        best[identity] = max(best.get(identity, (0, 0)), (count, index))
    return {view.image_name: path for view, path in zip(views, paths, strict=True)}


def _track_interval(
    tracker: Tracker,
    folder: SegmentFolder,
    views: Sequence[CameraInfo],
    interval: tuple[int, int],
    best: Mapping[int, tuple[int, int]],
) -> None:
    """Writes the id maps of the views after key frame `interval[0]`, up to key frame `interval[1]`."""
    first, last = interval
    masks: dict[int, np.ndarray] = {}
    if last > first:
        present = set(np.unique(read_id_map(folder.path(views[first]))).tolist())
        prompts = {identity: first if identity in present else index for identity, (_, index) in best.items()}
        for index, masks, shape in _propagate(tracker, folder, views, interval, prompts):
            if index < last:
                folder.write(views[index], paint(list(masks.values()), list(masks), shape))
    image = read_pixels(views[last].image_path)
    matched = match(masks, automatic_masks(tracker.automatic, image), next_id=max(best, default=0) + 1)
    folder.write(views[last], paint(list(matched.values()), list(matched), image.shape))


@torch.no_grad()
def _propagate(
    tracker: Tracker,
    folder: SegmentFolder,
    views: Sequence[CameraInfo],
    interval: tuple[int, int],
    prompts: Mapping[int, int],
) -> Iterator[tuple[int, dict[int, np.ndarray], tuple[int, ...]]]:
    """Views after `interval[0]` up to `interval[1]`: index, id -> mask (H,W) of what is seen, image shape.

    `prompts` names, for every object, the earlier view whose mask it starts from.
    """
    first, last = interval
    session = require_transformers().Sam2VideoInferenceSession(
        video=None,
        inference_device=tracker.device,
        inference_state_device=tracker.device,
        dtype=torch.float32,
    )
    size = tracker.automatic.size
    for index in sorted({*prompts.values(), *range(first, last + 1)}):
        image = read_pixels(views[index].image_path)
        frame = session.add_new_frame(model_input(image, size, (size, size))[0].to(tracker.device))
        starting = [identity for identity, view in prompts.items() if view == index]
        ids = read_id_map(folder.path(views[index])) if starting else np.empty(0)
        for identity in starting:
            mask = torch.from_numpy((ids == identity).astype(np.float32))[None, None]
            session.add_mask_inputs(session.obj_id_to_idx(identity), frame, mask)
        # Objects that start later are not known to the session yet: prompted too early, one has no mask.
        session.obj_with_new_inputs = list(starting)
        logits = tracker.video(session, frame_idx=frame).pred_masks if session.obj_ids else []  # (K, 1, h, w)
        if index > first:
            shape = image.shape
            masks = {
                identity: functional.interpolate(one[None], shape[:2], mode="bilinear")[0, 0].cpu().numpy()
                > 0
                for identity, one in zip(session.obj_ids, logits, strict=True)
            }
            yield index, {identity: mask for identity, mask in masks.items() if mask.any()}, shape


def match(
    tracked: Mapping[int, np.ndarray], automatic: Sequence[np.ndarray] | np.ndarray, next_id: int
) -> dict[int, np.ndarray]:
    """Id -> mask (H,W) of a key frame: tracked objects, with the masks that match them, and new ones."""
    result, unmatched = dict(tracked), dict(tracked)
    covered = np.any(list(tracked.values()), axis=0) if tracked else np.zeros((), dtype=bool)
    for mask in automatic:
        overlap = {
            identity: (mask & old).sum() / max(1, (mask | old).sum()) for identity, old in unmatched.items()
        }
        identity = max(overlap, key=overlap.__getitem__, default=None)
        if identity is not None and overlap[identity] > SAME:
            del unmatched[identity]
        elif (mask & ~covered).sum() > NEW * mask.sum():
            identity, next_id = next_id, next_id + 1
        else:
            continue
        result[identity] = mask
    return result
