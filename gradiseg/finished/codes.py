"""Encodings without training: a code for every id, and the classifier that reads rendered mixtures of them.

A pixel's encoding is the mean of the codes along its ray, weighted by alpha T. The code of id c is (u_c, 1),
that of id 0 is zero. The last channel of a pixel is the share of it that objects cover, and the classifier
gives id c the logit SCALE (u_c . x + x_16) and id 0 the logit SCALE. So an object begins where it covers half
of a pixel beside nothing, and the larger of two wins. A third does not appear between two if all |u_c . u_d|
are below 1/3.

Masks catch thin objects in part, so that too little of a pixel's Gaussians is theirs. A label whose votes
count w_c > 1 counts as much here: id c has the logit SCALE (w_c u_c . x + x_16), and between two objects the
larger w_c times share wins.
"""

import torch
from torch import Tensor

from gradiseg.classifier import UNLABELLED, IdentityClassifier
from scene.ply import IDENTITY_DIM

SCALE = 40.0  # of logits, so that softmax > 0.2 means more than 48% of a pixel beside one other object
SPREADING = 400  # steps; fewer for so many vectors that they cost more than they bring
MANY = 128
FIRST_POWER, LAST_POWER = 4.0, 40.0  # of the repulsion: from all pairs to the closest ones


def spread_directions(count: int, dim: int) -> Tensor:
    """Unit vectors (count, dim) float32 with |products| as small as repulsion makes them; always the same.

    Up to `dim` they are orthogonal. Opposite vectors would be as bad as equal ones: their mean is zero.
    """
    if count <= dim:
        return torch.eye(count, dim)
    vectors = torch.randn(count, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors /= vectors.norm(dim=1, keepdim=True)
    steps = max(20, round(SPREADING * min(1.0, (MANY / count) ** 2)))
    for step in range(steps):
        done = step / steps
        products = (vectors @ vectors.T).fill_diagonal_(0)
        power = FIRST_POWER * (LAST_POWER / FIRST_POWER) ** done
        force = (products.abs() / products.abs().max()) ** (power - 1) * products.sign()
        push = force @ vectors
        vectors -= 0.3 * (1 - done) * push / push.norm(dim=1).max()
        vectors /= vectors.norm(dim=1, keepdim=True)
    return vectors.float()


def codes_of(classifier: IdentityClassifier) -> Tensor:
    """The codes (K, 16) of the classifier's labels, on its device."""
    objects = classifier.class_ids != UNLABELLED
    codes = torch.zeros(len(objects), IDENTITY_DIM, device=objects.device)
    codes[objects, :-1] = spread_directions(int(objects.sum()), IDENTITY_DIM - 1).to(codes)
    codes[objects, -1] = 1.0
    return codes


@torch.no_grad()
def matching_classifier(ids: Tensor, num_classes: int) -> IdentityClassifier:
    """The classifier of the codes for id 0 and `ids` (K,).

    Raises: UserError where an id is not below `num_classes`.
    """
    every = torch.cat([ids.new_zeros(1), ids]).unique()
    classifier = IdentityClassifier(every, num_classes)
    classifier.weight.copy_(SCALE * codes_of(classifier))
    classifier.bias.copy_(SCALE * (classifier.class_ids == UNLABELLED))
    return classifier


@torch.no_grad()
def weigh_rows(classifier: IdentityClassifier, weights: Tensor) -> None:
    """Let the labels' shares of a pixel count `weights` (K,), where they are above 1.

    Where codes are many and near each other, they count only so much that no label appears in the code of
    another, or between two of others.
    """
    directions = codes_of(classifier)[:, :-1]
    overlap = (directions @ directions.T).abs().fill_diagonal_(0).amax(1).clamp_min(1e-6)  # (K,)
    most = ((1 - overlap.amax()) / (2 * overlap)).clamp_min(1.0)  # two halves have (1 + u_a . u_b) / 2 each
    counted = weights.clamp_min(1.0).minimum(most)
    classifier.weight[:, :-1] = SCALE * counted[:, None] * directions
