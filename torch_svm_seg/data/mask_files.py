"""Folders of masks: their files by image id, and the form they are in."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from torch_svm_seg.data.constants import MASK_SUFFIXES, VOC_CLASSES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.file_index import FileIndex
from torch_svm_seg.data.mask_forms import (
    GREYS,
    MASK_FORMS,
    Colours,
    StoredMask,
    as_colours,
    as_ids,
    is_renumbered,
    is_renumbered_grey,
    only_0_and_255,
    used_values,
    voc_colours,
)
from torch_svm_seg.data.notes import Notes
from torch_svm_seg.data.palette import voc_palette
from torch_svm_seg.data.pillow import open_image
from torch_svm_seg.data.reading import PathLike

_RECORD = "run.json"


class MaskFiles:
    """Reads the masks of a folder by image id, in the form that a witness tells; see :mod:`.mask_forms`.

    Args:
        folder: Folder of the masks.
        class_names: Name of each class id, background first.
        ids: Ids of the whole data set; all of its masks together tell whether they hold but 0 and 255.
        form: Name in :data:`~torch_svm_seg.data.mask_forms.MASK_FORMS`; by default what the files show.
        colours: Class ids of known colours; by default those of PASCAL VOC and labelme.
        notes: Takes notes on masks that are not read as they are stored.

    Raises:
        InputError: There is no such form.

    Examples:
        >>> import tempfile, torch
        >>> from torch_svm_seg.data.io import save_mask
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_mask(Path(folder, "a.png"), torch.tensor([[0, 1], [255, 2]]))
        ...     MaskFiles(folder, ["background", "cat", "dog"], ids=["a"]).read("a").tolist()
        [[0, 1], [255, 2]]
    """

    def __init__(
        self,
        folder: PathLike,
        class_names: Sequence[str],
        ids: Sequence[str],
        form: str | None = None,
        colours: Colours | None = None,
        notes: Notes | None = None,
    ) -> None:
        if form is not None and form not in MASK_FORMS:
            raise InputError(f"--masks-form: expected one of {', '.join(MASK_FORMS)}, got {form!r}")
        self.folder, self._ids, self._form = Path(folder), tuple(ids), form
        self._number, self._is_voc = len(class_names), tuple(class_names) == VOC_CLASSES or colours is not None
        self._usual = voc_palette() if colours is None else []
        self._colours = voc_colours() if colours is None else colours
        self._notes = Notes() if notes is None else notes
        self._index = FileIndex(folder, MASK_SUFFIXES)
        self._by_set: dict[str, bool] = {}

    def find(self, id: str) -> Path | None:
        """Return the mask file of an image; None if there is none."""
        return self._index.find(id)

    def path(self, id: str) -> Path:
        """Return where the mask of an image lies, or else would lie."""
        return self.find(id) or self.folder / f"{id}.png"

    def size(self, id: str) -> tuple[int, int] | None:
        """Return height and width of the mask of an image; None if there is none, or it cannot be read."""
        try:
            path = self.find(id)
            if path is None:
                return None
            with open_image(path) as image:
                return image.height, image.width
        except InputError:
            return None

    def read(self, id: str) -> Tensor:
        """Read the mask of an image.

        Returns:
            Class ids, int64 of shape (H, W), which may be unknown ones.

        Raises:
            InputError: The file is missing or damaged, or leaves open what it means.
        """
        mask = self._stored(id)
        if self._form is not None:
            return MASK_FORMS[self._form](mask, self._colours, self._number)
        if mask.in_colour:
            return self._in_colour(id, mask)
        if is_renumbered_grey(mask, self._number):
            self._notes.about(id, "mask with a renumbered palette of greys, read by their values")
            return as_colours(mask, GREYS, self._number)
        if is_renumbered(mask, self._colours, self._number):
            return self._renumbered(id, mask)
        if self.is_binary and only_0_and_255(mask.values):
            self._notes.about(id, "mask of 0 and 255, as all of the set: 255 is the object (--masks-form binary)")
            return MASK_FORMS["binary"](mask, self._colours, self._number)
        return mask.values

    @property
    def is_binary(self) -> bool:
        """Whether the masks of the set hold 0 and 255 and nothing else, and are not this project's own.

        Raises:
            InputError: They do, but there are more than two classes.
        """
        binary = self._once("binary", self._holds_only_0_and_255)
        if binary and self._number != 2:
            raise InputError(
                f"{self.folder}: all masks hold only 0 and 255, but there are {self._number} classes; give "
                "--class-names with the two if 255 is the object, or --masks-form ids if it is no label"
            )
        return binary

    @property
    def set_sources(self) -> tuple[str, ...]:
        """Facts that only all masks of the set together show, and that decide how each is read; empty as a rule."""
        return ("binary",) if self._number == 2 and self._form is None and self.is_binary else ()

    def _in_colour(self, id: str, mask: StoredMask) -> Tensor:
        """Return the classes of an image in colour; black alone is a mask only among others that have more colours."""
        if set(mask.colours.values()) == {(0, 0, 0)} and not self._once("colours", self._holds_colours):
            return as_ids(mask, self._colours, self._number)
        ids = as_colours(mask, self._colours, self._number)
        self._notes.about(id, "mask in colour, read by the colours of the known palette (--masks-form colors)")
        return ids

    def _renumbered(self, id: str, mask: StoredMask) -> Tensor:
        """Return the classes of a palette image whose stored colours are those of other ids."""
        if not self._is_voc:
            raise InputError(
                f"{mask.path}: stores ids {list(mask.colours)} in the colours of ids "
                f"{[self._colours[colour] for colour in mask.colours.values()]}; say by --masks-form ids or "
                "--masks-form colors which are right"
            )
        self._notes.about(id, "mask with a renumbered palette, read by its colours (--masks-form colors)")
        return as_colours(mask, self._colours, self._number)

    def _stored(self, id: str) -> StoredMask:
        path = self.path(id)
        with open_image(path) as image:
            return StoredMask.of(image, path, self._usual)

    def _once(self, name: str, question: Callable[[], bool]) -> bool:
        """Answer a question about the whole set once."""
        if name not in self._by_set:
            self._by_set[name] = question()
        return self._by_set[name]

    def _holds_only_0_and_255(self) -> bool:
        if any((folder / _RECORD).is_file() for folder in (self.folder, self.folder.parent)):
            return False  # masks that expand.py or train.py wrote, where 255 is unsure
        found: set[int] = set()
        for id in self._ids:
            mask = self._readable(id)
            found |= set() if mask is None else set(used_values(mask.values))
            if found - {0, 255}:
                return False
        return found == {0, 255}

    def _holds_colours(self) -> bool:
        """Whether a mask of the set is an image in the palette's colours, and not in black alone."""
        for id in self._ids:
            mask = self._readable(id)
            if mask is not None and mask.in_colour and set(mask.colours.values()) != {(0, 0, 0)}:
                return all(colour in self._colours for colour in mask.colours.values())
        return False

    def _readable(self, id: str) -> StoredMask | None:
        try:
            return None if self.find(id) is None else self._stored(id)
        except InputError:
            return None
