"""The shim: right kernels give right results in any order, and every kind of mistake is found and named."""

import ctypes
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.cuda_shim import build
from tests.cuda_shim.build import Shim, ShimError


@pytest.fixture(scope="module")
def shim() -> Shim:
    return build.library([Path(__file__).parent / "kernels.cu"])


def call(shim: Shim, name: str, *arguments: Tensor | int, order: int = 0) -> int:
    """A launch under the shim's checks; only the tensors among the arguments may be touched."""
    raw = [
        ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_longlong(a) for a in arguments
    ]
    with shim.watch(*(a for a in arguments if isinstance(a, Tensor)), order=order):
        return shim.library[f"call_{name}"](*raw)


@pytest.mark.parametrize("order", [0, 1, 7])
def test_block_sums(shim: Shim, order: int) -> None:
    values = torch.arange(1000, dtype=torch.float32)
    sums = torch.zeros(9)
    call(shim, "block_sums", values, 1000, sums, 9, order=order)
    expected = torch.stack([chunk.sum() for chunk in values.split(128)] + [torch.zeros(())])
    assert torch.equal(sums, expected)


@pytest.mark.parametrize("order", [0, 1, 7])
def test_last_block_sees_what_was_fenced(shim: Shim, order: int) -> None:
    values, total = torch.arange(50, dtype=torch.float32), torch.zeros(1)
    call(
        shim,
        "sum_by_last_block",
        values,
        torch.zeros(50),
        torch.zeros(1, dtype=torch.int32),
        total,
        50,
        order=order,
    )
    assert total.item() == values.sum().item()


@pytest.mark.parametrize("order", [0, 1, 7])
def test_warp_functions(shim: Shim, order: int) -> None:
    out = torch.zeros(32, 12, dtype=torch.int32)
    call(shim, "warp_functions", out, order=order)
    thirds = sum(1 << lane for lane in range(0, 32, 3))
    for lane, row in enumerate(out.tolist()):
        up, down = max(lane - 2, lane % 2 if lane < 2 else 0), min(lane + 2, 31)
        assert row[:4] == [30, lane if lane < 2 else up, lane if lane > 29 else down, lane ^ 5]
        assert row[4] == lane // 8 * 8 + 1
        assert row[5] & 0xFFFFFFFF == thirds
        assert row[6:8] == [1, 0]
        assert row[8] & 0xFFFFFFFF == 0xF << (lane // 4 * 4)
        assert row[9:11] == [sum(range(-20, 12)), -20]
        assert row[11] == (15 if lane < 16 else -16)


def test_atomics_of_blocks_do_not_race(shim: Shim) -> None:
    seen = torch.zeros(640, dtype=torch.int32)
    call(shim, "exclusive_tickets", torch.zeros(1, dtype=torch.int32), seen, 10)
    assert bool(seen.all())


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("missing_barrier", "shared tile"),
        ("missing_second_barrier", r"race on shared tile, byte \d+: .*kernels\.cu:\d+ .*no barrier between"),
        ("missing_syncwarp", "shared slots"),
        ("divergent_exit", "24 threads .* have exited, 40 threads .* wait at the barrier"),
        ("divergent_branches", "divergent barrier"),
        ("divergent_shuffle", "divergent warp functions"),
        ("incomplete_mask", "which the mask does not name"),
        ("large_shared", "uses 65536 bytes of shared memory, more than 49152"),
        ("uninitialised_shared", r"nothing was written to shared values, byte 252, before .*kernels\.cu"),
        ("shared_overrun", "outside every shared variable"),
        (
            "write_behind",
            r"4 bytes written outside every buffer at .*kernels\.cu:\d+ .* 0 bytes behind the end of tensor",
        ),
        ("same_element", r"race on tensor \(64,\) int32, byte 0 of 256: written at .*kernels\.cu"),
        ("across_blocks", "by thread 0 of another block, then (read|written) .* no __threadfence"),
        ("plain_and_atomic", "changed atomically"),
        ("too_many_threads", "invalid launch"),
    ],
)
@pytest.mark.parametrize("order", [0, 7])
def test_mistakes_are_found(shim: Shim, name: str, finding: str, order: int) -> None:
    dtype = torch.float32 if name.startswith("missing") and name != "missing_syncwarp" else torch.int32
    out = torch.zeros(256, dtype=dtype)[:64].clone()
    with pytest.raises(ShimError, match=finding):
        call(shim, name, out, order=order)


@pytest.mark.parametrize(
    ("name", "finding"), [("read_before", "outside every buffer"), ("misaligned", "misaligned")]
)
def test_wrong_reads_are_found(shim: Shim, name: str, finding: str) -> None:
    with pytest.raises(ShimError, match=finding):
        call(shim, name, torch.zeros(64, dtype=torch.int32), torch.zeros(64, dtype=torch.int32))


def test_a_finding_does_not_outlive_its_launch(shim: Shim) -> None:
    out = torch.zeros(64, dtype=torch.int32)
    with pytest.raises(ShimError):
        call(shim, "write_behind", out)
    call(shim, "warp_functions", torch.zeros(32, 12, dtype=torch.int32))
