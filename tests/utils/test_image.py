"""Images: files, PSNR, the colours of identity maps and of ids."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.errors import UserError
from utils.image import (
    colorize_ids,
    fit_pca,
    id_palette,
    image_size,
    is_deep,
    open_image,
    pca_colors,
    psnr,
    read_image,
    read_pixels,
    save_png,
    to_uint8,
)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_psnr_of_a_constant_error() -> None:
    image = torch.full((3, 4, 5), 0.5)
    assert psnr(image, image + 0.1).item() == pytest.approx(20.0, abs=1e-4)
    assert psnr(image, image).item() == float("inf")


def test_a_png_brings_back_the_same_bytes(tmp_path: Path) -> None:
    image = to_uint8(noise(3, 7, 5))
    save_png(tmp_path / "a.png", image)
    assert torch.equal(to_uint8(read_image(tmp_path / "a.png")), image)
    save_png(tmp_path / "b.png", image.float() / 255.0)
    assert torch.equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png"))


def test_values_out_of_range_are_clamped() -> None:
    assert to_uint8(torch.tensor([-1.0, 0.0, 0.5, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    save_png(path, noise(3, 40, 40))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cut\.png: cannot be read as an image .*Copy the file again"):
        read_image(path)
    assert image_size(path) == (40, 40)  # the header is whole


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png: cannot be read as an image"):
        image_size(tmp_path / "none.png")


def test_pixels_are_rows_of_red_green_blue(tmp_path: Path) -> None:
    image = torch.zeros(3, 2, 5, dtype=torch.uint8)
    image[0, 1, 3], image[2, 0, 4] = 255, 7
    save_png(tmp_path / "a.png", image)
    pixels = read_pixels(tmp_path / "a.png")
    assert pixels.shape == (2, 5, 3) and pixels.dtype == "uint8"
    assert pixels[1, 3].tolist() == [255, 0, 0] and pixels[0, 4].tolist() == [0, 0, 7]


def test_a_reader_says_what_it_expected_and_passes_errors_for_users_on(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_png(path, noise(3, 4, 4))
    expected = r"a\.png: cannot be read as a mask \(pixel format RGB\)\. Write it"
    with pytest.raises(UserError, match=expected), open_image(path, "a mask", "Write it again.") as file:
        raise ValueError(f"pixel format {file.mode}")
    with pytest.raises(UserError, match=r"^mine$"), open_image(path):
        raise UserError("mine")


def test_one_fit_gives_a_feature_the_same_colour_in_every_map() -> None:
    maps = [torch.randn(16, 8, 9, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    fit = fit_pca(maps)
    whole = pca_colors(maps[1], fit)
    assert whole.shape == (3, 8, 9) and whole.min() >= 0 and whole.max() <= 1
    torch.testing.assert_close(pca_colors(maps[1][:, 2:5, 3:4], fit), whole[:, 2:5, 3:4])


def test_the_first_colour_follows_the_direction_of_most_variance() -> None:
    direction = torch.nn.functional.normalize(torch.arange(1.0, 17.0), dim=0)
    amount = noise(10, 10)
    features = direction[:, None, None] * amount + 1e-3 * noise(16, 10, 10)
    fit = fit_pca([features])
    assert abs(fit.basis[:, 0] @ direction).item() == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(fit.basis.T @ fit.basis, torch.eye(3), atol=1e-5, rtol=0)
    first = pca_colors(features, fit)[0].flatten()
    assert torch.corrcoef(torch.stack([first, amount.flatten()]))[0, 1] > 0.999


def test_a_constant_map_has_finite_colours() -> None:
    features = torch.ones(16, 4, 4)
    assert torch.isfinite(pca_colors(features, fit_pca([features]))).all()


def test_ids_have_distinct_colours_and_zero_is_black() -> None:
    palette = id_palette(256)
    assert palette[0].tolist() == [0, 0, 0]
    assert len(torch.unique(palette, dim=0)) == 256
    assert torch.equal(id_palette(10), palette[:10])  # an id keeps its colour


def test_colorized_ids_are_the_palette_at_each_pixel() -> None:
    ids = torch.tensor([[0, 3], [200, 3]], dtype=torch.int16)
    assert torch.equal(colorize_ids(ids), id_palette(201)[ids.long()].permute(2, 0, 1))


def test_ids_coded_as_colours_cost_no_more_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(*color: float) -> tuple[float, float, float]:
        made.append(color)
        return color[0], color[1], color[2]

    monkeypatch.setattr("colorsys.hsv_to_rgb", counted)
    drawn = colorize_ids(torch.tensor([[0, 60_000], [777, 0]], dtype=torch.int32))
    assert len(made) == 2 and len(torch.unique(drawn.flatten(1), dim=1).T) == 3


GREYS = np.array([[0, 257 * 10, 65535]], dtype=np.uint16)


def test_16_bit_pictures_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(GREYS).save(tmp_path / "grey.png")
    Image.fromarray(GREYS).save(tmp_path / "grey.tif")
    Image.fromarray(GREYS.astype(np.int32)).save(tmp_path / "int.tif")
    for name in ("grey.png", "grey.tif", "int.tif"):
        assert read_pixels(tmp_path / name)[0, :, 1].tolist() == [0, 10, 255]
        with open_image(tmp_path / name) as file:
            assert is_deep(file)
    deep_rgb(tmp_path / "rgb.png", GREYS)
    assert read_pixels(tmp_path / "rgb.png")[0, :, 1].tolist() == [0, 10, 255]
    with open_image(tmp_path / "rgb.png") as file:
        assert is_deep(file)


def deep_rgb(path: Path, greys: np.ndarray) -> None:
    """A PNG of 16 bits per channel, which PIL cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width = greys.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in greys)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


@pytest.mark.parametrize("values", [np.array([[0.5, 1.5]], np.float32), np.array([[0, 70_000]], np.int32)])
def test_values_without_a_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: .*32-bit .* 8 or 16 bits"):
        read_pixels(tmp_path / "a.tif")


def test_a_picture_of_too_many_pixels_is_refused_with_the_remedy(tmp_path: Path) -> None:
    Image.new("1", (16_000, 12_000)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: more than 179 megapixels .*Shrink it"):
        image_size(tmp_path / "a.png")


def test_a_forged_size_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", noise(3, 4, 4))
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 12_000, 12_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: truncated or damaged, 12000x12000 do not fit"):
        image_size(tmp_path / "a.png")


def test_a_chunk_longer_than_the_file_takes_no_memory(tmp_path: Path) -> None:
    """A finding of the fuzzer: 84 bytes took 1.2 GB."""
    save_png(tmp_path / "a.png", noise(3, 4, 4))
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[33:37] = struct.pack(">I", 2**30)  # the length of the pixels
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: truncated or damaged"):
        read_pixels(tmp_path / "a.png")
