"""scripts/check_kernels.py: what it reads from the compiler, and that our kernels pass it."""

import pytest

from scripts import check_kernels
from scripts.check_kernels import Kernel

PRINTED = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5blendILi19EEvPKfPfi' for 'sm_90'
ptxas info    : Function properties for _Z5blendILi19EEvPKfPfi
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 16 bytes cumulative stack size, 4096 bytes smem
ptxas info    : Compile time = 21.500 ms
ptxas info    : Compiling entry function '_Z4fillPfif' for 'sm_90'
ptxas info    : Function properties for _Z4fillPfif
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 9 registers, used 0 barriers, 372 bytes cmem[0]
"""


def test_every_kernel_that_ptxas_names_is_read() -> None:
    spilling, frugal = check_kernels.parse(PRINTED)
    assert "blend" in spilling.name and "19" in spilling.name and "fill" in frugal.name
    assert (spilling.registers, spilling.shared, spilling.stack, spilling.spilled) == (72, 4096, 16, 20)
    assert (frugal.registers, frugal.shared, frugal.stack, frugal.spilled) == (9, 0, 0, 0)


@pytest.mark.parametrize(("registers", "warps"), [(8, 64), (32, 64), (33, 51), (64, 32), (255, 8)])
def test_registers_bound_the_warps_of_a_multiprocessor(registers: int, warps: int) -> None:
    assert Kernel("kernel", 90, registers, 0, 0, 0).warps == warps


def test_a_spill_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_kernels, "find_nvcc", lambda: "nvcc")
    monkeypatch.setattr(check_kernels, "check", lambda *_: check_kernels.parse(PRINTED))
    with pytest.raises(check_kernels.UserError, match=r"spill in .*blend"):
        check_kernels.main(["--architectures", "90"])


def test_a_spill_of_a_cold_kernel_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = Kernel("gs::backward_tiles<float, 12, 12>", 90, 128, 0, 16, 20)
    monkeypatch.setattr(check_kernels, "find_nvcc", lambda: "nvcc")
    monkeypatch.setattr(check_kernels, "check", lambda *_: [cold])
    check_kernels.main(["--architectures", "90"])


def test_other_channel_counts_than_the_default_may_spill() -> None:
    names = {
        "gs::backward_tiles<float, 20, 4>": False,
        "gs::backward_tiles<float, 12, 12>": True,
        "adam": False,
    }
    assert {name: bool(check_kernels.COLD.search(name)) for name in names} == names


@pytest.mark.skipif(check_kernels.find_nvcc() is None, reason="no nvcc on this machine")
def test_our_kernels_compile_without_spills(capsys: pytest.CaptureFixture[str]) -> None:
    check_kernels.main(["--architectures", "90"])
    assert len(capsys.readouterr().out.splitlines()) > len(check_kernels.sources())
