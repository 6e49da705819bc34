"""`.glb` files: what the extension asks for, round trips, and files that nobody should trust."""

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scene.formats.glb import read_glb, write_glb
from scene.formats.losses import losses
from tests.gaussians import random_params
from utils.errors import UserError

KHR = "KHR_gaussian_splatting"


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the bytes of a file."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def written(path: Path, described: object, binary: bytes) -> Path:
    """A file of a JSON and bytes."""
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0")
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks) + len(binary)) + chunks + binary)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of five Gaussians of degree 3."""
    write_glb(tmp_path / "a.glb", random_params(5))
    return tmp_path / "a.glb"


def with_degree(params: dict[str, torch.Tensor], degree: int) -> dict[str, torch.Tensor]:
    """The model with fewer SH bands."""
    return {**params, "f_rest": params["f_rest"][:, : (degree + 1) ** 2 - 1]}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_nothing_but_identities_is_lost(tmp_path: Path, degree: int) -> None:
    params = with_degree(random_params(300), degree)
    write_glb(tmp_path / "a.glb", params)
    lost = losses(params, read_glb(tmp_path / "a.glb"))
    assert lost.centre == lost.colour == lost.view_dependence == 0
    assert lost.scale < 1e-5 and lost.opacity < 1e-6 and lost.degrees < 1e-4
    assert lost.degree == lost.degree_left == degree and lost.identities


def test_the_attributes_are_those_of_the_extension(file: Path) -> None:
    described, binary = parts(file)
    params = random_params(5)
    (primitive,) = described["meshes"][0]["primitives"]
    assert primitive["mode"] == 0 and described["extensionsUsed"] == [KHR]
    assert primitive["extensions"][KHR] == {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    names = {f"{KHR}:SH_DEGREE_{band}_COEF_{index}" for band in range(4) for index in range(2 * band + 1)}
    fixed = {"POSITION", "COLOR_0", *(f"{KHR}:{name}" for name in ("ROTATION", "SCALE", "OPACITY"))}
    assert set(primitive["attributes"]) == names | fixed

    def floats(name: str, width: int) -> np.ndarray:
        view = described["bufferViews"][primitive["attributes"][name]]
        return np.frombuffer(binary, "<f4", 5 * width, view["byteOffset"]).reshape(5, width)

    np.testing.assert_allclose(floats(f"{KHR}:SCALE", 3), params["scaling"].exp(), rtol=1e-6)
    np.testing.assert_allclose(floats(f"{KHR}:OPACITY", 1), params["opacity"].sigmoid(), rtol=1e-6)
    turn = torch.nn.functional.normalize(params["rotation"])
    np.testing.assert_allclose(floats(f"{KHR}:ROTATION", 4), turn[:, [1, 2, 3, 0]], rtol=1e-5)
    np.testing.assert_array_equal(floats(f"{KHR}:SH_DEGREE_2_COEF_1", 3), params["f_rest"][:, 4])


@pytest.mark.parametrize("up", [(0, 1, 0), (0, -1, 0), (0, 0, 2), (0.3, -0.8, 0.1)])
def test_the_node_stands_the_scene_upright(tmp_path: Path, up: tuple[float, ...]) -> None:
    write_glb(tmp_path / "a.glb", random_params(1), up)
    x, y, z, w = parts(tmp_path / "a.glb")[0]["nodes"][0]["rotation"]
    vector, real = np.array([x, y, z]), w
    direction = np.array(up) / np.linalg.norm(up)
    turned = direction + 2 * np.cross(vector, np.cross(vector, direction) + real * direction)
    np.testing.assert_allclose(turned, [0, 1, 0], atol=1e-6)


def test_what_other_writers_do_is_read(file: Path) -> None:
    """Logarithms of scales (an older draft), opacities in bytes, interleaved rows."""
    params = random_params(5)
    described, binary = parts(file)
    attributes = described["meshes"][0]["primitives"][0]["attributes"]
    scale = described["bufferViews"][attributes[f"{KHR}:SCALE"]]
    block = bytearray(binary)
    rows = np.zeros((5, 4), "<f4")
    rows[:, :3] = params["scaling"]
    scale |= {"byteOffset": len(block), "byteLength": 80, "byteStride": 16}
    block += rows.tobytes()
    opacity = attributes[f"{KHR}:OPACITY"]
    described["bufferViews"][opacity] = {"buffer": 0, "byteOffset": len(block), "byteLength": 5}
    described["accessors"][opacity] |= {"componentType": 5121, "normalized": True}
    block += bytes([0, 1, 128, 254, 255])
    back = read_glb(written(file, described, bytes(block)))
    np.testing.assert_allclose(back["scaling"], params["scaling"], rtol=1e-5)
    np.testing.assert_allclose(back["opacity"].sigmoid()[:, 0] * 255, [0, 1, 128, 254, 255], atol=1e-4)


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Sets the member at a path such as `meshes/0/primitives`; None takes it away."""

    def apply(described: dict[str, Any]) -> None:
        *way, last = path.split("/")
        holder: Any = described
        for step in way:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        key = int(last) if isinstance(holder, list) else last
        if value is None:
            del holder[key]
        else:
            holder[key] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("accessors/0/count", 2**40), r"POSITION does not fit: 1,099,511,627,776 rows"),
        (change("accessors/0/count", -1), "count is -1"),
        (change("accessors/0/count", 4), "unequal counts"),
        (change("accessors/0/type", "VEC2"), "unequal counts or types"),
        (change("accessors/0/bufferView", 99), r"no bufferViews\[99\]"),
        (change("accessors/0/componentType", 7), "not read"),
        (change("accessors/0/componentType", [5126]), "componentType is"),
        (change("accessors/0/type", {}), "not read"),
        (change("bufferViews/0/byteOffset", 10**9), "does not fit"),
        (change("bufferViews/0/byteStride", 1), "does not fit"),
        (change("bufferViews/0/buffer", 1), "another file"),
        (change("accessors", {}), "accessors is no list"),
        (change("meshes/0/primitives", []), "0 primitives"),
        (change("meshes/0/primitives/0/extensions", 3), "extensions is no object"),
        (change(f"meshes/0/primitives/0/attributes/{KHR}:SCALE", None), f"no attribute {KHR}:SCALE"),
        (change(f"meshes/0/primitives/0/extensions/{KHR}", {"extensions": {"SPZ": {}}}), "compressed by SPZ"),
    ],
)
def test_a_forged_description_is_an_error(file: Path, damage: Callable[..., None], message: str) -> None:
    described, binary = parts(file)
    damage(described)
    with pytest.raises(UserError, match=message):
        read_glb(written(file, described, binary))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_damaged_byte_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("glb")
    write_glb(folder / "a.glb", with_degree(random_params(2), 0))
    whole = bytearray((folder / "a.glb").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.glb").write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(UserError):
        assert all(tensor.isfinite().all() for tensor in read_glb(folder / "a.glb").values())


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff\xfe", b"[]", b"{"])
def test_a_json_that_is_none_is_an_error(tmp_path: Path, text: bytes) -> None:
    head = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON")
    (tmp_path / "a.glb").write_bytes(head + text)
    with pytest.raises(UserError, match="its JSON"):
        read_glb(tmp_path / "a.glb")
