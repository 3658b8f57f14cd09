"""Images of any channels: what is read is what was written, by NumPy and by tifffile."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from torch_svm_seg.data.channels import as_colours
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder


def read(path: Path) -> torch.Tensor:
    return folder(path.parent).image(0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64", "bool"])
@pytest.mark.parametrize("channels", [2, 5])
def test_arrays_are_read_as_they_are(dtype: str, channels: int, tmp_path: Path) -> None:
    values = (np.random.default_rng(0).random((20, 30, channels)) * 200).astype(dtype)
    expected = torch.from_numpy(values.astype("float32")).permute(2, 0, 1)
    for name, stored in {
        "last": values,
        "first": values.transpose(2, 0, 1),
        "fortran": np.asfortranarray(values),
    }.items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", stored)
        image = read(tmp_path / name / "a.npy")
        assert image.dtype == torch.float32 and torch.equal(image, expected)


def test_bytes_of_one_or_three_channels_are_an_ordinary_image(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for name, stored in {"colours": colours, "grey": colours[..., 0], "plane": colours[..., :1]}.items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", stored)
        (tmp_path / f"{name}_png").mkdir()
        Image.fromarray(stored.squeeze()).save(tmp_path / f"{name}_png" / "a.png")
        image = read(tmp_path / name / "a.npy")
        assert image.dtype == torch.uint8 and torch.equal(image, read(tmp_path / f"{name}_png" / "a.png"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_grey_pages_of_a_tiff_are_channels(dtype: str, compression: str | None, tmp_path: Path) -> None:
    values = (np.random.default_rng(0).random((4, 20, 30)) * 255).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", compression=compression)
    dataset = folder(tmp_path)
    assert torch.equal(dataset.image(0), torch.from_numpy(values.astype("float32")))
    assert dataset.notes.of("a") == ("TIFF of 4 grey pages, read as channels",)


def test_one_page_and_colour_pages_are_ordinary_images(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(255 - values)])
    Image.fromarray(values[..., 0]).save(tmp_path / "b.tif")
    dataset = folder(tmp_path)
    assert torch.equal(dataset.image(0), torch.from_numpy(values).permute(2, 0, 1))
    assert torch.equal(dataset.image(1), torch.from_numpy(values[None, ..., 0].repeat(3, 0)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(5), r"expected numbers \(H, W\), \(H, W, C\) or \(C, H, W\), got float64 \(5,\)"),
        (np.zeros((0, 4)), "expected numbers"),
        (np.full((4, 5, 2), np.nan), "expected finite values, got nan or inf"),
        (np.array([["a", "b"]]), "expected numbers"),
        (np.array([[{}]], dtype=object), "holds an array of object"),
    ],
)
def test_arrays_that_are_no_images_are_refused_by_name(values: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match=rf"a\.npy: {message}"):
        read(tmp_path / "a.npy")


def test_pages_of_several_sizes_are_refused_by_name(tmp_path: Path) -> None:
    Image.new("L", (6, 4)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (3, 2))])
    with pytest.raises(InputError, match=r"a\.tif: pages of 6x4 and 3x2 pixels"):
        read(tmp_path / "a.tif")


def test_damaged_arrays_are_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 2)))
    content = (tmp_path / "a.npy").read_bytes()
    for damaged in (content[:40], content[:-8], b"", b"\x93NUMPY\x09"):
        (tmp_path / "a.npy").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.npy: "):
            read(tmp_path / "a.npy")


def test_what_is_shown_stretches_from_black_to_white() -> None:
    image = torch.randn(5, 6, 7) * torch.tensor([1.0, 1e6, 1e-6, 1, 1])[:, None, None]
    shown = as_colours(image)
    assert shown.dtype == torch.uint8 and shown.shape == (3, 6, 7)
    assert shown.amin((1, 2)).tolist() == [0, 0, 0] and shown.amax((1, 2)).tolist() == [255, 255, 255]
    assert not as_colours(torch.full((2, 3, 3), 7.0)).any()
    colours = torch.randint(0, 256, (3, 6, 7), dtype=torch.uint8)
    assert as_colours(colours) is colours
