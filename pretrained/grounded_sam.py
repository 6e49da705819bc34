"""Grounding DINO and SAM through `transformers`: words -> boxes -> a mask in one picture.

As in Gaussian Grouping: every box whose best score for the words exceeds the threshold goes to SAM, and the
object is the union of their masks. The image processors are those that need no torchvision.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrained.loading import load_pretrained, require_transformers

DETECTOR = "IDEA-Research/grounding-dino-base"  # Gaussian Grouping's: Swin-B
SEGMENTER = "facebook/sam-vit-huge"  # Gaussian Grouping's: ViT-H
TEXT_THRESHOLD = 0.45  # Gaussian Grouping's; decides which words label a box, not which boxes there are


class GroundedSam:
    """Both models, loaded once."""

    def __init__(self, detector: str, segmenter: str, box_threshold: float, device: torch.device) -> None:
        models = require_transformers()
        self.box_threshold = box_threshold
        self.device = device

        def load(name: str, classes: Sequence[str], flag: str, example: str) -> list[Any]:
            return [load_pretrained(getattr(models, kind), name, flag, example) for kind in classes]

        dino = ("GroundingDinoForObjectDetection", "GroundingDinoImageProcessorPil", "AutoTokenizer")
        self.detector, images, words = load(detector, dino, "--detector", DETECTOR)
        self.detector_inputs = models.GroundingDinoProcessor(images, words)
        sam = ("SamModel", "SamImageProcessorPil")
        self.segmenter, images = load(segmenter, sam, "--segmenter", SEGMENTER)
        self.segmenter_inputs = models.SamProcessor(images)
        for model in (self.detector, self.segmenter):
            model.to(device).eval()

    def mark(self, picture: NDArray[np.uint8], prompts: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
        """The mask (H, W) of every prompt in a picture (H, W, 3); empty where no box is found."""
        boxes = {prompt: self.find_boxes(picture, prompt) for prompt in prompts}
        found = [prompt for prompt in prompts if len(boxes[prompt])]
        marks = dict.fromkeys(prompts, np.zeros(picture.shape[:2], bool))
        return marks | self.segment(picture, {prompt: boxes[prompt] for prompt in found})

    @torch.no_grad()
    def find_boxes(self, picture: NDArray[np.uint8], prompt: str) -> Tensor:
        """Boxes (B, 4) of a prompt in pixels: left, top, right, bottom."""
        text = prompt.strip().rstrip(".").lower() + "."  # the form that it was trained on
        inputs = self.detector_inputs(images=picture, text=text, return_tensors="pt").to(self.device)
        found = self.detector_inputs.post_process_grounded_object_detection(
            self.detector(**inputs),
            inputs.input_ids,
            threshold=self.box_threshold,
            text_threshold=TEXT_THRESHOLD,
            target_sizes=[picture.shape[:2]],
        )
        boxes: Tensor = found[0]["boxes"]
        return boxes.cpu()

    @torch.no_grad()
    def segment(self, picture: NDArray[np.uint8], boxes: dict[str, Tensor]) -> dict[str, NDArray[np.bool_]]:
        """For every prompt the union of the masks of its boxes. The picture is encoded once for all."""
        marks, embeddings = {}, None
        for prompt, found in boxes.items():
            inputs = self.segmenter_inputs(picture, input_boxes=[found.tolist()], return_tensors="pt")
            if embeddings is None:
                pixels = inputs["pixel_values"].to(self.device)
                embeddings = self.segmenter.get_image_embeddings(pixels)
            output = self.segmenter(
                image_embeddings=embeddings,
                input_boxes=inputs["input_boxes"].to(self.device, torch.float32),
                multimask_output=False,
            )
            masks = self.segmenter_inputs.post_process_masks(
                output.pred_masks.cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"]
            )[0]  # (B, 1, H, W)
            marks[prompt] = masks.any(dim=0)[0].numpy()
        return marks
