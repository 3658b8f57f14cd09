"""Options of CLIP's maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cam.clip import CLIPMaps, load_clip
from torch_svm_seg.cam.prompts import BACKGROUND, SYNONYMS, TEMPLATES, Prompts, read_synonyms
from torch_svm_seg.cli.options.option import changed_flags, option
from torch_svm_seg.data.errors import InputError


@dataclass(frozen=True)
class CLIPOptions:
    """CLIP and what it is told about the classes."""

    title: ClassVar = "CLIP"
    description: ClassVar = (
        "In place of --checkpoint: maps that need no training (CLIP-ES, Lin et al., CVPR 2023; published with "
        "--scales 1 --no-flip). It needs pip install open_clip_torch."
    )

    clip: str | None = option(
        None,
        metavar="NAME",
        help="plain transformer of open_clip, such as ViT-B-16; OpenAI's weights are of ViT-B-16-quickgelu",
    )
    clip_weights: Path | None = option(
        None, metavar="FILE", content=True, help="its state dict or checkpoint; nothing is downloaded"
    )
    clip_templates: tuple[str, ...] = option(
        TEMPLATES, metavar="TEXT", help="sentences in which a class takes the place of {}; their mean counts"
    )
    clip_synonyms: Path | None = option(
        None,
        metavar="FILE",
        content=True,
        help='words in place of names of classes, as .json: {"bird": "bird avian"} (default: CLIP-ES\'s for VOC)',
    )
    clip_background: tuple[str, ...] = option(
        BACKGROUND, metavar="WORD", help="what may be in an image beside the classes"
    )
    clip_box: float = option(
        0.4, metavar="T", help="activation around whose regions a map spreads, in boxes (COCO: 0.7)"
    )

    def load(self, class_names: Sequence[str]) -> CLIPMaps | None:
        """Load CLIP for these classes, background first; ``None`` without ``--clip``.

        Raises:
            InputError: Flags of CLIP are given without it, it lacks its weights, or it cannot be loaded.
        """
        if self.clip is None:
            if given := changed_flags(self):
                raise InputError(f"{' and '.join(given)}: only with --clip")
            return None
        if self.clip_weights is None:
            raise InputError("--clip: needs --clip-weights FILE; nothing is downloaded")
        synonyms = SYNONYMS if self.clip_synonyms is None else read_synonyms(self.clip_synonyms, class_names[1:])
        prompts = Prompts(self.clip_templates, self.clip_background, synonyms)
        return load_clip(self.clip, self.clip_weights, class_names[1:], prompts, self.clip_box)
