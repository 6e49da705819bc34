"""The identity classifier F: identity encoding (16) -> logits over object ids.

Two forms. While training, `IdentityClassifier` has a row only for the K ids that occur in the training masks
(*dense* labels 0..K-1), because the softmax over 256 classes of which 20 exist costs as much as the
rasterizer. On disk and for inference it is Gaussian Grouping's 1x1 `Conv2d(16, C)`; the ids that never
occurred get weight 0 and bias -100, so that the softmax over all C equals the one over the K.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scene.ply import IDENTITY_DIM
from utils.errors import UserError

ABSENT_BIAS = -100.0  # exp(-100) vanishes beside any trained logit in float32
IGNORED = -1  # dense label of a pixel that does not train
UNLABELLED = 0  # the id of what shows no object
_ABSENT = -2  # table entry of an id that the classifier has no row for; below every other
ROWS_PER_PRODUCT = 128  # short enough for one thread, long enough to keep its speed
CHUNK = 65_536  # Gaussians or pixels classified at once: 64 MiB of logits at 256 classes


class IdentityClassifier(nn.Module):
    """Linear classifier over the K ids in `class_ids`, out of `num_classes` possible ones.

    class_ids: K ids within [0, num_classes), in any order (the buffer `class_ids` is ascending).
    `ignore_label` (an id, -1: none) is left out of them. `weight` (K, 16) and `bias` (K,) start as Conv2d's
    would.

    Raises: UserError where an id is outside the range or none is left.
    """

    class_ids: Tensor
    table: Tensor

    def __init__(
        self,
        class_ids: Sequence[int] | Tensor,
        num_classes: int,
        ignore_label: int = -1,
        num_channels: int = IDENTITY_DIM,
    ) -> None:
        super().__init__()
        ids = torch.as_tensor(class_ids).to(torch.int64)
        ids = ids[ids != ignore_label].unique()  # (K,) ascending
        if ids.numel() == 0:
            raise UserError("the training masks: no id to learn. Check --object_path and --ignore_label.")
        if int(ids[0]) < 0 or int(ids[-1]) >= num_classes:
            raise UserError(
                f"the training masks: ids {int(ids[0])} to {int(ids[-1])}, but num_classes is {num_classes}. "
                f"Set --num_classes {int(ids[-1]) + 1} or more."
            )
        self.num_classes = num_classes
        self.register_buffer("class_ids", ids)
        label_type = torch.int16 if ids.numel() <= 2**15 else torch.int32  # a map of them is kept per view
        table = torch.full((num_classes,), _ABSENT, dtype=label_type)  # id -> dense label
        table[ids] = torch.arange(ids.numel(), dtype=label_type, device=table.device)
        if 0 <= ignore_label < num_classes:
            table[ignore_label] = IGNORED
        self.register_buffer("table", table, persistent=False)
        bound = 1.0 / math.sqrt(num_channels)  # what Conv2d's default comes to for a 1x1 kernel
        self.weight = nn.Parameter(torch.empty(ids.numel(), num_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(ids.numel()).uniform_(-bound, bound))

    def forward(self, encodings: Tensor) -> Tensor:
        """Logits (..., K) of identity encodings (..., 16)."""
        return nn.functional.linear(encodings, self.weight, self.bias)

    def labels(self, id_map: Tensor) -> Tensor:
        """Dense labels (H, W) int16 or int32 of a map of ids (H, W); IGNORED where the id is `ignore_label`.

        Raises: UserError naming the smallest id that has no row.
        """
        ids = id_map.to(self.table.device, torch.int32)
        low, high = ids.aminmax()
        if int(low) >= 0 and int(high) < self.num_classes:
            labels = self.table.index_select(0, ids.flatten()).view(ids.shape)
            if int(labels.amin()) > _ABSENT:
                return labels
        known = (torch.arange(self.num_classes, device=ids.device)[self.table != _ABSENT]).to(ids.dtype)
        unknown = ids[~torch.isin(ids, known)]
        raise UserError(
            f"id map: id {int(unknown.min())} is none of the classifier's {self.class_ids.numel()}. "
            "Make the classifier from all the masks it is trained on."
        )

    def full_state_dict(self) -> dict[str, Tensor]:
        """State dict of the equivalent `Conv2d(16, C, 1)`, the content of `classifier.pth`."""
        weight = self.weight.detach().new_zeros(self.num_classes, self.weight.shape[1], 1, 1)
        bias = self.bias.detach().new_full((self.num_classes,), ABSENT_BIAS)
        weight[self.class_ids, :, 0, 0] = self.weight.detach()
        bias[self.class_ids] = self.bias.detach()
        return {"weight": weight, "bias": bias}


def class_logits(encodings: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """encodings weight^T + bias, (R, D) -> (R, C), by chunks of rows.

    The weight's gradient sums over all rows; one matrix product would split that sum among the threads, and
    its bits would depend on their number. A chunk is too short to be split, and the chunks are added in
    order.
    """
    padding = -len(encodings) % ROWS_PER_PRODUCT
    chunks = torch.nn.functional.pad(encodings, (0, 0, 0, padding)).unflatten(0, (-1, ROWS_PER_PRODUCT))
    logits = torch.bmm(chunks, weight.T.expand(len(chunks), -1, -1)).flatten(0, 1)[: len(encodings)]  # (R, C)
    return logits + bias


def load_conv(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> nn.Conv2d:
    """The classifier of a run, ours or Gaussian Grouping's, as a frozen 1x1 Conv2d; C is read from the file.

    Raises: UserError for a file that is missing or holds something else.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        weight, bias = state["weight"], state["bias"]
        classes, _, *kernel = weight.shape
        if kernel != [1, 1] or bias.shape != (classes,) or set(state) != {"weight", "bias"}:
            raise ValueError("shapes")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no classifier there. Train with train.py first.") from error
    except Exception as error:  # torch reports a damaged or foreign file by half a dozen types
        raise UserError(
            f"{path}: not the state dict of a 1x1 Conv2d classifier. Copy classifier.pth from its run again."
        ) from error
    return conv_of(weight, bias)


def conv_of(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Rows (C, D, 1, 1) and (C,) as a frozen 1x1 Conv2d on their device; draws no random numbers."""
    with torch.random.fork_rng(devices=[]):  # torch's skip_init imports SymPy, half a second of every start
        conv = nn.Conv2d(weight.shape[1], len(weight), 1)
    conv = conv.to(weight.device)
    conv.load_state_dict({"weight": weight, "bias": bias})
    return conv.requires_grad_(False).eval()


class Rows(NamedTuple):
    """The rows of a classifier that compete: their ids (K,) int64 ascending, weight (K, 16) and bias (K,)."""

    ids: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Classified:
    """What the classifier says of encodings of shape (...): probabilities (..., W) of the ids that were asked
    for, the most probable id (...) int64 and its probability (...)."""

    probabilities: Tensor
    ids: Tensor
    confidence: Tensor


def logit_chunks(encodings: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Which encodings (R, 16), at most `CHUNK` at a time, and their logits (P, C).

    Bits do not depend on the number of threads; the R x C logits never exist as a whole.
    """
    for start in range(0, len(encodings), CHUNK):
        part = slice(start, min(start + CHUNK, len(encodings)))
        yield part, class_logits(encodings[part], weight, bias)


def occurring_rows(classifier: nn.Conv2d) -> Rows:
    """The rows without those of ids that never occurred in training (weight 0, bias `ABSENT_BIAS`).

    exp(-100) adds nothing to a sum of probabilities in float32, so that leaving the rows out changes no
    id and no probability; of 256 classes eight may be left.
    """
    weight, bias = classifier.weight.flatten(1), classifier.bias
    assert bias is not None  # `load_conv` asks for it
    ids = ((bias != ABSENT_BIAS) | (weight != 0).any(1)).nonzero().flatten()
    return Rows(ids, weight[ids], bias[ids])


@torch.no_grad()
def identify(encodings: Tensor, classifier: nn.Conv2d) -> Tensor:
    """Most probable id, argmax F(e): (...) int64 of encodings (..., 16)."""
    rows, flat = occurring_rows(classifier), encodings.flatten(0, -2)  # (R, 16)
    ids = rows.ids.new_empty(len(flat))
    for part, logits in logit_chunks(flat, rows.weight, rows.bias):
        ids[part] = rows.ids[logits.argmax(1)]
    return ids.view(encodings.shape[:-1])


@torch.no_grad()
def classify(encodings: Tensor, classifier: nn.Conv2d, wanted: Sequence[int]) -> Classified:
    """Softmax of the `wanted` ids, each below C, and the most probable id, of encodings (..., 16)."""
    rows, flat = occurring_rows(classifier), encodings.flatten(0, -2)  # (R, 16)
    row = rows.ids.new_full((classifier.out_channels,), -1)  # id -> row
    row[rows.ids] = torch.arange(len(rows.ids), device=row.device)
    wanted_rows = row[list(wanted)]  # (W,), -1 for an id that never occurred
    chosen = flat.new_empty(len(flat), len(wanted))
    ids, confidence = rows.ids.new_empty(len(flat)), flat.new_empty(len(flat))
    for part, logits in logit_chunks(flat, rows.weight, rows.bias):
        probabilities, winner = logits.softmax(1), logits.argmax(1, keepdim=True)  # (P, K), (P, 1)
        chosen[part] = probabilities[:, wanted_rows.clamp_min(0)] * (wanted_rows >= 0)
        ids[part], confidence[part] = rows.ids[winner[:, 0]], probabilities.gather(1, winner)[:, 0]
    shape = encodings.shape[:-1]
    return Classified(chosen.view(*shape, len(wanted)), ids.view(shape), confidence.view(shape))


def map_encodings(identity_map: Tensor) -> Tensor:
    """The encodings (H, W, 16) of a rendered identity map (16, H, W)."""
    return identity_map.permute(1, 2, 0)
