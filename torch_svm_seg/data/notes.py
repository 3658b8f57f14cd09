"""Notes on how files were read where their form left it open: what a summary must say."""

from collections.abc import Iterable


class Notes:
    """Sentences about a whole data set, and sentences about single images.

    Examples:
        >>> notes = Notes()
        >>> notes.about_all("2 files are no images: readme.txt, .DS_Store")
        >>> for id in ("cat1", "cat2"):
        ...     notes.about(id, "mask read by its colours")
        >>> notes.lines()
        ['2 files are no images: readme.txt, .DS_Store', 'mask read by its colours: 2 images']
        >>> notes.of("cat1")
        ('mask read by its colours',)
    """

    def __init__(self) -> None:
        self._general: dict[str, None] = {}
        self._by_image: dict[str, dict[str, None]] = {}

    def about_all(self, text: str) -> None:
        """Note something about the data set."""
        self._general[text] = None

    def about(self, id: str, text: str) -> None:
        """Note something about an image; said twice, it counts once."""
        self._by_image.setdefault(id, {})[text] = None

    def of(self, id: str) -> tuple[str, ...]:
        """Return the notes about an image."""
        return tuple(self._by_image.get(id, ()))

    @property
    def general(self) -> tuple[str, ...]:
        """The notes about the data set."""
        return tuple(self._general)

    def lines(self) -> list[str]:
        """Return all notes, each once, those about images with their number."""
        counts: dict[str, int] = {}
        for texts in list(self._by_image.values()):
            for text in texts:
                counts[text] = counts.get(text, 0) + 1
        return [*self.general, *counted(counts)]


def counted(counts: dict[str, int]) -> list[str]:
    """Return notes with the number of images that each is about.

    Examples:
        >>> counted({"EXIF orientation ignored": 2})
        ['EXIF orientation ignored: 2 images']
    """
    return [f"{text}: {number} image{'' if number == 1 else 's'}" for text, number in counts.items()]


def first_few(items: Iterable[object], most: int = 5) -> str:
    """Return the first items, joined by commas, with an ellipsis where there are more.

    Examples:
        >>> first_few("abcdefg", 3)
        'a, b, c, ...'
    """
    listed = list(items)
    return ", ".join(map(str, listed[:most])) + (", ..." if len(listed) > most else "")
