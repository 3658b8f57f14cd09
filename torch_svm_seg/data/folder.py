"""A custom folder of images, with masks or without."""

from pathlib import Path, PurePosixPath

from torch_svm_seg.data.class_names import ClassNames, read_class_names
from torch_svm_seg.data.constants import IMAGE_SUFFIXES, VOC_CLASSES
from torch_svm_seg.data.dataset import Conventions, ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.file_index import FileIndex, listed_files
from torch_svm_seg.data.lists import read_list
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.reading import PathLike


def folder(
    images: PathLike,
    masks: PathLike | None = None,
    class_names: PathLike | None = None,
    list_file: PathLike | None = None,
    conventions: Conventions | None = None,
) -> ImageDataset:
    """Open a custom folder.

    Args:
        images: Folder of images with any of :data:`~torch_svm_seg.data.constants.IMAGE_SUFFIXES`, in any case.
        masks: Folder of masks of class ids with the images' names, ``NAME.png``; see
            :mod:`~torch_svm_seg.data.mask_forms`.
        class_names: Text file with one class name per line, background first, see
            :mod:`~torch_svm_seg.data.class_names`; by default the classes of PASCAL VOC.
        list_file: Text file with the name of one image per line, with or without suffix, ``SUBFOLDER/NAME`` too; by
            default all images that lie directly in the folder, sorted by name.
        conventions: How to read files whose form leaves it open.

    Raises:
        InputError: A folder or file is not there or empty, or two images have names that differ only in the suffix.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as images:
        ...     Image.new("RGB", (6, 4)).save(Path(images, "a.png"))
        ...     dataset = folder(images)
        ...     dataset.ids, dataset.image(0).shape
        (('a',), torch.Size([3, 4, 6]))
    """
    for path in (images, masks):
        if path is not None and not Path(path).is_dir():
            raise InputError(f"{path}: no such folder")
    conventions = conventions or Conventions()
    classes = ClassNames(VOC_CLASSES) if class_names is None else read_class_names(class_names)
    notes = [] if classes.note is None else [classes.note]
    if classes.colours is not None:
        conventions = Conventions(conventions.exif, conventions.bits, conventions.masks, classes.colours)
    if list_file is None:
        (ids, more), source = _image_stems(Path(images)), images
    else:
        index = FileIndex(images, IMAGE_SUFFIXES)
        (ids, more), source = read_list(list_file, lambda id: index.find(id) is not None, flat=False), list_file
    dataset = ImageDataset(images, masks, ids, classes.names, IMAGE_SUFFIXES, source, conventions)
    for note in notes + more:
        dataset.notes.about_all(note)
    return dataset


def _image_stems(images: Path) -> tuple[list[str], list[str]]:
    """Return the images in a folder by stem, and a note on the files that are none by their suffix."""
    names, others = listed_files(images, IMAGE_SUFFIXES)
    first: dict[str, str] = {}
    for name in names:
        stem = name.removesuffix(PurePosixPath(name).suffix)
        if first.setdefault(stem, name) != name:
            raise InputError(f"{images / name}: differs only in the suffix from {first[stem]}")
    note = f"{len(others)} files in {images.name} are no images by their suffix: {first_few(others)}"
    if not names and others:
        raise InputError(f"{images}: no images; {note}")
    return list(first), [note] if others else []
