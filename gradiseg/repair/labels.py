"""The labels that train the identity, and their repair by what the views agree on.

Masks of a segment-and-track tool err view by view: an object is missed in one, half eaten in another, carries
a fresh id for a few frames, and every outline wobbles. A Gaussian has one identity encoding for all views, so
the rendered identity map shows what they agree on. A repair takes its word where it clearly contradicts a
mask, before IGD looks at gradients: masks that disagree about a boundary raise them as well as Gaussians
that lie across it.

p(c) is the probability of label c at a pixel of the rendered map; a(c, d) the mean of p(d) over all pixels
that the masks label c, and a(c, c) the *confidence* of c. The masks catch a thin object only in part, so that
the model is never as sure of it as of a table, and comparing p(c) alone would give the object to the table.
So, as in confident learning (Northcutt et al., JAIR 2021), labels compete by p(c) / a(c, c). A label whose
own pixels the model takes for another at least twice as often (a fresh id, a hole) has no support: it loses
all. Elsewhere a mask's label changes where the best one beats it by the factor `margin`; nearer to a draw the
model is as likely to be wrong as the masks, and they stay. Pixels without an object compete by p(0) if the
model is mostly sure of them; else they are gaps in and between objects, and lose all.

A tracker that loses an object for long gives it a second id, and the model learns both: one for the side of
the object that was seen then, one for the rest. Two labels are *aliases* of one object if no view has both
and what the model takes for the one, in views that lack it, mostly carries the other. They count as one.

The masks on disk are not touched; every repair starts from them and not from the repair before, so that an
early mistake of the model does not confirm itself.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gaussian_renderer import IdentityRenderer
from gradiseg.classifier import IGNORED, UNLABELLED, IdentityClassifier, logit_chunks
from gradiseg.repair.outlines import OutlineProfiles, move_outlines, pixels_per_step
from scene.cameras import Camera
from utils.log import bar

RIVALRY = 2.0  # how much more probable than itself another label makes a label unsupported
MIN_CONFIDENCE = 0.3  # a label below competes as if at it: dividing by less would raise noise to a rival
ALIAS_SHARE = 0.5  # of what a label's pixels carry in views without it: so much must be one other label
ALIAS_EVIDENCE = 0.02  # of all that the model takes for a label: so much must lie in views without it
UNLABELLED_CONFIDENCE = 0.5  # below it they are gaps in and between objects, not a region of the scene
GOLDEN_RATIO = 0.618034
STRIDE = 2  # the mean probabilities are taken over every second row and column


class TrainingLabels:
    """Dense labels (H, W) of every training view, by the view's `uid`; see `IdentityClassifier.labels`."""

    def __init__(self, classifier: IdentityClassifier) -> None:
        self.classifier = classifier
        self._of_masks = WeakTensorKeyDictionary()  # labels by id map, while the map is in memory
        self._corrected: dict[int, Tensor] = {}  # by `uid`: the masks with their outlines corrected
        self._repaired: dict[int, Tensor] = {}  # by `uid`

    def __call__(self, camera: Camera) -> Tensor:
        """The labels that a view trains; it must have a mask."""
        repaired = self._repaired.get(camera.uid)
        return self._of_mask(camera) if repaired is None else repaired

    @torch.no_grad()
    def correct_outlines(self, cameras: Sequence[Camera]) -> OutlineProfiles:
        """Move the masks' outlines to where the photographs change; see `gradiseg.repair.outlines`.

        Once, before training, and by offsets from the masks: offsets from the outlines that a model
        learned would add up from repair to repair, their errors as well.
        Returns: what was measured.
        """
        cameras = [camera for camera in cameras if camera.is_masked]
        profiles = OutlineProfiles(self.classifier.class_ids.numel())
        for camera in bar(cameras, "Outlines of masks"):
            profiles.add_view(self._of_mask(camera), camera.original_image)
        offsets = profiles.offsets().to(self.classifier.weight.device)
        for index, camera in enumerate(cameras):
            dither = index * GOLDEN_RATIO % 1 - 0.5  # evenly spread, whatever the number of views
            labels = self._of_mask(camera)
            self._corrected[camera.uid] = move_outlines(labels, offsets * pixels_per_step(labels), dither)
        return profiles

    @torch.no_grad()
    def repair(
        self, cameras: Sequence[Camera], render_identity: IdentityRenderer, margin: float
    ) -> dict[str, float]:
        """Replace labels that the model contradicts by `margin`; IGNORED pixels stay ignored.

        Returns: `changed`, the share of the masks' pixels that now differ; the numbers of `aliases` and of
        `unsupported` labels.
        """
        cameras = [camera for camera in cameras if camera.is_masked]
        census = self._census(cameras, render_identity)
        device = self.classifier.weight.device
        alias = census.aliases()  # (K,)
        weight = label_weights(census.agreement(alias)).to(device)  # (K,)
        alias = alias.to(device)
        # No object, so not to be favoured for being rarely certain: holes would grow along every boundary.
        # Where the model is mostly sure of something else, they are nothing but holes.
        unlabelled = self.classifier.class_ids == UNLABELLED
        is_region = weight * UNLABELLED_CONFIDENCE <= 1
        weight = torch.where(unlabelled, torch.where(is_region, weight.clamp_max(1.0), 0.0), weight)
        changed = total = 0
        for camera in cameras:
            mask = self._of_mask(camera)  # (H, W)
            repaired = self._relabelled(mask, render_identity(camera), alias, weight, margin)
            self._repaired[camera.uid] = repaired
            changed += int((repaired != mask).sum())
            total += mask.numel()
        own = torch.arange(len(alias), device=device)
        return {
            "changed": changed / max(total, 1),
            "aliases": float((alias != own).sum()),
            "unsupported": float(((weight == 0) & (alias == own)).sum()),
        }

    @torch.no_grad()
    def weights(self, cameras: Sequence[Camera], render_identity: IdentityRenderer) -> Tensor:
        """What a pixel of each label of the masks counts for it to be found again, (K,) float32.

        1 / confidence; 0 for labels without support.
        """
        census = self._census([camera for camera in cameras if camera.is_masked], render_identity)
        device = self.classifier.weight.device
        return label_weights(census.agreement(torch.arange(len(census.pixels), device="cpu"))).to(device)

    def _relabelled(
        self, mask: Tensor, identity_map: Tensor, alias: Tensor, weight: Tensor, margin: float
    ) -> Tensor:
        """The labels (H, W) of a view's mask where those that the model contradicts are replaced."""
        parts = []
        for own, probabilities in self._chunks(mask, identity_map):
            scores = _joined(probabilities, alias) * weight  # (P, K)
            best, label = scores.max(1)  # (P,) each
            trains = own != IGNORED
            meant = alias[own.clamp_min(0).long()]  # (P,)
            wrong = best > margin * scores.gather(1, meant[:, None])[:, 0]
            parts.append(torch.where(trains, torch.where(wrong, label, meant).to(own.dtype), own))
        return torch.cat(parts).view_as(mask)

    def state_dict(self) -> dict[int, Tensor]:
        """The repaired labels by `uid`; the others follow from the masks."""
        return self._repaired

    def load_state_dict(self, state: dict[int, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        device = self.classifier.weight.device
        self._repaired = {uid: labels.to(device) for uid, labels in state.items()}

    def _of_mask(self, camera: Camera) -> Tensor:
        corrected = self._corrected.get(camera.uid)
        if corrected is not None:
            return corrected
        objects = camera.objects
        labels = self._of_masks.get(objects)
        if labels is None:  # looked up once a view
            assert objects is not None
            labels = self._of_masks[objects] = self.classifier.labels(objects)
        return labels

    def _chunks(self, labels: Tensor, identity_map: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Labels (P,) and probabilities (P, K) of labels (H, W) and identity map (16, H, W), by pixels."""
        encodings = identity_map.flatten(1).T  # (H W, 16)
        own = labels.flatten()
        for part, logits in logit_chunks(encodings, self.classifier.weight, self.classifier.bias):
            yield own[part], torch.softmax(logits, 1)

    def _census(self, cameras: Sequence[Camera], render_identity: IdentityRenderer) -> "Census":
        """What the model says at the pixels of every label, view by view."""
        census = Census(self.classifier.class_ids.numel())
        for camera in cameras:
            mask, identity_map = self._of_mask(camera), render_identity(camera)
            chunks = self._chunks(mask[::STRIDE, ::STRIDE], identity_map[:, ::STRIDE, ::STRIDE])
            census.add_view(chunks)
        return census


def _joined(probabilities: Tensor, alias: Tensor) -> Tensor:
    """Probabilities (P, K), those of aliases at what they count as; added in one order on every device."""
    joined = probabilities.clone()
    for label, target in enumerate(alias.tolist()):
        if target != label:
            joined[:, target] += probabilities[:, label]
            joined[:, label] = 0.0
    return joined


class Census:
    """Sums over the views, K labels; NumPy adds in one order, whatever the number of threads.

    probability[c, d]: p(d) over all pixels that the masks label c. leak[c, d]: p(c) over the pixels labelled
    d of the views that do not have c. together[c, d]: views that have both. pixels[c]: of label c.
    """

    def __init__(self, count: int) -> None:
        self.probability, self.leak = np.zeros((count, count)), np.zeros((count, count))
        self.together, self.pixels = np.zeros((count, count)), np.zeros(count)

    def add_view(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Labels (P,) and probabilities (P, K) of the chunks of one view."""
        count = len(self.pixels)
        probability, pixels = np.zeros((count, count)), np.zeros(count)
        for own, probabilities in chunks:
            trains = (own != IGNORED).cpu().numpy()
            rows, columns = own.cpu().numpy()[trains], probabilities.cpu().numpy()[trains]
            pixels += np.bincount(rows, minlength=count)
            for label in range(count):
                probability[:, label] += np.bincount(rows, columns[:, label], minlength=count)
        present = pixels > 0
        self.probability += probability
        self.leak += np.where(present[:, None], 0.0, probability.T)
        self.together += np.outer(present, present)
        self.pixels += pixels

    def aliases(self) -> Tensor:
        """The label that each counts as, (K,) int64: itself, or the larger one that it is an alias of."""
        labels = np.arange(len(self.pixels))
        other = self.leak.argmax(1)  # (K,)
        mass = self.probability.sum(0)  # (K,) of p(c) over all pixels
        leaked = self.leak.sum(1)  # (K,)
        is_alias = (
            (self.together[labels, other] == 0)
            & (self.pixels > 0)
            & (self.pixels < self.pixels[other])
            & (self.leak[labels, other] > ALIAS_SHARE * leaked)
            & (leaked > ALIAS_EVIDENCE * mass)
        )
        alias = np.where(is_alias, other, labels)
        while (alias[alias] != alias).any():  # an alias of an alias; pixels grow along it, so that it ends
            alias = alias[alias]
        return torch.from_numpy(alias)

    def agreement(self, alias: Tensor) -> Tensor:
        """a(c, d) of the module's text, (K, K) float64, aliases joined; rows without pixels are zero."""
        sums = torch.zeros(len(alias), len(alias), dtype=torch.float64, device=alias.device)
        pixels = torch.zeros_like(sums[0]).index_add_(0, alias, torch.from_numpy(self.pixels))
        by_row = sums.index_add(0, alias, torch.from_numpy(self.probability))
        return sums.index_add(1, alias, by_row) / pixels.clamp_min(1.0)[:, None]


def label_weights(agreement: Tensor) -> Tensor:
    """1 / confidence of every label, 0 for those without support: (K, K) -> (K,) float32."""
    confidence = agreement.diagonal()  # (K,)
    rival = (agreement - torch.diag(confidence)).amax(1)  # (K,)
    supported = (confidence > 0) & (rival < RIVALRY * confidence)
    weights = 1.0 / confidence.clamp_min(MIN_CONFIDENCE)
    return torch.where(supported, weights, 0.0).float()
