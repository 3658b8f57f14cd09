"""Reading and writing images and masks."""

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import (
    TEMPORARY_PATTERN,
    read_image,
    read_mask,
    safe_id,
    save_mask,
    write_atomically,
    write_text_atomically,
)
from torch_svm_seg.data.palette import colorize, voc_palette

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4)


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """Return a greyscale PNG of any bit depth, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# Reading images


def test_read_image_gives_rgb_channels_first(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I"])
@pytest.mark.filterwarnings("error")
def test_read_image_converts_every_mode_to_the_same_picture(tmp_path, mode):
    white = np.zeros((4, 6), dtype=np.uint8)
    white[1:3, 2:5] = 255
    if mode.startswith("I"):
        picture = Image.fromarray((white.astype(np.uint16) * 257).astype(np.int32 if mode == "I" else np.uint16))
    else:
        picture = Image.fromarray(white).convert("RGB" if mode == "CMYK" else "L").convert(mode)
    picture.save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as stored:
        assert stored.mode == mode
    assert torch.equal(read_image(tmp_path / "a.tif"), torch.from_numpy(white).expand(3, -1, -1))


def test_read_image_scales_16_bits_to_8(tmp_path):
    Image.fromarray(np.array([[0, 255, 256, 0x1234, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[0, 0, 1, 0x12, 0xFF]]


@pytest.mark.filterwarnings("error")
def test_read_image_drops_a_palette_transparency_without_a_warning(tmp_path):
    picture = Image.fromarray(RAMP)
    picture.putpalette(voc_palette())
    picture.save(tmp_path / "a.png", transparency=bytes([0, 128] + [255] * 254))
    assert torch.equal(read_image(tmp_path / "a.png").permute(1, 2, 0), torch.from_numpy(colorize(torch.tensor(RAMP))))


def test_read_image_does_not_turn_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees to display
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.getexif()[0x0112] == 6
    assert read_image(tmp_path / "a.jpg").shape == (3, 4, 8)


@pytest.mark.parametrize("reader", [read_image, read_mask])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "not an image"),
        (b"hello", "not an image"),
        (png(30000, 30000, 8, b""), "decompression bomb"),
        (png(16, 16, 8, b"".join(b"\0" + bytes(range(i, i + 16)) for i in range(16)))[:80], "[Tt]runcated"),
    ],
)
def test_readers_name_file_and_reason_in_one_line(tmp_path, reader, content, reason):
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        reader(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_read_image_refuses_a_truncated_jpeg(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.jpg: .*truncated"):
        read_image(tmp_path / "a.jpg")


def test_read_image_refuses_a_folder(tmp_path):
    with pytest.raises(InputError, match=tmp_path.name):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("values", "reason"), [(np.float32([[0.5]]), "floating point"), (np.int32([[70000]]), "16 bits")]
)
def test_read_image_refuses_pixels_without_a_known_range(tmp_path, values, reason):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"a\.tif: .*{reason}"):
        read_image(tmp_path / "a.tif")


# Reading masks


def test_read_mask_gives_palette_indices_not_colours(tmp_path):
    picture = Image.fromarray(RAMP)
    picture.putpalette([200, 200, 200] * 256)
    picture.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert mask.dtype == torch.int64
    assert mask.tolist() == RAMP.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_read_mask_gives_grey_values(tmp_path, dtype):
    Image.fromarray((RAMP * 20).astype(dtype)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == (RAMP * 20).tolist()


@pytest.mark.parametrize(
    ("depth", "row", "ids"), [(1, 0b0110_0000, [0, 1, 1, 0]), (2, 0b00_01_10_11, [0, 1, 2, 3]), (4, 0x1F, [1, 15])]
)
def test_read_mask_gives_stored_values_of_few_bits(tmp_path, depth, row, ids):
    (tmp_path / "a.png").write_bytes(png(len(ids), 1, depth, bytes([0, row])))
    assert read_mask(tmp_path / "a.png").tolist() == [ids]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_read_mask_refuses_a_colour_picture(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"a\.png: a colour image \(mode {mode}\) is not a mask of class ids"):
        read_mask(tmp_path / "a.png")


# Writing


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_saved_mask_reads_back_with_all_ids(tmp_path, dtype):
    mask = torch.arange(256).reshape(8, 32).to(dtype)
    save_mask(tmp_path / "new" / "folder" / "a.png", mask)
    assert torch.equal(read_mask(tmp_path / "new" / "folder" / "a.png"), mask.long())


def test_saved_mask_shows_the_colours_of_voc(tmp_path):
    save_mask(tmp_path / "a.png", torch.tensor([[0, 15, 255]]))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
        assert np.array(picture.convert("RGB")).tolist() == [[[0, 0, 0], [192, 128, 128], [224, 224, 192]]]


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (torch.zeros(2, 2), TypeError),
        (torch.zeros(1, 2, 2, dtype=torch.long), ValueError),
        (torch.zeros(0, 2, dtype=torch.long), ValueError),
        (torch.tensor([[256]]), ValueError),
        (torch.tensor([[-1]]), ValueError),
    ],
)
def test_save_mask_refuses_what_is_no_mask(tmp_path, mask, error):
    with pytest.raises(error, match="mask: expected"):
        save_mask(tmp_path / "a.png", mask)
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_the_usual_permissions(tmp_path):
    write_text_atomically(tmp_path / "written", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_text_is_replaced_as_a_whole(tmp_path):
    write_text_atomically(tmp_path / "a.txt", "a longer text")
    write_text_atomically(tmp_path / "a.txt", "kürzer\n")
    assert (tmp_path / "a.txt").read_bytes() == "kürzer\n".encode()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_writing_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    target = tmp_path / "a.png"
    target.write_text("old")

    def write(stream):
        stream.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(target, write)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_text() == "old"


def test_unfinished_files_are_recognised_and_never_taken_for_masks(tmp_path):
    while_writing = []
    write_atomically(tmp_path / "a.png", lambda stream: while_writing.extend(tmp_path.iterdir()))
    (unfinished,) = while_writing
    assert unfinished.match(TEMPORARY_PATTERN)
    assert not unfinished.match("*.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_full_disk_is_an_os_error_that_names_the_target(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        save_mask(tmp_path / "a.png", torch.zeros(4, 4, dtype=torch.long))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_full_is_reported_alike(tmp_path):
    def write(_):
        with open("/dev/full", "wb") as full:
            full.write(b"x")

    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "a.txt", write)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_an_os_error_that_names_the_target(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"a\.txt"):
        write_text_atomically(tmp_path / "file" / "a.txt", "x")


# Colours


def test_palette_is_the_one_of_voc():
    palette = np.array(voc_palette()).reshape(-1, 3)
    assert palette.shape == (256, 3)
    assert len(np.unique(palette, axis=0)) == 256
    known = {1: (128, 0, 0), 8: (64, 0, 0), 12: (64, 0, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {id: tuple(palette[id].tolist()) for id in known} == known


def test_palette_is_the_one_in_real_masks(voc_root):
    path = next((voc_root / "VOCdevkit" / "VOC2012" / "SegmentationClass").glob("*.png"))
    with Image.open(path) as picture:
        stored = picture.getpalette()
    assert voc_palette()[: len(stored)] == stored


def test_colorize_paints_each_pixel():
    assert colorize(torch.tensor([[0, 8], [1, 255]])).tolist() == [
        [[0, 0, 0], [64, 0, 0]],
        [[128, 0, 0], [224, 224, 192]],
    ]


# Ids


@pytest.mark.parametrize("id", ["2007_000063", "a/b", "IMG 1 (2)", "v1.2-final", "写真", "..hidden", "a..b"])
def test_safe_id_keeps_plain_names(id):
    assert safe_id(id) == id


@pytest.mark.parametrize(
    "id",
    [
        *("", ".", "..", "/etc/passwd", "../a", "a/../b", "a/..", "a//b", "a/", "./a"),
        *("a\\b", "..\\a", "C:a", "a*", "a\0", "a\nb", "a\x7f", "a\u202eb"),
    ],
)
def test_safe_id_refuses_names_that_can_leave_their_folder(id):
    with pytest.raises(InputError) as caught:
        safe_id(id)
    assert repr(id) in str(caught.value)
    assert "\n" not in str(caught.value)
