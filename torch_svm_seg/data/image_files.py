"""The image files of a data set, where a file may leave open how it is to be seen."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from PIL import ImageFile
from torch import Tensor

from torch_svm_seg.data.channels import ARRAY_SUFFIX, read_channels, read_pages
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.file_index import FileIndex
from torch_svm_seg.data.io import decoded, size_text
from torch_svm_seg.data.notes import Notes
from torch_svm_seg.data.pillow import TRANSPOSED, is_wide, open_image, orientation, wide_values
from torch_svm_seg.data.reading import PathLike

Orientation = Literal["stored", "upright"]
"""Ways to read an image with an EXIF orientation: its pixels as they are stored, or turned as viewers show it."""

USUAL_BITS = (8, 10, 12, 14, 16)
"""Bits that values of more than 8 may have."""

_MOST_LOOKED_AT = 16
_FULL_RANGE = 1 << 14  # values from here on need all 16 bits


class ImageFiles:
    """Reads images of a folder by id.

    Args:
        folder: Folder of the images.
        suffixes: Suffixes that an image may have, in lower case.
        ids: Ids of the whole data set, of which a few are looked at to tell how many bits its values have.
        orientation: How to see images with an EXIF orientation; by default the size of its mask decides.
        bits: Of values in files of 16 or 32 bits; by default those that hold the values of a few such images.
        notes: Takes notes on what was decided.

    Raises:
        InputError: ``orientation`` or ``bits`` is none of those above.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (6, 4)).save(Path(folder, "a.PNG"))
        ...     files = ImageFiles(folder, [".png"], ["a"], orientation=None, bits=None, notes=Notes())
        ...     files.read("a", files.path("a"), lambda: None).shape
        torch.Size([3, 4, 6])
    """

    def __init__(
        self,
        folder: PathLike,
        suffixes: Sequence[str],
        ids: Sequence[str],
        orientation: Orientation | None,
        bits: int | None,
        notes: Notes,
    ) -> None:
        if orientation not in (None, *get_args(Orientation)):
            raise InputError(f"orientation: expected {' or '.join(get_args(Orientation))}, got {orientation!r}")
        if bits not in (None, *USUAL_BITS):
            raise InputError(f"bits: expected one of {', '.join(map(str, USUAL_BITS))}, got {bits}")
        self.index = FileIndex(folder, suffixes)
        self._ids, self._orientation, self._bits, self._notes = tuple(ids), orientation, bits, notes
        self._looked_at = False

    def path(self, id: str) -> Path:
        """Return the file of an image.

        Raises:
            InputError: There is none, or there are several.
        """
        found = self.index.find(id)
        if found is None:
            suffixes = ", ".join(self.index.suffixes)
            raise InputError(f"{self.index.folder / id}: no such image, with suffix {suffixes}")
        return found

    def read(self, id: str, path: Path, mask_size: Callable[[], Sequence[int] | None]) -> Tensor:
        """Read an image.

        Args:
            id: Its id.
            path: Its file.
            mask_size: Returns height and width of its mask, if there is one.

        Returns:
            RGB values, uint8 of shape (3, H, W); or other channels, float32 of shape (C, H, W), see
            :mod:`~torch_svm_seg.data.channels`.

        Raises:
            InputError: The file is damaged, or leaves open how it is to be read.
        """
        if path.suffix.lower() == ARRAY_SUFFIX:
            return read_channels(path)
        with open_image(path) as image:
            if (pages := read_pages(image, path)) is not None:
                self._notes.about(id, f"TIFF of {len(pages)} grey pages, read as channels")
                return pages
            upright = self._is_upright(id, path, image, mask_size)
            bits = self._bits_of(id, path, image) if is_wide(image) else 16
            return decoded(image, path, upright, bits)

    def _is_upright(
        self, id: str, path: Path, image: ImageFile.ImageFile, mask_size: Callable[[], Sequence[int] | None]
    ) -> bool:
        """Whether an image is to be turned by its EXIF orientation."""
        turn = orientation(image)
        if turn == 1:
            return False
        if self._orientation is None:
            chosen = _orientation_of_mask(path, turn, (image.height, image.width), mask_size())
        else:
            chosen = self._orientation
        how = "turned as viewers show it" if chosen == "upright" else "as its pixels are stored"
        self._notes.about(id, f"EXIF orientation: image read {how} (--exif)")
        return chosen == "upright"

    def _bits_of(self, id: str, path: Path, image: ImageFile.ImageFile) -> int:
        """Return how many bits the values of an image have."""
        bits = self.bits
        if bits is None:
            largest = int(wide_values(image, path).max())
            if largest < _FULL_RANGE:
                raise InputError(
                    f"{path}: values up to {largest} in a file of 16 bits, and few images of the set are such files; "
                    f"say how many bits they have by --image-bits {'|'.join(map(str, USUAL_BITS))}"
                )
            bits = 16
        if bits != 16:
            self._notes.about(id, f"values of {bits} bits in files of 16 or 32, scaled to 8 (--image-bits)")
        return bits

    @property
    def bits(self) -> int | None:
        """Bits of the values in files of 16 or 32 bits; None if the images looked at have none such."""
        if self._bits is None and not self._looked_at:
            self._bits = _bits_of_values(self._looked_at_paths())
            self._looked_at = True
        return self._bits

    def _looked_at_paths(self) -> list[Path]:
        step = max(1, len(self._ids) // _MOST_LOOKED_AT)
        found = (self.index.find(id) for id in self._ids[::step][:_MOST_LOOKED_AT])
        return [path for path in found if path is not None]


def _orientation_of_mask(
    path: Path, turn: int, stored: tuple[int, int], mask_size: Sequence[int] | None
) -> Orientation:
    """Return on which of two ways of seeing an image its mask was drawn.

    Args:
        path: The image, for messages.
        turn: Its EXIF orientation, not 1.
        stored: Its height and width as stored.
        mask_size: Those of its mask, if there is one.

    Raises:
        InputError: Both have the mask's size, or none has.
    """
    if mask_size is None:
        return "stored"
    upright = stored[::-1] if turn in TRANSPOSED else stored
    fits: list[Orientation] = []
    fits += ["stored"] if tuple(mask_size) == stored else []
    fits += ["upright"] if tuple(mask_size) == upright else []
    if len(fits) == 1:
        return fits[0]
    why = "its mask has the size of both" if fits else f"its mask has {size_text(mask_size)} pixels"
    raise InputError(
        f"{path}: EXIF orientation {turn}: {size_text(stored)} pixels as stored, {size_text(upright)} in a viewer, and "
        f"{why}; say by --exif upright or --exif stored where masks were drawn"
    )


def _bits_of_values(paths: Sequence[Path]) -> int | None:
    """Return the least bits that hold the values of those images that have more than 8; None if none has."""
    largest = [value for value in map(_largest_value, paths) if value is not None]
    return next((bits for bits in USUAL_BITS if max(largest) < 1 << bits), 16) if largest else None


def _largest_value(path: Path) -> int | None:
    """Return the largest value of an RGB or grey image of more than 8 bits; None for others, damaged ones included."""
    try:
        with open_image(path) as image:
            if not is_wide(image) or read_pages(image, path) is not None:
                return None
            return int(wide_values(image, path).max())
    except InputError:
        return None
