"""What COCO costs in disk and time, measured on a part that is made for it, and for all of val2014.

    python -m benchmarks.coco --images VOCdevkit/VOC2012/JPEGImages --number 300

Photographs from any folder become images of 640x480 pixels in COCO's layout, with as many objects as val2014 has (7 per
image, of 3 categories), outlined by polygons of as many corners, and maps made of their masks. Then the commands run on
them, one after the other. Times are of the processor, of this process; "all" is for 40,504 images.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.evaluate import main as evaluate
from torch_svm_seg.cli.expand import main as expand
from torch_svm_seg.data.coco import coco, coco_labels

ALL = 40_504  # images of val2014
OBJECTS, CATEGORIES, CORNERS = 7, 3, 28  # per image: 291,875 objects in all; an object's corners
SIZE = (640, 480)
SPLIT = "val2014"
STRIDE = 4  # of the maps


def blob(random: np.random.Generator) -> list[float]:
    """Return the corners of a star-shaped outline somewhere in an image, x and y in turn."""
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    radius = random.uniform(15, 130) * random.uniform(0.7, 1.3, CORNERS)
    x = (random.uniform(0, SIZE[0]) + radius * np.cos(angles)).clip(0, SIZE[0])
    y = (random.uniform(0, SIZE[1]) + radius * np.sin(angles)).clip(0, SIZE[1])
    return [round(float(value), 2) for value in np.stack([x, y], 1).reshape(-1)]


def objects(number: int, random: np.random.Generator, ids: Sequence[int]) -> list[dict[str, object]]:
    """Return the annotations of one image."""
    of = random.choice(ids, CATEGORIES, replace=False)
    made = []
    for index in range(OBJECTS):
        corners = blob(random)
        x, y = corners[::2], corners[1::2]
        area = 0.5 * abs(sum(a * d - b * c for a, b, c, d in zip(x, y, x[1:] + x[:1], y[1:] + y[:1], strict=True)))
        box = [min(x), min(y), max(x) - min(x), max(y) - min(y)]
        ids_of = {"id": number * OBJECTS + index, "image_id": number, "category_id": int(of[index % CATEGORIES])}
        made.append({**ids_of, "segmentation": [corners], "area": area, "bbox": box, "iscrowd": 0})
    return made


def make(root: Path, photographs: Path, number: int) -> None:
    """Write images and annotations in COCO's layout."""
    random = np.random.default_rng(0)
    categories = [id for id in range(1, 91) if id not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    paths = sorted(photographs.glob("*.jpg"))[:number]
    images, annotations = [], []
    (root / SPLIT).mkdir(parents=True)
    for index, path in enumerate(paths):
        name = f"COCO_{SPLIT}_{index:012}.jpg"
        with Image.open(path) as photograph:
            photograph.convert("RGB").resize(SIZE).save(root / SPLIT / name, quality=95)
        images.append({"id": index, "file_name": name, "width": SIZE[0], "height": SIZE[1], "license": 1})
        annotations += objects(index, random, categories)
    named = [{"id": id, "name": f"category {id}", "supercategory": "thing"} for id in categories]
    content = {"images": images, "annotations": annotations, "categories": named}
    (root / "annotations").mkdir()
    (root / "annotations" / f"instances_{SPLIT}.json").write_text(json.dumps(content))


def write_maps(root: Path, folder: Path) -> None:
    """Write maps of each image's classes, with some noise, as a classifier's have."""
    dataset = coco(root, SPLIT)
    labels, random = coco_labels(dataset), torch.Generator().manual_seed(0)
    for index, id in enumerate(dataset.ids):
        shown = torch.stack([(dataset.mask(index) == class_id).float() for class_id in labels[id]])
        maps = torch.nn.functional.avg_pool2d(shown, STRIDE)
        maps = (0.8 * maps + 0.2 * torch.rand(maps.shape, generator=random)).clamp(0, 1)
        save_cams(cam_path(folder, id), ActivationMaps(labels[id], maps, SIZE[::-1]), dataset.class_names)


def seconds(work: Callable[[], object]) -> float:
    """Return the processor's time of some work, whose output is not shown."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.process_time() - start


def size(folder: Path, pattern: str) -> int:
    """Return the bytes of files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def measure(root: Path, photographs: Path, number: int) -> None:
    """Print a table of times, and one of sizes."""
    out, cams = root / "masks", root / "maps"
    make(root, photographs, number)
    data = ["--coco", str(root), "--split", SPLIT]
    seeds = ["--supervision", "seed", "--cams", str(cams), "--features", "F4", "--refine", "none", "crf"]
    dataset, command = coco(root, SPLIT), [*data, *seeds, "--out", str(out)]
    rows: dict[str, Callable[[], object]] = {
        "annotations read": lambda: coco(root, SPLIT),
        "masks made of outlines": lambda: [dataset.mask(index) for index in range(number)],
        "images read": lambda: [dataset.image(index) for index in range(number)],
        "maps made and written": lambda: write_maps(root, cams),
        "`expand.py --supervision seed --features F4 --refine none crf`": lambda: expand(command),
        "the same command again, all of it being there": lambda: expand(command),
        "`evaluate.py` of one folder, 81 classes": lambda: evaluate([*data, "--predictions", str(out / "F4+crf")]),
    }
    print("| | ms per image | all |\n|---|---|---|")
    for name, work in rows.items():
        each = seconds(work) / number
        print(f"| {name} | {1000 * each:.1f} | {each * ALL / 3600:.2f} h |", flush=True)
    sizes = {
        "annotations": size(root / "annotations", "*.json"),
        "maps, `.npz`": size(cams, "*.npz"),
        "masks of one folder": size(out / "F4+crf", "*.png"),
        "record and log": size(out, "*.json*"),
    }
    print("\n| | kB per image | all |\n|---|---|---|")
    for name, taken in sizes.items():
        print(f"| {name} | {taken / number / 1000:.1f} | {taken / number * ALL / 1e9:.2f} GB |")


def main() -> None:
    """Make the data in a temporary folder, and measure."""
    parser = argparse.ArgumentParser(description="Disk and time that COCO takes, measured on a part of its kind.")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="photographs, as .jpg")
    parser.add_argument("--number", type=int, default=300, help="images of the part")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args.images, args.number)


if __name__ == "__main__":
    main()
