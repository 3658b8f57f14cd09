"""Images whose files leave open how they are to be seen: EXIF, bits, suffixes, formats."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from torch_svm_seg.data.dataset import Conventions, ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.data.io import read_image, read_mask, save_mask

SIZE = (24, 32)
ORIENTATION = 0x0112


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Blocks of 8 pixels, which JPEG keeps nearly as they are."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)


def save_turned(path: Path, pixels: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path / "images"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_upright_is_what_pillow_shows(tmp_path: Path, orientation: int, suffix: str) -> None:
    save_turned(tmp_path / f"a{suffix}", picture(), orientation)
    with Image.open(tmp_path / f"a{suffix}") as stored:
        expected = np.array(ImageOps.exif_transpose(stored))
    assert np.array_equal(read_image(tmp_path / f"a{suffix}", upright=True).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("mask_size", "shape"), [((24, 32), (24, 32)), ((32, 24), (32, 24))])
def test_the_mask_s_size_tells_whether_it_was_drawn_upright(
    images: Path, mask_size: tuple[int, int], shape: tuple[int, int]
) -> None:
    save_turned(images / "a.jpg", picture(), 6)
    save_mask(images.parent / "masks" / "a.png", torch.ones(mask_size, dtype=torch.long))
    dataset = folder(images, images.parent / "masks")
    item = dataset[0]
    assert item.image.shape[1:] == shape and item.mask is not None
    assert torch.equal(item.image, read_image(images / "a.jpg", upright=shape != SIZE))
    assert "EXIF orientation" in dataset.notes.lines()[-1]


@pytest.mark.parametrize(("orientation", "size"), [(3, (24, 32)), (2, (24, 32)), (6, (30, 30)), (6, (24, 31))])
def test_where_the_size_does_not_tell_the_flag_is_named(images: Path, orientation: int, size: tuple[int, int]) -> None:
    pixels = picture() if size != (30, 30) else picture(size=(32, 32))[:30, :30]
    save_turned(images / "a.jpg", pixels, orientation)
    save_mask(images.parent / "masks" / "a.png", torch.ones(size, dtype=torch.long))
    with pytest.raises(InputError, match=rf"a\.jpg: EXIF orientation {orientation}: .*--exif upright"):
        folder(images, images.parent / "masks")[0]
    if size != (24, 31):
        for exif in ("upright", "stored"):
            item = folder(images, images.parent / "masks", conventions=Conventions(exif=exif))[0]
            assert torch.equal(item.image, read_image(images / "a.jpg", upright=exif == "upright"))


def test_an_image_without_a_mask_is_seen_as_stored_and_said_so(images: Path) -> None:
    save_turned(images / "a.jpg", picture(), 6)
    dataset = folder(images)
    assert dataset.image(0).shape == (3, *SIZE)
    assert dataset.notes.of("a") == ("EXIF orientation: image read as its pixels are stored (--exif)",)


def save_wide(path: Path, largest: int, kind: type = np.uint16) -> np.ndarray:
    values = np.linspace(0, largest, 24 * 32).reshape(24, 32).astype(kind)
    Image.fromarray(values.astype(np.int32) if kind is np.int32 else values).save(path)
    return values


@pytest.mark.parametrize(
    ("largest", "kind", "bits"),
    [(1023, np.uint16, 10), (4095, np.uint16, 12), (16383, np.uint16, 14), (65535, np.uint16, 16), (255, np.int32, 8)],
)
def test_the_range_of_a_set_of_wide_files_is_its_own(images: Path, largest: int, kind: type, bits: int) -> None:
    values = [save_wide(images / f"{name}.tif", top, kind) for name, top in (("a", largest), ("b", largest // 3))]
    dataset = folder(images)
    for index, expected in enumerate(values):
        assert torch.equal(dataset.image(index)[0].long(), torch.from_numpy(expected.astype(np.int64) >> (bits - 8)))
    said = any(f"{bits} bits" in line for line in dataset.notes.lines())
    assert said == (bits != 16)


def save_wide_colours(path: Path, values: np.ndarray) -> None:
    """Write a PNG of 16 bits a channel, (H, W, 2 or more), which Pillow does not."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    (height, width, channels), rows = values.shape, values.astype(">u2")
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b""))


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_colours_of_16_bits_have_the_range_of_their_values(images: Path, bits: int, channels: int) -> None:
    """Pillow keeps the highest 8 of the 16: of 10 bits, values up to 3."""
    values = picture().astype(np.uint16) << (bits - 8)
    opaque = np.full((*SIZE, 1), 65535, np.uint16)
    colours = values[..., :1] if channels == 2 else values
    save_wide_colours(images / "a.png", colours if channels == 3 else np.concatenate([colours, opaque], 2))
    dataset = folder(images)
    assert np.array_equal(
        dataset.image(0).permute(1, 2, 0).numpy(), (colours >> (bits - 8)).repeat(3 // colours.shape[2], 2)
    )
    assert any(f"{bits} bits" in line for line in dataset.notes.lines()) == (bits != 16)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_16_bits_in_a_tiff_have_the_range_of_their_values(images: Path, bits: int, order: str) -> None:
    save_wide_tiff(images / "a.tif", picture().astype(np.uint16) << (bits - 8), order)
    assert np.array_equal(folder(images).image(0).permute(1, 2, 0).numpy(), picture())


def save_wide_tiff(path: Path, values: np.ndarray, order: str) -> None:
    """Write a TIFF of 16 bits in each of three colours, which Pillow does not."""
    (height, width, _), content = values.shape, values.astype(f"{order}u2").tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, 200), (259, 3, 1), (262, 3, 2), (273, 4, 256), (277, 3, 3)]
    tags += [(278, 4, height), (279, 4, len(content))]
    entries = b"".join(_entry(order, tag, kind, value) for tag, kind, value in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + struct.pack(f"{order}HHH", 16, 16, 16).ljust(56, b"\0") + content)


def _entry(order: str, tag: int, kind: int, value: int) -> bytes:
    """Return the entry of a TIFF's tag, of 16 bits (kind 3) or 32."""
    held = struct.pack(f"{order}HH", value, 0) if kind == 3 and tag != 258 else struct.pack(f"{order}I", value)
    return struct.pack(f"{order}HHI", tag, kind, 3 if tag == 258 else 1) + held


def test_a_dark_image_is_no_brighter_beside_a_bright_one(images: Path) -> None:
    """All images of a set have one range, also where only some of them are opened."""
    save_wide(images / "a.png", 300)
    save_wide(images / "b.png", 60000)
    whole = folder(images)
    assert whole.image(0).max() == 1
    assert torch.equal(whole.subset([0]).image(0), whole.image(0))


def test_values_beyond_the_set_s_bits_are_an_error_and_never_clipped(images: Path) -> None:
    for number in range(100):
        save_wide(images / f"{number:03}.png", 4000)
    save_wide(images / "050.png", 20000)  # not among those looked at
    dataset = folder(images)
    assert dataset.image(0).max() == 4000 >> 4
    with pytest.raises(InputError, match=r"050\.png: pixel values up to 20000, more than 12 bits"):
        dataset.image(50)
    forced = folder(images, conventions=Conventions(bits=16))
    assert forced.image(50).max() == 20000 >> 8


def test_one_wide_file_among_others_needs_the_flag(images: Path) -> None:
    for number in range(100):
        Image.fromarray(picture()).save(images / f"{number:03}.png")
    save_wide(images / "050.png", 4000)
    with pytest.raises(InputError, match=r"050\.png: values up to 4000 .*--image-bits"):
        folder(images).image(50)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.Png", "PNG"), ("a.JPeg", "JPEG"), ("a.jfif", "JPEG"), ("a.gif", "GIF"), ("a.ppm", "PPM"), ("a.WEBP", "WEBP")],
)
def test_suffixes_are_read_in_any_case(images: Path, name: str, kind: str) -> None:
    Image.fromarray(picture()).save(images / name, format=kind)
    dataset = folder(images)
    assert dataset.ids == ("a",)
    assert (dataset.image(0).permute(1, 2, 0).int() - torch.from_numpy(picture()).int()).abs().float().mean() < 12


def test_files_that_are_no_images_are_named(images: Path) -> None:
    Image.fromarray(picture()).save(images / "a.png")
    for name in ("b.heic", "notes.txt", ".hidden.jpg"):
        (images / name).write_text("x")
    assert folder(images).notes.lines() == ["2 files in images are no images by their suffix: b.heic, notes.txt"]


def test_two_files_of_one_id_are_an_error_in_a_list_too(images: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.JPG"):
        Image.fromarray(picture()).save(images / name, format="PNG")
    (tmp_path / "list.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"a\.png: differs only in the suffix from a\.JPG"):
        folder(images, list_file=tmp_path / "list.txt").image(0)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(/tmp/x) (w) file\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("reader", [read_image, read_mask])
def test_no_other_program_is_started(tmp_path: Path, reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow starts Ghostscript for an EPS, whatever its name."""
    import subprocess

    def started(*command: object, **more: object) -> None:
        raise AssertionError(f"started {command}")

    monkeypatch.setattr(subprocess, "Popen", started)
    (tmp_path / "a.jpg").write_bytes(EPS)
    with pytest.raises(InputError, match=r"a\.jpg: not an image, or one of unknown format"):
        reader(tmp_path / "a.jpg")


def flat_png(width: int, height: int) -> bytes:
    """A greyscale PNG of one colour, made without its pixels."""
    deflate = zlib.compressobj(9)
    rows = b"".join(deflate.compress(bytes(width + 1)) for _ in range(height)) + deflate.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("reader", [read_image, read_mask])
def test_a_small_file_of_many_pixels_is_refused_undecoded(tmp_path: Path, reader) -> None:
    (tmp_path / "a.png").write_bytes(flat_png(13000, 13000))
    assert os.path.getsize(tmp_path / "a.png") < 10**6
    with pytest.raises(InputError, match=r"a\.png: 13000x13000 pixels, more than"):
        reader(tmp_path / "a.png")


def test_every_flip_in_a_mask_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """Pillow itself does not look at the checksums of a PNG's pixels."""
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 21, (20, 30)))
    save_mask(tmp_path / "a.png", mask)
    content = bytearray((tmp_path / "a.png").read_bytes())
    for position in range(0, len(content), 3):
        content[position] ^= 1 << position % 8
        (tmp_path / "b.png").write_bytes(content)
        content[position] ^= 1 << position % 8
        try:
            assert torch.equal(read_mask(tmp_path / "b.png"), mask)
        except InputError as error:
            assert "b.png: " in str(error)


def test_orientation_and_bits_are_checked(images: Path) -> None:
    with pytest.raises(InputError, match="bits: expected one of 8, 10, 12, 14, 16, got 11"):
        ImageDataset(images, None, ["a"], conventions=Conventions(bits=11))
    with pytest.raises(InputError, match="orientation: expected stored or upright"):
        ImageDataset(images, None, ["a"], conventions=Conventions(exif="left"))  # type: ignore[arg-type]
