"""Random damage to every kind of file that the project reads: each ends in a right value or in one named error.

    python -m benchmarks.fuzz                      # 10,000 damaged files, a table of what became of them
    python -m benchmarks.fuzz --number 500 --seed 1

A file is damaged by flipping one bit, by flipping a few bytes, or by cutting it. Its reader must then return, or raise
:class:`~torch_svm_seg.data.errors.InputError` in one printable line of at most 300 characters; anything else is a
fault. Of formats with checksums, the values must be those of the undamaged file as well. `tests/data/test_fuzz.py` does
the same for a few hundred files.
"""

import argparse
import random
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import read_cams, save_cams
from torch_svm_seg.data.class_names import read_class_names
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.image_labels import annotated_classes, read_labels
from torch_svm_seg.data.io import read_image, read_mask, save_mask
from torch_svm_seg.data.lists import read_list
from torch_svm_seg.data.provenance import RunSettings
from torch_svm_seg.pipeline.image_log import ImageEntry, ImageLog
from torch_svm_seg.pipeline.run_folder import Progress, open_run, write_record
from torch_svm_seg.training.checkpoints import Checkpoint, read_checkpoint, save_checkpoint

SIZE = (24, 32)
MEMORY = 8 * 2**30  # bytes that the process may ask for
LONGEST_MESSAGE = 300

SAME, OTHER, REFUSED, FAULT = "right", "read", "refused", "fault"
"""Outcomes of a file: its values come back; other ones, or notes on them; a named error; anything else."""


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: Name in the table.
        file: Name of the file.
        write: Writes one.
        read: Reads it.
        is_checked: Whether a checksum guards its values: they come back, or the file is refused.
    """

    name: str
    file: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    is_checked: bool = False


def kinds() -> list[Kind]:
    """Return the kinds of files that are read, with a small file of each."""
    return [
        Kind("image, JPEG", "a.jpg", lambda path: _image().save(path, quality=90), read_image),
        Kind("image, PNG", "a.png", lambda path: _image().save(path), read_image, is_checked=True),
        Kind("image, TIFF", "a.tif", lambda path: _image().save(path), read_image),
        Kind("mask", "m.png", lambda path: save_mask(path, _mask()), read_mask, is_checked=True),
        Kind("maps, .npz", "c.npz", lambda path: save_cams(path, _maps(), VOC_CLASSES), _read_cams, is_checked=True),
        Kind("maps, .npy of IRN", "i.npy", _write_irn, _read_cams),
        Kind("maps, .npy of CRF", "p.npy", _write_crf, _read_cams),
        Kind("labels, JSON", "l.json", _text('{"a": ["cat", "dog"], "b": ["person"]}'), _read_labels),
        Kind("labels, CSV", "l.csv", _text("a,cat,dog\nb,person\n"), _read_labels),
        Kind("labels, lines of ids", "l.txt", _text("a 7 11\nb 14\n"), _read_labels),
        Kind("labels, cls_labels.npy", "l.npy", _write_cls_labels, _read_labels),
        Kind("labels, COCO's JSON", "coco.json", _text(_COCO), _read_labels),
        Kind("labels, VOC's XML", "x.xml", _text(_XML), lambda path: annotated_classes(path, VOC_CLASSES)),
        Kind("list", "list.txt", _text("a\nb/c.jpg\nd e\n"), lambda path: read_list(path, lambda id: id == "a")),
        Kind("class names", "names.txt", _text("# names\nbackground\ncat\ndog\n"), read_class_names),
        Kind("CVAT's label map", "map.txt", _text(_LABEL_MAP), read_class_names),
        Kind("record of a run", "run.json", _write_record, _open_run, is_checked=True),
        Kind("log of a run", "images.jsonl", _write_log, _read_log, is_checked=True),
        Kind("checkpoint", "n.pt", _write_checkpoint, read_checkpoint, is_checked=True),
    ]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return a file's content with one flipped bit, a few changed bytes, or without its end."""
    how = chance.choice(("bit", "bit", "bytes", "cut"))
    if how == "cut":
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(1 if how == "bit" else chance.randint(2, 8)):
        place = chance.randrange(len(content))
        changed[place] = changed[place] ^ (1 << chance.randrange(8)) if how == "bit" else chance.randrange(256)
    return bytes(changed)


def outcomes(kind: Kind, folder: Path, number: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Damage a file many times; yield what became of it, and of faults what happened."""
    path = folder / kind.file
    kind.write(path)
    content, before = path.read_bytes(), _plain(kind.read(path))
    for _ in range(number):
        path.write_bytes(damaged(content, chance))
        yield _outcome(kind, path, before)


def _outcome(kind: Kind, path: Path, before: str) -> tuple[str, str]:
    try:
        found = _plain(kind.read(path))
    except InputError as error:
        text = str(error)
        fine = len(text) <= LONGEST_MESSAGE and text.isprintable() and path.name in text
        return (REFUSED, "") if fine else (FAULT, f"message {text!r}")
    except Exception as error:
        return FAULT, f"{type(error).__name__}: {error}"
    if found == before:
        return SAME, ""
    return (FAULT, "other values under a checksum") if kind.is_checked else (OTHER, "")


def _plain(value: object) -> str:
    """Return all of a value as text, to compare."""
    if isinstance(value, Tensor):
        return f"{value.shape} {value.flatten().tolist()}"
    if isinstance(value, ActivationMaps):
        return f"{value.classes} {value.size} {_plain(value.maps)}"
    if isinstance(value, Checkpoint):
        return f"{value.class_names} {value.settings} {value.state}"
    return repr(value)


def _image() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((SIZE[1], SIZE[0]))


def _mask() -> Tensor:
    mask = torch.zeros(SIZE, dtype=torch.long)
    mask[4:12, 4:16], mask[14:20, 18:30] = 8, 12
    return mask


def _maps() -> ActivationMaps:
    return ActivationMaps((8, 12), torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(0)), SIZE)


def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def _write_irn(path: Path) -> None:
    content = {"keys": torch.tensor([7, 11]), "cam": _maps().maps, "high_res": np.ones((2, *SIZE), np.float32)}
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def _write_crf(path: Path) -> None:
    shown = {id: (_mask() == id).numpy().astype(np.float32) for id in (0, 8, 12)}
    np.save(path, np.array(shown, dtype=object), allow_pickle=True)


def _write_cls_labels(path: Path) -> None:
    one_hot = np.zeros(20, np.float32)
    one_hot[[7, 11]] = 1
    np.save(path, np.array({"a": one_hot, "b": one_hot[::-1].copy()}, dtype=object), allow_pickle=True)


def _write_record(path: Path) -> None:
    write_record(path.parent, _SETTINGS, Progress(3, {"F4": 1.5}, {"F4": 0}), finished=True)


def _open_run(path: Path) -> Progress:
    content = path.read_bytes()
    try:
        return open_run(path.parent, _SETTINGS, False, [path.parent / "F4" / "a.png"])
    finally:
        path.write_bytes(content)


def _write_log(path: Path) -> None:
    ImageLog(path.parent).rewrite(ImageEntry(id, "0" * 32, {"F4": 0.5}, {"F4": 1}) for id in _LOGGED)


def _read_log(path: Path) -> object:
    """Read the entries of images; an image without one is done again, which is as good as refused."""
    entries = ImageLog(path.parent).gather() or {}
    if missing := [id for id in _LOGGED if id not in entries]:
        raise InputError(f"{path}: without {missing}")
    return entries


def _write_checkpoint(path: Path) -> None:
    save_checkpoint(path, Checkpoint({"method": "cam"}, VOC_CLASSES, {"model": {"weight": torch.ones(4, 3)}}))


def _read_cams(path: Path) -> ActivationMaps:
    return read_cams(path.parent, path.stem, SIZE, VOC_CLASSES)


def _read_labels(path: Path) -> object:
    return read_labels(path, VOC_CLASSES).labels


_LOGGED = ("a", "b")
_SETTINGS = RunSettings({"C": 1.0, "features": ["F4"], "seed": 0})
_XML = "<annotation><object><name>cat</name><part><name>head</name></part></object></annotation>"
_LABEL_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:64,0,0::\n"
_COCO = (
    '{"images": [{"id": 1, "file_name": "a.jpg", "height": 24, "width": 32}], "categories": [{"id": 17, "name": "cat"}]'
    ', "annotations": [{"id": 5, "image_id": 1, "category_id": 17, "iscrowd": 0, "area": 12.0, "bbox": [2, 2, 4, 3], '
    '"segmentation": [[2, 2, 6, 2, 6, 5, 2, 5]]}]}'
)


def main() -> None:
    """Print a table of what became of the files, and the faults."""
    parser = argparse.ArgumentParser(description="Damage files at random, and count what their readers make of them.")
    parser.add_argument("--number", type=int, default=10_000, help="damaged files, of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    chance, names = random.Random(args.seed), (SAME, OTHER, REFUSED, FAULT)
    every, total, faults = kinds(), Counter[str](), list[str]()
    print("| file | " + " | ".join(names) + " |\n|" + "---|" * 5)
    for index, kind in enumerate(every):
        number = args.number // len(every) + (index < args.number % len(every))
        with tempfile.TemporaryDirectory() as folder:
            found = list(outcomes(kind, Path(folder), number, chance))
        counts = Counter(outcome for outcome, _ in found)
        total += counts
        faults += [f"{kind.name}: {why}" for outcome, why in found if outcome == FAULT]
        print(f"| {kind.name} | " + " | ".join(str(counts[name]) for name in names) + " |", flush=True)
    print("| all | " + " | ".join(str(total[name]) for name in names) + " |")
    print("\n".join(faults))


if __name__ == "__main__":
    main()
