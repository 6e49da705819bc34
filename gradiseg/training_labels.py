"""The labels that train the identity, and their repair by what the views agree on.

Masks of a segment-and-track tool err view by view: an object is missed in one, half eaten in another, carries
a fresh id for a few frames, and every outline wobbles. A Gaussian has one identity encoding for all views, so
the rendered identity map shows what they agree on. Where it is sure of another id than a view's mask, the
mask is wrong more often than the render, and the pixel trains the render's id from then on. The photographs'
geometry decides where the outlines go, and Gaussians at a boundary are no longer pulled to and fro by masks
that disagree about it, which is what IGD takes for a Gaussian that lies across.

The masks on disk stay as they are; every repair starts from them and not from the repair before, so that an
early mistake of the model does not confirm itself.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gradiseg.classifier import IdentityClassifier
from scene.cameras import Camera

ROWS_PER_CHUNK = 1 << 16  # pixels classified at once: 64 MB of probabilities at 256 classes


class TrainingLabels:
    """Dense labels (H, W) of every training view, by the view's `uid`; see `IdentityClassifier.labels`."""

    def __init__(self, classifier: IdentityClassifier) -> None:
        self.classifier = classifier
        self._labels: dict[int, Tensor] = {}
        self._repaired: set[int] = set()

    def __call__(self, camera: Camera) -> Tensor:
        """The labels that a view trains; it must have a mask."""
        if camera.uid not in self._labels:
            self._labels[camera.uid] = self._from_mask(camera)
        return self._labels[camera.uid]

    @torch.no_grad()
    def repair(
        self, cameras: Iterable[Camera], render_identity: Callable[[Camera], Tensor], confidence: float
    ) -> float:
        """Take the id that the model renders with a probability above `confidence` over that of the mask.

        render_identity: identity map (16, H, W) of a view. Views without a mask stay without.

        Returns: the share of the masks' pixels that now differ from them.
        """
        changed = total = 0
        for camera in cameras:
            if camera.objects is None:
                continue
            mask = self._from_mask(camera)
            best, sure = self._most_probable(render_identity(camera), confidence)
            labels = torch.where(sure, best.to(mask.dtype), mask)  # (H, W)
            self._labels[camera.uid] = labels
            self._repaired.add(camera.uid)
            changed += int((labels != mask).sum())
            total += mask.numel()
        return changed / max(total, 1)

    def state_dict(self) -> dict[int, Tensor]:
        """The repaired labels by `uid`; the others follow from the masks."""
        return {uid: self._labels[uid] for uid in sorted(self._repaired)}

    def load_state_dict(self, state: dict[int, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        device = self.classifier.weight.device
        self._labels = {uid: labels.to(device) for uid, labels in state.items()}
        self._repaired = set(state)

    def _from_mask(self, camera: Camera) -> Tensor:
        assert camera.objects is not None
        labels = self.classifier.labels(camera.objects)
        return labels.to(torch.int16 if self.classifier.class_ids.numel() < 2**15 else torch.int32)

    def _most_probable(self, identity_map: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
        """The most probable label (H, W) of an identity map, and where its probability exceeds `confidence`."""
        encodings = identity_map.flatten(1).T  # (H W, 16)
        parts = [torch.softmax(self.classifier(rows), 1).max(1) for rows in encodings.split(ROWS_PER_CHUNK)]
        probability, label = (torch.cat(column) for column in zip(*parts, strict=True))
        shape = identity_map.shape[1:]
        return label.view(shape), probability.view(shape) > confidence
