"""Photographs arrive upright, small enough and whole; those that cannot are all named at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preparation.photos import check_photos, copy_photos, list_photos
from utils.errors import UserError


def photo(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        photo().save(tmp_path / name)
    return tmp_path


def test_photos_are_listed_in_order_of_name_and_other_files_ignored(tmp_path: Path) -> None:
    folder_of(tmp_path, "b.jpg", "a.1.PNG", "sub/c.jpeg")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._b.jpg").touch()  # what macOS leaves on other disks
    assert list_photos(tmp_path) == ["a.1.PNG", "b.jpg", "sub/c.jpeg"]


def test_two_photos_that_would_share_a_mask(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a b\.jpg, a_b\.png"):
        list_photos(folder_of(tmp_path, "a b.jpg", "a_b.png", "c.jpg"))


def test_all_broken_files_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", "good.jpg", "cut.png", "text.jpg")
    (source / "text.jpg").write_text("a shopping list")
    (source / "cut.png").write_bytes((source / "cut.png").read_bytes()[:700])
    names = list_photos(source)
    for work in (
        lambda: copy_photos(source, names, tmp_path / "out", 0),
        lambda: check_photos(source, names),
    ):
        with pytest.raises(UserError) as error:
            work()
        assert "cut.png" in str(error.value) and "text.jpg" in str(error.value)
        assert "good.jpg" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_photos_that_are_relative_links_come_as_files(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    links = tmp_path / "scene" / "input"
    links.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (links / name).symlink_to(f"../../in/{name}")
    names, made = list_photos(links), tmp_path / "scene" / "distorted" / "photos"
    copy_photos(links, names, made, 0)
    assert list_photos(made) == names
    assert (made / "a.jpg").read_bytes() == (tmp_path / "in" / "a.jpg").read_bytes()


def test_photos_come_upright_and_no_larger_than_asked(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", "as is.jpg")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"  # turned by 90 degrees
    photo().save(source / "turned.jpg", exif=exif)
    photo(80, 60).save(source / "large.png")
    photo().convert("RGBA").save(source / "scan.tif")
    copy_photos(source, list_photos(source), tmp_path / "out", 40)
    sizes = {}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            assert image.mode == "RGB"
            sizes[path.name] = image.size
            if path.name == "turned.jpg":
                assert image.getexif().get(0x0112, 1) == 1 and image.getexif()[0x010F] == "maker"
    assert sizes == {
        "as_is.jpg": (40, 30),
        "turned.jpg": (30, 40),
        "large.png": (40, 30),
        "scan.png": (40, 30),
    }
    assert (tmp_path / "out" / "as_is.jpg").read_bytes() == (source / "as is.jpg").read_bytes()
