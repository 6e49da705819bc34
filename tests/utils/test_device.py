"""Which device the commands take, and what they say about it."""

import importlib.util
import logging
import sys
import types

import pytest
import torch

from utils import device
from utils.device import select_device
from utils.errors import UserError


@pytest.fixture
def usable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which everything can use GPU 0."""
    monkeypatch.setattr(device, "gpu_problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.fixture
def unusable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which something is missing."""
    monkeypatch.setattr(device, "gpu_problem", lambda: "there is no driver.")


@pytest.mark.usefixtures("usable_gpu")
def test_auto_takes_the_gpu_where_everything_can_use_it() -> None:
    assert select_device("auto") == select_device("cuda") == torch.device("cuda", 0)
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("unusable_gpu")
def test_auto_says_why_it_takes_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gradiseg"):
        assert select_device("auto") == torch.device("cpu")
    assert [record.message for record in caplog.records] == ["Computing on the CPU: there is no driver."]


@pytest.mark.usefixtures("unusable_gpu")
def test_cuda_is_refused_with_the_reason_and_cpu_asks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="--device cuda: there is no driver"):
        select_device("cuda")
    with caplog.at_level(logging.INFO, "gradiseg"):
        assert select_device("cpu") == torch.device("cpu")
    assert not caplog.records


@pytest.mark.parametrize("package", device.PACKAGES)
def test_a_foreign_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = types.ModuleType(package)
    foreign.__file__ = f"/opt/other/{package}/__init__.py"
    monkeypatch.setitem(sys.modules, package, foreign)
    with pytest.raises(UserError, match=f"/opt/other/{package}"):
        select_device("cpu")


@pytest.mark.parametrize("package", device.PACKAGES)
def test_one_package_that_cannot_use_the_gpu_is_enough(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in device.PACKAGES:
        stub = types.ModuleType(f"{name}.availability")
        stub.__spec__ = importlib.util.spec_from_loader(stub.__name__, None)
        problem = f"{name} is the one." if name == package else None
        stub.cuda_problem = lambda problem=problem: problem  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, stub.__name__, stub)
    assert device.gpu_problem() == f"{package} is the one."
