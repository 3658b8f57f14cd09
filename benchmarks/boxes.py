"""Boxes around the connected regions of ground truth, as VOC's XML.

    python -m benchmarks.boxes --root DIR --list LIST --every 8 --out boxes

Regions whose box has fewer than 100 pixels are left out. ``LIST`` is every N-th image of it; names go to
``OUT/names.txt``, for ``--list`` of the other commands.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy import ndimage
from torch import Tensor

from torch_svm_seg.data.boxes import Box
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.voc import voc2012

SMALLEST = 100


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Boxes around the regions of ground truth.")
    parser.add_argument("--root", required=True, help="folder that holds VOCdevkit")
    parser.add_argument("--list", required=True, help="image names, one per line")
    parser.add_argument("--every", type=int, default=1, help="every N-th of them")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    return parser


def boxes_around(mask: Tensor) -> Iterator[Box]:
    """Yield the box of each region of a class, 8-connected, of a mask (H, W)."""
    for class_id in mask.unique().tolist():
        if class_id in (0, VOID):
            continue
        regions, _ = ndimage.label((mask == class_id).numpy(), structure=np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(regions):
            if (rows.stop - rows.start) * (columns.stop - columns.start) >= SMALLEST:
                yield Box(columns.start, rows.start, columns.stop, rows.stop, class_id)


def as_xml(boxes: Iterator[Box], class_names: Sequence[str]) -> bytes:
    """Return VOC's annotation of boxes."""
    root = ElementTree.Element("annotation")
    for box in boxes:
        found = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(found, "name").text = class_names[box.class_id]
        sides = ElementTree.SubElement(found, "bndbox")
        # VOC counts pixels from 1, and the last one belongs to the box.
        values = {"xmin": box.left + 1, "ymin": box.top + 1, "xmax": box.right, "ymax": box.bottom}
        for side, value in values.items():
            ElementTree.SubElement(sides, side).text = str(value)
    return ElementTree.tostring(root)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = build_parser().parse_args(argv)
    dataset = voc2012(args.root, list_file=args.list)
    args.out.mkdir(parents=True, exist_ok=True)
    indices = range(args.start, len(dataset), args.every)
    for index in indices:
        boxes = boxes_around(dataset.mask(index))
        (args.out / f"{dataset.ids[index]}.xml").write_bytes(as_xml(boxes, dataset.class_names))
    (args.out / "names.txt").write_text("".join(f"{dataset.ids[index]}\n" for index in indices))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
