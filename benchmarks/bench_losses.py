"""Times the losses and Adam, forward and backward, against their PyTorch references.

    python benchmarks/bench_losses.py --width 637 --height 358 --classes 8 --threads 1 2 --json out.json

Nothing is timed before loss and gradients matched the reference. Times are the fastest of `--repeats` calls.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip
import torch
from fused_losses import Adam, l1_ssim, linear_cross_entropy, reference
from torch import Tensor

from benchmarks import machine
from utils.errors import UserError, run_command
from utils.json_files import write_json

CHANNELS, IDENTITY = 3, 16
ADAM_COLUMNS = (3, 3, 45, 1, 3, 4, 16)  # numbers per Gaussian of the model's parameters
MAX_ERROR = 1e-4  # of the largest element; float32
# Operations per element of the image: 7 blurs of 11 taps along two axes at 16 (symmetric: 5 sums, 6 products,
# 5 more sums), some 45 for SSIM, its derivatives and L1.
SSIM_FLOPS = 7 * 2 * 16 + 45
CLASS_FLOPS = 3 * 2 * IDENTITY + 20  # per pixel and class: logits, two gradients, exponential
ADAM_FLOPS, ADAM_BYTES = 13, 4 * 7  # per number: parameter and moments read and written, gradient read


class Case:
    """A loss, its reference, what they differentiate by, and its work."""

    def __init__(
        self,
        inputs: list[Tensor],
        ours: Callable[[], Tensor],
        theirs: Callable[[], Tensor],
        flops: float,
        size: int,
    ) -> None:
        self.inputs, self.ours, self.theirs = inputs, ours, theirs
        self.flops, self.bytes = flops, size

    def differentiate(self, loss: Callable[[], Tensor]) -> list[Tensor]:
        """The loss, then its gradients."""
        value = loss()
        return [value.detach(), *torch.autograd.grad(value, self.inputs)]

    def check(self) -> float:
        """The largest error beside the reference.

        Raises: UserError where it exceeds MAX_ERROR.
        """
        pairs = zip(self.differentiate(self.ours), self.differentiate(self.theirs), strict=True)
        error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        if not error <= MAX_ERROR:
            raise UserError(f"the kernel is off by {error:.1e} of the reference; nothing was timed.")
        return error


def cases(width: int, height: int, classes: int) -> dict[str, Case]:
    """The two losses of a training step, on random images."""
    torch.manual_seed(0)
    pixels = width * height
    image = torch.rand(CHANNELS, height, width, requires_grad=True)
    target = torch.randint(0, 256, image.shape, dtype=torch.uint8)
    features = torch.randn(IDENTITY, height, width, requires_grad=True)
    weight = torch.randn(classes, IDENTITY, requires_grad=True)
    bias = torch.randn(classes, requires_grad=True)
    labels = torch.randint(0, classes, (height, width), dtype=torch.int16)
    return {
        "l1_ssim": Case(
            [image],
            lambda: l1_ssim(image, target, 0.2),
            lambda: reference.l1_ssim(image, target.float() / 255, 0.2),
            CHANNELS * pixels * SSIM_FLOPS,
            CHANNELS * pixels * (4 + 1 + 4),
        ),
        "linear_cross_entropy": Case(
            [features, weight, bias],
            lambda: linear_cross_entropy(features, weight, bias, labels, scale=0.2),
            lambda: 0.2 * reference.linear_cross_entropy(features, weight, bias, labels),
            pixels * classes * CLASS_FLOPS,
            pixels * (2 * 4 * IDENTITY + 2),
        ),
    }


def record(name: str, ms: float, reference_ms: float, flops: float, size: float) -> dict[str, Any]:
    """What one measurement is reported as."""
    return {
        "name": name,
        "threads": torch.get_num_threads(),
        "ms": ms,
        "gflops": flops / ms * 1e-6,
        "gb_per_s": size / ms * 1e-6,
        "ratio_to_reference": reference_ms / ms,
    }


def measure_adam(count: int, repeats: int) -> dict[str, Any]:
    """Adam over `count` Gaussians, against torch's own."""
    parameters = [torch.randn(count, columns, requires_grad=True) for columns in ADAM_COLUMNS]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    ours, theirs = Adam(parameters), torch.optim.Adam(parameters)
    ms, reference_ms = (machine.timed(adam.step, repeats)[1] for adam in (ours, theirs))
    numbers = count * sum(ADAM_COLUMNS)
    return record("adam", ms, reference_ms, ADAM_FLOPS * numbers, ADAM_BYTES * numbers)


def main() -> None:
    """Read the options, check, measure, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=637)
    parser.add_argument("--height", type=int, default=358)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--num_gaussians", type=int, default=100_000, help="for Adam")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args()

    losses = cases(options.width, options.height, options.classes)
    result: dict[str, Any] = {
        "image": [options.width, options.height],
        "classes": options.classes,
        "num_gaussians": options.num_gaussians,
        "environment": machine.environment(),
        "errors": {name: case.check() for name, case in losses.items()},
        "ceilings": [],
        "results": [],
    }
    for threads in options.threads:
        torch.set_num_threads(threads)
        result["ceilings"].append(machine.ceilings())
        for name, case in losses.items():
            _, ms = machine.timed(partial(case.differentiate, case.ours), options.repeats)
            _, reference_ms = machine.timed(partial(case.differentiate, case.theirs), 4)
            result["results"].append(record(name, ms, reference_ms, case.flops, case.bytes))
        result["results"].append(measure_adam(options.num_gaussians, options.repeats))
    print(json.dumps(result, indent=2))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_command(main)
