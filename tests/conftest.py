"""Fixtures shared by the tests: a small data set in VOC's layout, and the real one where it is installed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torch_svm_seg.backbones.backbone import Backbone, Stage
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.backbones.transformers import TransformerBackbone
from torch_svm_seg.data.palette import voc_palette

# The tests are small: threads would only wait for each other.
torch.set_num_threads(1)

CAT, PERSON, VOID = 8, 15, 255
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TINY_IDS = ("2008_000001", "2008_000002", "2008_000003", "2008_000004")


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Return standard normal numbers in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_images(height: int, width: int, number: int = 1) -> torch.Tensor:
    """Return images, uint8 (number, 3, height, width)."""
    return torch.randint(0, 256, (number, 3, height, width), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are cut at the terminal's width, whatever that of the machine is."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]
)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param  # type: ignore[no-any-return]


def small_backbone(seed: int = 0) -> Backbone:
    """Return a random network with the five stages of all backbones, quick enough to train in a test."""
    channels = {"F1": 4, "F2": 6, "F3": 8, "F4": 10, "F5": 12}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers, stages, before = [], {}, 3
        for number, (name, width) in enumerate(channels.items()):
            stride = 1 if name == "F5" else 2
            convolution = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            layers.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()))
            stages[name] = Stage(str(number), width, min(2 ** (number + 1), 16))
            before = width
        unused = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 5))
        return Backbone(nn.Sequential(*layers, unused), stages).eval()


@pytest.fixture(scope="module")
def vit() -> TransformerBackbone:
    """Return a small plain transformer with random weights."""
    torch.manual_seed(1)
    backbone = load_backbone("timm:test_vit", "random")
    assert isinstance(backbone, TransformerBackbone)
    return backbone


@pytest.fixture
def tiny_voc(tmp_path: Path) -> Path:
    """Return a folder that holds ``VOCdevkit/VOC2012`` with 4 images of 60x80 (H x W), 3 in train and 1 in val.

    Each image shows a cat (8, a reddish disc) and a person (15, a bluish rectangle) on textured ground, with a void
    border of 2 pixels around each in the mask.
    """
    root = tmp_path / "data"
    voc = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / name).mkdir(parents=True)
    for number, id in enumerate(TINY_IDS):
        image, mask = _draw(number)
        Image.fromarray(image).save(voc / "JPEGImages" / f"{id}.jpg", quality=95)
        picture = Image.fromarray(mask)
        picture.putpalette(voc_palette())
        picture.save(voc / "SegmentationClass" / f"{id}.png")
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("".join(f"{id}\n" for id in TINY_IDS[:3]))
    (lists / "val.txt").write_text(f"{TINY_IDS[3]}\n")
    return root


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """Return the folder that holds a real VOCdevkit, named by the environment variable VOC_ROOT; skips without it."""
    root = os.environ.get("VOC_ROOT")
    if not root:
        pytest.skip("set VOC_ROOT to the folder that holds VOCdevkit")
    return Path(root)


def _draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one image, uint8 (60, 80, 3), and its mask, uint8 (60, 80); objects stand elsewhere in each."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:60, :80]
    to_disc = np.hypot(rows - 22 - 4 * number, columns - 20 - 2 * number)
    to_box = np.maximum(abs(rows - 32) - 15, abs(columns - 58 - 2 * number) - 10)
    ground = 110 + 30 * np.sin(rows / 7)[..., None] + np.array([0, 25, 0]) + columns[..., None] / 4
    image = np.where((to_disc < 13)[..., None], (190, 90, 60), ground)
    image = np.where((to_box <= 0)[..., None], (60, 80, 170), image) + random.normal(0, 8, (60, 80, 3))
    mask = np.select([to_disc < 12, to_box <= -1, (to_disc < 14) | (to_box <= 1)], [CAT, PERSON, VOID], default=0)
    return image.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give a real browser, without a window; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has none for root
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()
