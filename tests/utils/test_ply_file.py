"""PLY files as others write them, and as nobody should."""

from pathlib import Path

import numpy as np
import plyfile
import pytest
from numpy.lib.recfunctions import repack_fields

from utils.errors import UserError
from utils.ply_file import read_vertices, write_vertices

TABLE = np.array(
    [(1.5, -2, 3, 255), (4, 5.25, 6, 0)], dtype=[("x", "<f4"), ("y", "<f8"), ("z", "<i2"), ("red", "u1")]
)
FACES = np.array([([0, 1, 0],)], dtype=[("vertex_indices", "i4", (3,))])


def save(
    path: Path, *, text: bool = False, order: str = "<", elements: tuple[str, ...] = ("vertex",)
) -> None:
    """A file of plyfile, which 3DGS uses."""
    parts = {
        "vertex": plyfile.PlyElement.describe(TABLE, "vertex", comments=["ours"]),
        "camera": plyfile.PlyElement.describe(repack_fields(TABLE[["x", "z"]]), "camera"),
        "face": plyfile.PlyElement.describe(FACES, "face"),
    }
    order = "=" if text else order
    plyfile.PlyData([parts[name] for name in elements], text, order, ["a comment"]).write(str(path))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": ">"},
        {"text": True},
        {"elements": ("vertex", "face")},
        {"text": True, "elements": ("vertex", "face")},
        {"elements": ("camera", "vertex")},
        {"text": True, "elements": ("camera", "vertex", "face")},
    ],
    ids=str,
)
def test_vertices_of_every_encoding_are_read(tmp_path: Path, options: dict) -> None:
    save(tmp_path / "a.ply", **options)
    read = read_vertices(tmp_path / "a.ply")
    assert read.dtype.names == ("x", "y", "z", "red")
    for name in read.dtype.names:
        np.testing.assert_array_equal(read[name], TABLE[name])


def test_windows_line_ends(tmp_path: Path) -> None:
    save(tmp_path / "a.ply", text=True)
    (tmp_path / "a.ply").write_bytes((tmp_path / "a.ply").read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(read_vertices(tmp_path / "a.ply")["y"], TABLE["y"])


def test_what_is_written_is_what_plyfile_writes(tmp_path: Path) -> None:
    table = repack_fields(TABLE[["x", "y", "red"]])
    write_vertices(tmp_path / "a.ply", table)
    element = plyfile.PlyElement.describe(table, "vertex")
    plyfile.PlyData([element], byte_order="<").write(str(tmp_path / "b.ply"))
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


HEADER = "ply\nformat {format} 1.0\nelement vertex {rows}\nproperty float x\nend_header\n"


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("rows", [2, 2**40, 10**17])
def test_a_forged_count_is_refused_before_anything_is_allocated(
    tmp_path: Path, encoding: str, rows: int
) -> None:
    (tmp_path / "a.ply").write_text(HEADER.format(format=encoding, rows=rows) + "1\n")
    with pytest.raises(UserError, match=r"a\.ply: .*truncated"):
        read_vertices(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no header"),
        ("plyx", "no header"),
        (HEADER.format(format="zip", rows=1), "format zip"),
        (HEADER.format(format="ascii", rows="-1"), "header line"),
        (HEADER.format(format="ascii", rows=1).replace("vertex", "point"), "no element vertex"),
        (HEADER.format(format="ascii", rows=1).replace("property float x\n", ""), "truncated"),
        (HEADER.format(format="ascii", rows=1).replace("float", "half") + "1\n", "half"),
        (HEADER.format(format="ascii", rows=1).replace("float", "list uchar int") + "1 1\n", "lists"),
        (HEADER.format(format="ascii", rows=1).replace("end", "property float x\nend") + "1 2\n", "two prop"),
        (HEADER.format(format="ascii", rows=1) + "1 2\n", "row 1"),
        (HEADER.format(format="ascii", rows=1) + "one\n", "row 1"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(UserError, match=rf"a\.ply.*{message}"):
        read_vertices(tmp_path / "a.ply")
