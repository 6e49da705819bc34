"""The container of `.glb` files: one JSON text, one block of bytes, and accessors that describe tables in it.

Everything in a file is checked before it is used: sizes against the file's, references against the lists that
they point into. Nothing outside the file is read.
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import UserError

COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@dataclass(frozen=True)
class Gltf:
    """A file's JSON and its block of bytes."""

    path: str | os.PathLike[str]
    json: Mapping[str, Any]
    binary: bytes

    def fail(self, what: str) -> UserError:
        """The error of a malformed file."""
        return UserError(f"{self.path}: malformed glTF: {what}. Copy or export it again.")

    def member(self, holder: Mapping[str, Any], name: str) -> dict[str, Any]:
        """An object's member that is an object; empty where it is missing."""
        value = holder.get(name, {})
        if not isinstance(value, dict):
            raise self.fail(f"{name} is no object")
        return value

    def objects(self, holder: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        """An object's member that is a list of objects; empty where it is missing."""
        value = holder.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.fail(f"{name} is no list of objects")
        return value

    def whole(self, holder: Mapping[str, Any], name: str, default: int | None = None) -> int:
        """An object's member that is a whole number, not negative."""
        value = holder.get(name, default)
        if type(value) is not int or value < 0:
            raise self.fail(f"{name} is {str(value)[:40]}, not a whole number")
        return value

    def entry(self, name: str, index: Any) -> dict[str, Any]:
        """The object at a place of a list of the file."""
        entries = self.objects(self.json, name)
        if type(index) is not int or not 0 <= index < len(entries):
            raise self.fail(f"no {name}[{str(index)[:40]}]")
        return entries[index]

    def accessor(self, index: Any, name: str) -> np.ndarray:
        """The table (N, k) of an accessor, float32; normalized integers become what they stand for."""
        accessor = self.entry("accessors", index)
        kind = COMPONENTS.get(self.whole(accessor, "componentType"))
        width = WIDTHS.get(str(accessor.get("type")))
        if kind is None or width is None or "sparse" in accessor or "bufferView" not in accessor:
            raise self.fail(f"{name} has a type or a layout that is not read")
        view = self.entry("bufferViews", accessor["bufferView"])
        if ("buffer" in view and view["buffer"] != 0) or "extensions" in view:
            raise self.fail(f"{name} is compressed or lies in another file")
        count = self.whole(accessor, "count")
        row = np.dtype((kind, (width,)))
        stride = self.whole(view, "byteStride", row.itemsize)
        offset = self.whole(accessor, "byteOffset", 0)
        start, length = self.whole(view, "byteOffset", 0), self.whole(view, "byteLength")
        end = offset + stride * (count - 1) + row.itemsize if count else offset
        if end > length or start + length > len(self.binary) or stride < row.itemsize:
            raise self.fail(f"{name} does not fit: {count:,} rows in {length:,} bytes")
        table = np.ndarray(
            (count, width), kind, self.binary, start + offset, (stride, np.dtype(kind).itemsize)
        )
        if kind == "<f4" or accessor.get("normalized") is not True:
            return table.astype(np.float32)
        return np.maximum(table.astype(np.float32) / np.iinfo(kind).max, -1.0)


def read_glb_file(path: str | os.PathLike[str]) -> Gltf:
    """The two chunks of a file.

    Raises:
        UserError: another format, or a malformed or truncated file.
    """
    with open(path, "rb") as file:
        data = file.read()
    empty = Gltf(path, {}, b"")
    if len(data) < 20 or data[:4] != b"glTF":
        raise empty.fail("no header")
    version, total, size, kind = struct.unpack_from("<III4s", data, 4)
    if version != 2 or kind != b"JSON":
        raise empty.fail(f"version {version}, first chunk {kind!r}")
    if total > len(data) or 20 + size > len(data):
        raise empty.fail(f"truncated at {len(data):,} bytes")
    try:
        described = json.loads(data[20 : 20 + size])
    except (ValueError, RecursionError) as error:
        raise empty.fail(f"its JSON cannot be read ({str(error)[:80]})") from error
    if not isinstance(described, dict):
        raise empty.fail("its JSON is no object")
    at = 20 + size
    if len(data) < at + 8:
        return Gltf(path, described, b"")
    length, kind = struct.unpack_from("<I4s", data, at)
    if kind != b"BIN\0" or at + 8 + length > len(data):
        raise empty.fail("its second chunk is truncated or not binary")
    return Gltf(path, described, data[at + 8 : at + 8 + length])
