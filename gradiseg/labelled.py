"""A labelled model: Gaussians, the object that each belongs to, and what tells objects apart in pictures.

What selects Gaussians reads one, what edits them makes another from it. Tensors are never changed in place,
so that the states of an undo stack share what they have in common.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradiseg.classifier import ABSENT_BIAS, conv_of, identify
from gradiseg.votes import Votes
from scene.gaussian_model import GaussianModel
from scene.ply import NO_ORIGIN


@dataclass(frozen=True)
class LabelledModel:
    """Gaussians with ids.

    - params: tensors as in `GaussianModel.params`, N rows, detached
    - ids: (N,) int64, the object that each Gaussian belongs to; 0 = none
    - weight, bias: rows (C, 16) and (C,) of the classifier, which tells objects apart in rendered maps
    - names: what ids are called
    - support: share and mass (N, 2) of the votes for `ids` (`gradiseg.votes`); 0 for Gaussians of an edit
    - origin: (3,) of the frame of `params`: files hold xyz + origin, see `scene.ply`
    """

    params: Mapping[str, Tensor]
    ids: Tensor
    weight: Tensor
    bias: Tensor
    names: Mapping[int, str]
    support: Tensor
    origin: np.ndarray = field(default_factory=lambda: NO_ORIGIN)

    @classmethod
    def of(
        cls,
        model: GaussianModel,
        classifier: nn.Conv2d,
        votes: Votes | None = None,
        names: Mapping[int, str] | None = None,
    ) -> "LabelledModel":
        """A trained model; without `votes` each Gaussian belongs to what its encoding says."""
        params = {name: parameter.detach() for name, parameter in model.params.items()}
        if votes is None:
            ids = identify(params["obj_dc"].flatten(1), classifier)
            support = params["xyz"].new_zeros(len(ids), 2)
        else:
            ids, support = votes.ids, torch.stack([votes.share, votes.mass], 1)
        bias = classifier.bias
        assert bias is not None  # as load_conv makes it
        weight = classifier.weight.detach().flatten(1)
        return cls(params, ids, weight, bias.detach(), dict(names or {}), support, model.origin)

    @property
    def count(self) -> int:
        """N."""
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.bias)

    def counts(self) -> dict[int, int]:
        """Gaussians per id, of the ids that occur."""
        counts = self.ids.bincount()
        return {int(found): int(counts[found]) for found in counts.nonzero().flatten()}

    @property
    def names_in_use(self) -> dict[int, str]:
        """Names of the ids that occur."""
        return {id: self.names[id] for id in self.counts() if id in self.names}

    def model(self) -> GaussianModel:
        """The Gaussians as the renderer takes them; it shares the tensors."""
        rest = self.params["f_rest"].shape[1]
        model = GaussianModel(round((rest + 1) ** 0.5) - 1, self.ids.device)
        model.set_params(self.params)
        model.origin = self.origin
        model.active_sh_degree = model.max_sh_degree
        return model

    def classifier(self) -> nn.Conv2d:
        """The classifier as a frozen 1x1 convolution."""
        return conv_of(self.weight[:, :, None, None], self.bias)

    def rows(self, chosen: Tensor) -> "LabelledModel":
        """The Gaussians of a mask (N,) bool or of indices."""
        params = {name: tensor[chosen] for name, tensor in self.params.items()}
        return replace(self, params=params, ids=self.ids[chosen], support=self.support[chosen])

    def followed_by(
        self, params: Mapping[str, Tensor], ids: Tensor, support: Tensor | None = None
    ) -> "LabelledModel":
        """These Gaussians, then those of `params` with their ids, and support where they have some."""
        joined = {name: torch.cat([tensor, params[name].to(tensor)]) for name, tensor in self.params.items()}
        every = torch.cat([self.ids, ids.to(self.ids)])
        own = self.support.new_zeros(len(ids), 2) if support is None else support.to(self.support)
        return replace(self, params=joined, ids=every, support=torch.cat([self.support, own]))

    def with_rows_changed(self, chosen: Tensor, **changed: Tensor) -> "LabelledModel":
        """The rows of a mask (N,) with other values of some parameters, and of `ids` where given."""
        params = dict(self.params)
        ids = self.ids
        for name, values in changed.items():
            tensor = (self.ids if name == "ids" else params[name]).clone()
            tensor[chosen] = values.to(tensor)
            if name == "ids":
                ids = tensor
            else:
                params[name] = tensor
        return replace(self, params=params, ids=ids)

    def with_class(self, new: int, row: Tensor, bias: Tensor | float) -> "LabelledModel":
        """With a classifier row (16,) for the id `new`; the rows up to it are made where they lack."""
        missing = max(0, new + 1 - self.num_classes)
        weight = torch.cat([self.weight, self.weight.new_zeros(missing, self.weight.shape[1])])
        biases = torch.cat([self.bias, self.bias.new_full((missing,), ABSENT_BIAS)])
        weight[new], biases[new] = row.to(weight), bias
        return replace(self, weight=weight, bias=biases)

    def free_id(self) -> int:
        """The smallest id above 0 that no Gaussian has, no name and no classifier row."""
        taken = {*self.counts(), *self.names, *torch.nonzero(self.bias > ABSENT_BIAS / 2).flatten().tolist()}
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    @property
    def votes(self) -> Votes:
        """Whose each Gaussian is, as it is stored beside a model."""
        return Votes(self.ids, *self.support.unbind(1))

    def describe(self, id: int) -> str:
        """An id with its name, as messages show it."""
        return f"{id} ({self.names[id]})" if id in self.names else str(id)

    def same_as(self, other: "LabelledModel") -> bool:
        """Whether both hold the same bits."""
        tensors: tuple[dict[str, Any], ...] = tuple(
            {**m.params, "ids": m.ids, "support": m.support, "weight": m.weight, "bias": m.bias}
            for m in (self, other)
        )
        same = all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
        return same and dict(self.names) == dict(other.names)
