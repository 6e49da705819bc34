"""SAM and SAM 2 as segmenters: a grid of point prompts, the good masks among the answers, painted over.

The rules are those of SAM's automatic mask generator (Kirillov et al., "Segment Anything", ICCV 2023,
appendix B): masks that the model itself scores low, or that change much with the threshold, go; of two that
overlap the better one stays. Shapes: P prompts, three answers each, K masks, logits of height h and width w.
Models come from `transformers`; pictures are prepared here, because its image processors want torchvision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pretrained.loading import load_pretrained, require_transformers

HUB = {"sam": "facebook/sam-vit-base", "sam2": "facebook/sam2.1-hiera-small"}
MODEL = {"sam": "SamModel", "sam2": "Sam2Model"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the colours both were trained with
GRID = 32  # points per side
BATCH = 64  # points prompted at a time
MIN_SCORE = {"sam": 0.88, "sam2": 0.8}  # IoU that the model expects of its own mask
MIN_STABILITY = 0.95  # IoU of the masks at logits above 1 and above -1
MAX_OVERLAP = 0.7  # IoU above which two masks are one
MIN_AREA = 1e-4  # of the image; smaller masks are specks


@dataclass(frozen=True)
class PromptedModel:
    """SAM (the longest side scaled to `size`, padded) or SAM 2 (both sides scaled to `size`)."""

    model: Any
    kind: str
    size: int
    device: torch.device

    def extent(self, image: np.ndarray) -> tuple[int, int]:
        """Height and width that an image takes of the model's square."""
        if self.kind == "sam2":
            return self.size, self.size
        height, width = (round(side * self.size / max(image.shape[:2])) for side in image.shape[:2])
        return height, width

    @torch.no_grad()
    def answers(self, image: np.ndarray, points: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (3P,h,w) of the masks at `points` (P,2), shares of width and height, and scores (3P,).

        A batch at a time. The logits cover the image, no padding.
        """
        height, width = self.extent(image)
        pixels = model_input(image, self.size, (height, width)).to(self.device)
        embeddings = self.model.get_image_embeddings(pixels)
        for start in range(0, len(points), BATCH):
            prompts = (
                torch.from_numpy(points[start : start + BATCH] * (width, height)).float().to(self.device)
            )
            answer = self.model(
                image_embeddings=embeddings,
                input_points=prompts[None, :, None],  # (1, P, 1, 2)
                input_labels=torch.ones(1, len(prompts), 1, dtype=torch.int, device=self.device),
                multimask_output=True,
            )
            logits = answer.pred_masks[0].flatten(0, 1)  # (3P, h, w) of the square
            rows, columns = (round(side * logits.shape[-1] / self.size) for side in (height, width))
            yield logits[:, :rows, :columns], answer.iou_scores[0].flatten()


def load_sam(kind: str, weights: str, device: torch.device) -> PromptedModel:
    """SAM ("sam") or SAM 2 ("sam2") from a local folder or the hub.

    Raises:
        UserError: transformers or the weights are missing; the message says what to fetch.
    """
    loader = getattr(require_transformers(), MODEL[kind])
    model = load_pretrained(loader, weights or HUB[kind], "--weights", HUB[kind]).to(device).eval()
    return PromptedModel(model, kind, model.config.prompt_encoder_config.image_size, device)


def model_input(image: np.ndarray, size: int, extent: tuple[int, int]) -> Tensor:
    """An image (H,W,3) uint8 as (1,3,size,size): scaled to `extent`, normalised, padded with 0."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0
    pixels = functional.interpolate(pixels, extent, mode="bilinear", antialias=True)
    pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return functional.pad(pixels, (0, size - extent[1], 0, size - extent[0]))


def automatic_masks(sam: PromptedModel, image: np.ndarray) -> np.ndarray:
    """Masks (K,H,W) bool of everything in an image (H,W,3) uint8, the largest first."""
    axis = (np.arange(GRID) + 0.5) / GRID
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    logits, scores = [], []
    for answer, score in sam.answers(image, grid):
        good = (score > MIN_SCORE[sam.kind]) & (_stability(answer) > MIN_STABILITY)
        logits.append(answer[good].cpu())
        scores.append(score[good].cpu())
    candidates = torch.cat(logits)
    candidates = candidates[distinct(candidates > 0, torch.cat(scores))]
    masks = [
        functional.interpolate(one[None, None], image.shape[:2], mode="bilinear")[0, 0].numpy() > 0
        for one in candidates
    ]
    masks = [mask for mask in masks if mask.sum() > MIN_AREA * mask.size]
    masks.sort(key=lambda mask: -int(mask.sum()))
    return np.array(masks, dtype=bool).reshape(-1, *image.shape[:2])


def _stability(logits: Tensor) -> Tensor:
    """IoU (K,) of the masks at logits (K,h,w) above 1 and above -1; 0 where there is no mask."""
    return (logits > 1).sum(dim=(1, 2)) / (logits > -1).sum(dim=(1, 2)).clamp_min(1)


def distinct(masks: Tensor, scores: Tensor) -> Tensor:
    """Indices of the masks (K,h,w) that no mask of a higher score overlaps by more than MAX_OVERLAP."""
    flat = masks[:, ::2, ::2].flatten(1).float()  # a quarter of the pixels is enough for overlaps
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        both = flat[left] @ flat[best]
        overlap = both / (flat[left].sum(dim=1) + flat[best].sum() - both).clamp_min(1)
        left = left[overlap <= MAX_OVERLAP]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.long)


def paint(masks: Sequence[np.ndarray] | np.ndarray, ids: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    """Id map (H,W) int32: masks (H,W) painted by descending area, so that small ones lie on large ones."""
    canvas = np.zeros(shape[:2], dtype=np.int32)
    for index in sorted(range(len(masks)), key=lambda k: -int(masks[k].sum())):
        canvas[masks[index]] = ids[index]
    return canvas


@torch.no_grad()
def segment_prompted(
    sam: PromptedModel, image: np.ndarray, points: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """What the points (K,2) in pixels of an image (H,W,3) uint8 mean together, as a mask (H,W) bool: of the
    three answers the one that the model scores best. `labels` (K,) bool: which of them are on the object.
    """
    height, width = sam.extent(image)
    scale = np.array([width / image.shape[1], height / image.shape[0]])
    answer = sam.model(
        pixel_values=model_input(image, sam.size, (height, width)).to(sam.device),
        input_points=torch.from_numpy(points * scale).float()[None, None].to(sam.device),  # (1, 1, K, 2)
        input_labels=torch.from_numpy(labels).int()[None, None].to(sam.device),
        multimask_output=True,
    )
    logits = answer.pred_masks[0, 0, int(answer.iou_scores[0, 0].argmax())]  # (h, w) of the square
    rows, columns = (round(side * logits.shape[-1] / sam.size) for side in (height, width))
    whole = functional.interpolate(logits[None, None, :rows, :columns], image.shape[:2], mode="bilinear")
    mask: np.ndarray = (whole[0, 0] > 0).cpu().numpy()
    return mask


def segment_everything(sam: PromptedModel, image: np.ndarray) -> np.ndarray:
    """Segments (H,W) int32 of an image (H,W,3) uint8: its automatic masks, painted; 0 = none."""
    masks = automatic_masks(sam, image)
    return paint(masks, range(1, len(masks) + 1), image.shape)
