"""Files are whole or absent."""

from pathlib import Path

import pytest

from utils.files import TEMPORARY, atomic_folder, atomic_write


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_target_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "image.png"
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert not target.exists() and TEMPORARY.fullmatch(temporary.name)
        assert temporary.parent == target.parent and temporary.suffix == ".png"
    assert [path.read_text() for path in target.parent.iterdir()] == ["new"]


def test_the_folder_in_which_one_stands_can_be_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(".") as temporary:
        (temporary / "a.png").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["here", "here/a.png"]
    monkeypatch.chdir(tmp_path)  # the one that was left is gone


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "images_2"
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "half.png").touch()
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with atomic_folder(target) as temporary:
        (temporary / "a.png").touch()
        assert not target.exists() and TEMPORARY.fullmatch(temporary.name)
    with atomic_folder(target) as temporary:
        (temporary / "b.png").touch()
        assert (target / "a.png").exists()
    assert [path.name for path in target.iterdir()] == ["b.png"] and list(target.parent.iterdir()) == [target]
