"""A folder of images, with masks or without."""

from pathlib import Path

from torch_svm_seg.data.constants import IMAGE_SUFFIXES, VOC_CLASSES
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.data.lists import read_lines, without_image_suffix


def folder(
    images: PathLike,
    masks: PathLike | None = None,
    class_names: PathLike | None = None,
    list_file: PathLike | None = None,
) -> ImageDataset:
    """Opens a folder of one's own.

    Args:
        images: folder of images with any of :data:`IMAGE_SUFFIXES`.
        masks: folder of masks, palette or greyscale PNGs of class ids with the images' names, ``NAME.png``.
        class_names: text file with a class name a line, background first; by default the classes of PASCAL VOC.
        list_file: text file with the name of an image a line, with or without suffix, ``SUBFOLDER/NAME`` too; by
            default all images that lie directly in the folder, sorted by name.

    Raises:
        InputError: a folder or file is not there or empty, or two images have names that differ only in the suffix.
    """
    for path in (images, masks):
        if path is not None and not Path(path).is_dir():
            raise InputError(f"{path}: no such folder")
    names = VOC_CLASSES if class_names is None else read_lines(class_names)
    if list_file is None:
        ids, source = _image_stems(Path(images)), images
    else:
        ids, source = [without_image_suffix(line) for line in read_lines(list_file)], list_file
    return ImageDataset(images, masks, ids, names, IMAGE_SUFFIXES, source)


def _image_stems(images: Path) -> list[str]:
    """Lists the images in a folder by stem; hidden files are none, such as the ``._NAME.jpg`` that macOS leaves."""
    files = sorted(path for path in images.iterdir() if path.suffix in IMAGE_SUFFIXES and path.name[0] != ".")
    first: dict[str, Path] = {}
    for path in files:
        if first.setdefault(path.stem, path) != path:
            raise InputError(f"{path}: differs only in the suffix from {first[path.stem].name}")
    return list(first)
