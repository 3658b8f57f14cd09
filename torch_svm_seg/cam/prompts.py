"""What CLIP is told that an image may show: sentences for each class, and for what is usually behind them.

The defaults are CLIP-ES's (Lin et al., CVPR 2023, section 3.2 and its code): one template that stands out by its sharp
scores, and words that say which meaning of a name is meant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch_svm_seg.data.annotation_files import read_json
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike

TEMPLATES = ("a clean origami {}.",)
"""Sentences in which a word takes the place of ``{}``; the mean of their embeddings counts."""

# fmt: off
BACKGROUND = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway",
    "railroad", "keyboard", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley",
    "bridge", "sign",
)
# fmt: on
"""What may be in an image beside its classes."""

SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        "bird": "bird avian",
        "chair": "chair seat",
        "person": "person with clothes,people,human",
        "tvmonitor": "tvmonitor screen",
    }
)
"""Words for a class in place of its name."""


@dataclass(frozen=True)
class Prompts:
    """The sentences for classes and background.

    Attributes:
        templates: See :data:`TEMPLATES`.
        background: See :data:`BACKGROUND`.
        synonyms: See :data:`SYNONYMS`; other classes go by their names.

    Raises:
        InputError: There is no template or no background, or a template lacks ``{}``.

    Examples:
        >>> Prompts(templates=("a photo of a {}.", "a {}.")).of("bird")
        ['a photo of a bird avian.', 'a bird avian.']
    """

    templates: tuple[str, ...] = TEMPLATES
    background: tuple[str, ...] = BACKGROUND
    synonyms: Mapping[str, str] = field(default_factory=lambda: SYNONYMS)

    def __post_init__(self) -> None:
        if not self.templates or not self.background:
            raise InputError("prompts: expected at least one template and one word for the background")
        for template in self.templates:
            if "{}" not in template:
                raise InputError(f"template {template!r}: expected {{}} in it, where the class's name goes")

    def of(self, name: str) -> list[str]:
        """Return the sentences for a class or a word of the background."""
        return [template.replace("{}", self.synonyms.get(name, name)) for template in self.templates]

    def background_beside(self, class_names: Iterable[str]) -> tuple[str, ...]:
        """Return the words of the background that are no class: those would take a class's activation for themselves.

        Raises:
            InputError: All of them are classes.
        """
        classes = set(class_names)
        words = tuple(word for word in self.background if word not in classes)
        if not words:
            raise InputError("prompts: all words for the background are names of classes")
        return words


def read_synonyms(path: PathLike, class_names: Iterable[str]) -> dict[str, str]:
    """Read words for classes in place of their names: ``{"person": "person with clothes,people,human", ...}``.

    Raises:
        InputError: The file cannot be read, is no such object, or names an unknown class.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "synonyms.json")
        ...     _ = path.write_text('{"cat": "cat kitten"}')
        ...     read_synonyms(path, ["cat", "dog"])
        {'cat': 'cat kitten'}
    """
    content, known = read_json(path), set(class_names)
    if not isinstance(content, dict) or not all(isinstance(words, str) for words in content.values()):
        raise InputError(f'{path}: expected an object of texts by class, {{"bird": "bird avian"}}')
    for name in content:
        if name not in known:
            raise InputError(f"{path}: unknown class {name!r}")
    return content
