"""The PLY format: the vertices of a file as a NumPy table, in any of its three encodings.

A file is a header that lists elements (`vertex`, `face`, ...) with their counts and properties, and their
rows in that order. Only `vertex` is read. A count is held against the file's size before anything is
allocated: a table takes no more memory than eight times the file.
"""

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write

MAGIC = b"ply"
LONGEST_HEADER = 2**20  # bytes
BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float": "f4",
    "double": "f8",
    "float32": "f4",
    "float64": "f8",
}
NAMES = {"f4": "float", "f8": "double", "u1": "uchar"}  # what is written


class Element(NamedTuple):
    """What the header says of an element; a list's row has no size of its own."""

    name: str
    rows: int
    columns: list[tuple[str, str]]  # name, NumPy type
    has_lists: bool


class _Malformed(ValueError):
    """What is wrong with a file, without its name."""


def read_vertices(path: str | os.PathLike[str], name: str = "vertex") -> np.ndarray:
    """The vertices of a file, or its element `name`: (N,) of a structured type, a field for each property.

    Raises:
        UserError: the file is not there, is no PLY, truncated or malformed, or its vertices hold lists.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: not there. Check the folder, or train first.")
    try:
        with open(path, "rb") as file:
            return _read(file, os.path.getsize(path), name)
    except _Malformed as error:
        raise UserError(
            f"{path}: cannot be read as a PLY file of vertices ({error}). Write or copy it again."
        ) from error


def write_vertices(path: str | os.PathLike[str], vertices: np.ndarray) -> None:
    """Write a table (N,) of float32, float64 and uint8 fields, binary, little endian, atomically."""
    types = [(name, vertices.dtype[name].str[1:]) for name in vertices.dtype.names or ()]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property {NAMES[kind]} {name}" for name, kind in types),
        "end_header\n",
    ]
    table = vertices.astype([(name, "<" + kind) for name, kind in types], copy=False)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(np.ascontiguousarray(table).view(np.uint8).data)  # tofile does not say that a disk is full


def _read(file: io.BufferedReader, size: int, name: str) -> np.ndarray:
    lines = _header(file)
    encoding = next((words[1:] for words in lines if words[0] == "format"), [])
    if encoding[1:] != ["1.0"] or encoding[0] not in BYTE_ORDERS:
        raise _Malformed(f"format {' '.join(encoding) or 'missing'}")
    elements = list(_elements(lines))
    before = list(itertools.takewhile(lambda element: element.name != name, elements))
    if len(before) == len(elements):
        raise _Malformed(f"no element {name}")
    vertex = elements[len(before)]
    if vertex.has_lists or any(element.has_lists for element in before):
        raise _Malformed("lists in its vertices, or before them")
    order = BYTE_ORDERS[encoding[0]]
    return _text_rows(file, size, before, vertex) if not order else _rows(file, size, order, before, vertex)


def _header(file: io.BufferedReader) -> list[list[str]]:
    """The words of every line of the header; the file then stands at the first row."""
    start = file.read(LONGEST_HEADER)
    end = start.find(b"end_header")
    line_end = start.find(b"\n", end)
    if not start.startswith(MAGIC) or end < 0 or line_end < 0:
        raise _Malformed("no header of a PLY file")
    file.seek(line_end + 1)
    text = start[:end].decode("ascii", errors="replace")
    return [words for line in text.splitlines() if (words := line.split())]


def _elements(lines: list[list[str]]) -> Iterator[Element]:
    found: list[Element] = []
    for words in lines:
        if words[0] == "element":
            if len(words) != 3 or not words[2].isascii() or not words[2].isdecimal() or len(words[2]) > 18:
                raise _Malformed(f"header line {' '.join(words)[:80]!r}")
            found.append(Element(words[1], int(words[2]), [], False))
        elif words[0] == "property":
            found[-1:] = [_with_property(found[-1] if found else None, words)]
    return iter(found)


def _with_property(element: Element | None, words: list[str]) -> Element:
    if element is not None and len(words) == 5 and words[1] == "list":
        return element._replace(has_lists=True)
    if element is None or len(words) != 3 or words[1] not in TYPES:
        raise _Malformed(f"header line {' '.join(words)[:80]!r}")
    if any(name == words[2] for name, _ in element.columns):
        raise _Malformed(f"two properties {words[2]}")
    return element._replace(columns=[*element.columns, (words[2], TYPES[words[1]])])


def _row_type(element: Element, order: str) -> np.dtype:
    return np.dtype([(name, order + kind) for name, kind in element.columns])


def _rows(
    file: io.BufferedReader, size: int, order: str, before: list[Element], vertex: Element
) -> np.ndarray:
    start = file.tell() + sum(element.rows * _row_type(element, order).itemsize for element in before)
    row = _row_type(vertex, order)
    if start + vertex.rows * row.itemsize > size:
        raise _Malformed(f"truncated: its size does not allow for {vertex.rows:,} vertices")
    if not row.itemsize:
        raise _Malformed("vertices without properties")
    file.seek(start)
    return np.fromfile(file, row, vertex.rows)


def _text_rows(file: io.BufferedReader, size: int, before: list[Element], vertex: Element) -> np.ndarray:
    """Rows of a text file, all columns float64."""
    width, skipped = len(vertex.columns), sum(element.rows for element in before)
    smallest = skipped + vertex.rows * 2 * width - 1  # a digit and a separator each, the last one perhaps not
    if not width or smallest > size:
        raise _Malformed(f"truncated: its size does not allow for {vertex.rows:,} vertices")
    rows = itertools.islice(file, skipped, skipped + vertex.rows)
    table = np.empty((vertex.rows, width))
    read = 0
    for read, line in enumerate(rows, 1):
        words = line.split()
        try:
            table[read - 1] = [float(word) for word in words]
        except ValueError as error:
            raise _Malformed(f"row {read} of its vertices: not {width} numbers") from error
    if read < vertex.rows:
        raise _Malformed(f"truncated after {read:,} of {vertex.rows:,} vertices")
    return table.view(np.dtype([(name, "f8") for name, _ in vertex.columns]))[:, 0]
