"""A small folder of images and a server over it, for the tests of the labelling page."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import torch
from conftest import small_backbone
from PIL import Image

from torch_svm_seg.data.folder import folder
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.label.annotations import AnnotationFolder
from torch_svm_seg.label.labeller import FeatureCache, InteractiveLabeller
from torch_svm_seg.label.server import LabelServer
from torch_svm_seg.label.session import Session
from torch_svm_seg.svm.svm import SVM

NAMES = ("background", "red", "green")
SIZE = (48, 64)


def write_images(images: Path, number: int = 3) -> None:
    """Write images whose left third is red and whose lower right quarter is green, on grey."""
    images.mkdir(parents=True)
    for index in range(number):
        noise = torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(index)) * 30
        pixels = torch.full((*SIZE, 3), 120.0)
        pixels[:, :21] = torch.tensor([220.0, 40, 40])
        pixels[24:, 32:] = torch.tensor([40.0, 200, 40])
        Image.fromarray((pixels + noise).to(torch.uint8).numpy()).save(images / f"image{index}.png")


def truth() -> torch.Tensor:
    """Return the mask of every image."""
    mask = torch.zeros(SIZE, dtype=torch.long)
    mask[:, :21], mask[24:, 32:] = 1, 2
    return mask


def open_session(root: Path, names: tuple[str, ...] = NAMES) -> Session:
    """Open a session over the images in ``root/images``, whose annotations are in ``root/labels``."""
    dataset = folder(root / "images")
    device = torch.device("cpu")
    features = FeatureCache(dataset, small_backbone(), ["img"], device)
    labeller = InteractiveLabeller(features, SVMExpander(SVM(kernel="rbf", C=10), samples_per_class=50))
    return Session(dataset, AnnotationFolder(root / "labels", names), labeller)


@contextmanager
def running(session: Session) -> Iterator[LabelServer]:
    """Serve a session in a thread."""
    server = LabelServer(session)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def stroke(class_id: int, *corners: tuple[float, float], key: str = "a", width: int = 3) -> dict[str, object]:
    """Return a stroke as the page sends it."""
    return {"key": key, "class_id": class_id, "corners": [list(corner) for corner in corners], "width": width}


RED = stroke(1, (4, 4), (14, 40), key="red")
GREEN = stroke(2, (40, 30), (60, 44), key="green")
GREY = stroke(0, (28, 6), (60, 16), key="grey")
