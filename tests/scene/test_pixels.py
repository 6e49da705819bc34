"""What does not fit in memory is read again: the same pixels, no more of them at once than was said."""

from pathlib import Path

import pytest
import torch

from arguments import ModelParams
from scene import Scene, pixels
from scene.pixels import RECENT, Pixels, PixelStore, available_memory

MEGABYTE = 2**20


def picture(value: int, megabytes: int = 1) -> Pixels:
    return Pixels(torch.full((megabytes, MEGABYTE), value, dtype=torch.uint8), None)


def test_the_budget_is_filled_in_order_and_never_exceeded() -> None:
    store = PixelStore(3)
    assert [store.keeps(picture(0, size)) for size in (2, 2, 1, 1)] == [True, False, True, False]
    assert store.left == 0


def test_without_a_budget_half_of_the_free_memory_is_taken() -> None:
    assert 0.3 * available_memory() < PixelStore().left < 0.7 * available_memory()


def test_a_view_is_read_once_while_it_is_recent() -> None:
    reads: list[int] = []

    def source(value: int) -> Pixels:
        reads.append(value)
        return picture(value)

    loads = [lambda value=value: source(value) for value in range(RECENT + 1)]
    store = PixelStore(1)
    for load in [*loads, *loads[1:]]:
        store.read(load).result()
    assert reads == list(range(RECENT + 1))
    assert store.read(loads[0]).result().photograph[0, 0] == 0  # type: ignore[index]
    assert reads[-1] == 0 and len(reads) == RECENT + 2


def test_an_unreadable_file_is_reported_to_who_asks() -> None:
    def load() -> Pixels:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        PixelStore(1).read(load).result()


def test_a_scene_without_room_shows_the_same_pixels(
    scene_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ModelParams(source_path=str(scene_folder), model_path="")
    kept = Scene(args, None)
    monkeypatch.setattr(pixels, "available_memory", lambda: 0)
    read = Scene(args, None)
    assert read.class_ids == kept.class_ids
    for a, b in zip(kept.getTrainCameras(), read.getTrainCameras(), strict=True):
        b.prefetch()
        assert torch.equal(a.original_image, b.original_image)
        assert a.objects is not None and b.objects is not None and torch.equal(a.objects, b.objects)
        assert a.pixels is a.pixels and b._pixels.photograph is None
