"""The report: true figures, nothing from outside, every name escaped, readable images, the same bytes each time."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import save_cams
from torch_svm_seg.cli.evaluate import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.data.palette import voc_palette
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.scoring import score_folders
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.report import figures
from torch_svm_seg.report.gallery import choose

CAT, PERSON, VOID = 8, 15, 255
HOSTILE = """<img src=x onerror="alert('x')">&amp;</script><script>$alert"""


class Page(HTMLParser):
    """The elements and the visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def dataset(tiny_voc: Path) -> ImageDataset:
    return voc2012(tiny_voc, "train")


@pytest.fixture
def ladder(dataset: ImageDataset, tmp_path: Path) -> list[Path]:
    """Three steps: background only; the cats of the first two images; the ground truth, 255 in the first row."""
    folders = [tmp_path / "run" / name for name in ("seed", "F3", "F3+crf")]
    for place, id in enumerate(dataset.ids):
        truth = dataset.mask(place)
        nothing = torch.zeros_like(truth)
        unsure = truth.clone()
        unsure[0] = VOID
        steps = [nothing, torch.where(truth == CAT, truth, 0) if place < 2 else nothing, unsure]
        for folder, mask in zip(folders, steps, strict=True):
            save_mask(folder / f"{id}.png", mask)
    settings = {"supervision": "ground-truth", "samples_per_class": 5, "seed": 3}
    (tmp_path / "run" / "run.json").write_text(json.dumps({"settings": settings, "note": HOSTILE}))
    return folders


def write(root: Path, folders: list[Path], out: Path, *flags: str) -> Path:
    arguments = ["--root", str(root), "--predictions", *map(str, folders), "--report", str(out), *flags]
    assert main(arguments) == 0
    return out / "report.html"


def test_figures_gains_and_order(dataset: ImageDataset, tiny_voc: Path, ladder: list[Path], tmp_path: Path) -> None:
    page = Page(write(tiny_voc, ladder, tmp_path / "out"))
    scores = [100 * score.miou for score in score_folders(dataset, ladder)]
    assert scores[0] < scores[1] < scores[2]
    for score in scores:
        assert f"\n{score:.2f}\n" in page.text
    assert f"\n+{scores[1] - scores[0]:.2f}\n" in page.text
    assert f"\n+{scores[2] - scores[1]:.2f}\n" in page.text
    steps = page.text.split("The ladder")[1]
    assert steps.index("seed") < steps.index("F3") < steps.index("F3+crf")
    unsure = sum(int((dataset.mask(place)[0] != VOID).sum()) for place in range(3))
    labelled = sum(int((dataset.mask(place) != VOID).sum()) for place in range(3))
    assert f"\n{100 * unsure / labelled:.2f}\n" in page.text
    assert "not measured here" in page.text
    assert "18 of 21 classes" in page.text
    assert "ground-truth" in page.text.split("Settings")[-1]


def test_the_order_is_that_of_the_command_line(tiny_voc: Path, ladder: list[Path], tmp_path: Path) -> None:
    steps = Page(write(tiny_voc, ladder[::-1], tmp_path / "out")).text.split("The ladder")[1]
    assert steps.index("F3+crf") < steps.index("seed")
    assert "\N{MINUS SIGN}" in steps


def test_same_inputs_same_bytes_and_nothing_from_outside(tiny_voc: Path, ladder: list[Path], tmp_path: Path) -> None:
    first = write(tiny_voc, ladder, tmp_path / "one")
    second = write(tiny_voc, ladder, tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["report.html"]
    page = Page(first)
    addresses = [attributes[key] for _, attributes in page.elements for key in ("src", "href") if key in attributes]
    assert all(address is not None and address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in first.read_text()
    assert str(tmp_path) not in page.text
    shown = page.all("img")
    assert len(shown) == 3 * (2 + 1 + 3)  # image and ground truth, samples, three steps
    assert all(image["alt"] and image["width"] and image["height"] for image in shown)


def test_names_from_outside_are_text(dataset: ImageDataset, tiny_voc: Path, tmp_path: Path) -> None:
    voc = tiny_voc / "VOCdevkit" / "VOC2012"
    id = "it's & bold"  # an id may hold neither < nor >
    images, masks = tmp_path / "images", tmp_path / HOSTILE.split("/")[0]
    for folder in (images, masks):
        folder.mkdir()
    (images / f"{id}.jpg").write_bytes((voc / "JPEGImages" / f"{dataset.ids[0]}.jpg").read_bytes())
    save_mask(masks / f"{id}.png", dataset.mask(0))
    (masks / "run.json").write_text(json.dumps({HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}}))
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["background", *(f"{HOSTILE}{number}" for number in range(20))]))
    arguments = ["--images", str(images), "--masks", str(masks), "--class-names", str(names)]
    assert main([*arguments, "--predictions", str(masks), "--report", str(tmp_path / "out")]) == 0
    page = Page(tmp_path / "out" / "report.html")
    assert len(page.all("script")) == 1
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert all(str(image["src"]).startswith("data:") for image in page.all("img"))
    assert f"{HOSTILE}14" in page.text  # person
    assert page.text.count(HOSTILE) > 4
    assert any(id in str(image["alt"]) for image in page.all("img"))
    assert "published" not in page.text  # other classes than VOC's


def test_what_is_missing_or_damaged_is_said_in_its_place(
    dataset: ImageDataset, tiny_voc: Path, ladder: list[Path], tmp_path: Path
) -> None:
    first, second, third = dataset.ids
    (ladder[0] / f"{first}.png").unlink()
    (ladder[1] / f"{second}.png").write_bytes(b"no image")
    cams = tmp_path / "cams"
    save_cams(cams / f"{first}.npz", ActivationMaps((CAT,), torch.ones(1, 15, 20), (60, 80)), VOC_CLASSES)
    (cams / f"{second}.npz").write_bytes(b"no archive")
    arguments = ["--root", str(tiny_voc), "--predictions", *map(str, ladder), "--cams", str(cams)]
    assert main([*arguments, "--report", str(tmp_path / "out")]) == 1
    page = Page(tmp_path / "out" / "report.html")
    assert "cannot be compared" in page.text
    assert f"{second}.png: not an image" in page.text
    assert f"{second}.npz: not a file of class activation maps" in page.text
    assert f"{third}.npz: no class activation maps of this image" in page.text
    assert f"missing predictions (1): {first}" in page.text
    assert f"CAM of {first}: class activation of cat" in [image["alt"] for image in page.all("img")]


def test_nothing_scored_is_a_page_too(tiny_voc: Path, tmp_path: Path) -> None:
    save_mask(tmp_path / "masks" / "stranger.png", torch.zeros(2, 2, dtype=torch.uint8))
    arguments = ["--root", str(tiny_voc), "--predictions", str(tmp_path / "masks"), "--report", str(tmp_path / "out")]
    assert main(arguments) == 1
    page = Page(tmp_path / "out" / "report.html")
    assert "only 0 of 3 images scored" in page.text
    assert page.all("img") == []


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--report", "out", "--step", "F9"], "--step: expected one of seed, F3, F3+crf, got 'F9'"),
        (["--report", "out", "--cams", "nowhere"], "nowhere: not a folder"),
        (["--report", "out", "--gallery", "-1"], "--gallery: expected at least 0"),
        (["--step", "F3"], "--step: works only together with --report"),
    ],
)
def test_bad_flags(
    tiny_voc: Path, ladder: list[Path], flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tiny_voc), "--predictions", *map(str, ladder), *flags]) == 2
    assert reason in capsys.readouterr().err


def test_the_chosen_step_ranks_the_images(tiny_voc: Path, ladder: list[Path], tmp_path: Path) -> None:
    page = Page(write(tiny_voc, ladder, tmp_path / "out", "--step", "F3", "--gallery", "1"))
    worst = page.text.split("\nWorst\n")[1]
    assert "2008_000003" in worst  # the one without its cat
    assert "2008_000001" not in worst


def test_folders_scored_together_as_each_alone(dataset: ImageDataset, ladder: list[Path]) -> None:
    for together, folder in zip(score_folders(dataset, ladder), ladder, strict=True):
        (alone,) = score_folders(dataset, [folder])
        assert together.confusion.equal(alone.confusion)
        assert together.per_image == alone.per_image
        assert together.miou == alone.miou
        # Of each image by itself, from the definition, over the classes of its ground truth.
        for place, id in enumerate(dataset.ids):
            truth = dataset.mask(place)
            mask = torch.from_numpy(np.array(Image.open(folder / f"{id}.png"))).long()
            known = truth != VOID
            ious = [
                float((known & (mask == k) & (truth == k)).sum() / (known & ((mask == k) | (truth == k))).sum())
                for k in (0, CAT, PERSON)
            ]
            assert together.per_image[id] == pytest.approx(sum(ious) / 3, rel=1e-6)


@pytest.mark.parametrize(("number", "count"), [(1, 3), (2, 3), (3, 3), (7, 1), (8, 3), (100, 5), (6, 0)])
def test_choice_of_images(number: int, count: int) -> None:
    scores = {f"{place:03}": (place * 37 % number) / number for place in range(number)}
    chosen = choose(scores | {"void": float("nan")}, count)
    flat = [id for ids in chosen.values() for id in ids]
    assert len(flat) == len(set(flat)) <= 3 * count
    assert "void" not in flat
    ranked = [scores[id] for id in flat]
    assert ranked == sorted(ranked, reverse=True)
    if number >= 3 and count:
        size = min(count, number // 3)
        ordered = sorted(scores.values(), reverse=True)
        assert [scores[id] for id in chosen["best"]] == ordered[:size]
        assert [scores[id] for id in chosen["worst"]] == ordered[-size:]
        middle = [scores[id] for id in chosen["median"]]
        assert abs(sum(s > middle[0] for s in ordered) - sum(s < middle[-1] for s in ordered)) <= 1


def decoded(figure: figures.Figure) -> np.ndarray:
    assert figure.uri is not None
    stream = io.BytesIO(base64.b64decode(figure.uri.split(",")[1]))
    with Image.open(stream) as image:
        assert image.size == figure.size
        return np.array(image.convert("RGB")).astype(int)


def test_mask_figures_have_voc_s_colours_and_say_what_they_show() -> None:
    ids = torch.zeros(100, 1000, dtype=torch.long)
    ids[:, :500], ids[50:, 500:] = CAT, VOID
    figure = figures.mask_figure("seed", lambda: ids, VOC_CLASSES, 0.5)
    shown = decoded(figure)
    assert shown.shape == (32, 320, 3)
    assert shown[5, 10].tolist() == voc_palette()[3 * CAT : 3 * CAT + 3]
    assert shown[5, 310].tolist() == [0, 0, 0]
    assert shown[30, 310].tolist() == [255, 255, 255]
    assert figure.alt == "background 25%, cat 50%, unlabelled 25%"


def test_a_mask_of_unknown_classes_is_a_reason() -> None:
    figure = figures.mask_figure("seed", lambda: torch.full((4, 4), 21), VOC_CLASSES)
    assert (figure.uri, figure.alt) == (None, "unknown class id 21")


def test_activation_figures_go_from_the_grey_image_to_the_colour_of_the_class() -> None:
    image = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    maps = torch.zeros(2, 16, 16)
    maps[1, :, :8], maps[0, :, 8:] = 1, 0.001
    shown = decoded(
        figures.activation_figure("CAM", image, lambda: ActivationMaps((CAT, PERSON), maps, (64, 64)), VOC_CLASSES)
    )
    assert np.abs(shown[32, 8] - voc_palette()[3 * PERSON : 3 * PERSON + 3]).max() < 12  # JPEG
    assert np.ptp(shown[32, 56]) < 6

    def fail() -> ActivationMaps:
        raise InputError("file.npz: damaged")

    assert figures.activation_figure("CAM", image, fail, VOC_CLASSES).alt == "file.npz: damaged"


def test_samples_are_those_of_the_run(dataset: ImageDataset) -> None:
    image, truth = dataset.image(0), dataset.mask(0)
    settings = {"supervision": "ground-truth", "samples_per_class": 7, "seed": 5}
    figure = figures.samples_figure(image, truth, settings)
    assert figure is not None
    number = int((sample_pixels(truth[None], 7, 5).classes >= 0).sum())
    assert figure.alt.startswith(f"{number} sampled pixels")
    assert figures.samples_figure(image, truth, settings | {"supervision": "seed"}) is None
    for strange in ({}, {"samples_per_class": 0, "seed": 1}, {"samples_per_class": "7", "seed": 1}):
        assert figures.samples_figure(image, truth, {"supervision": "ground-truth"} | strange) is None


def test_a_broken_record_of_a_run_is_shown_as_such(tiny_voc: Path, ladder: list[Path], tmp_path: Path) -> None:
    (tmp_path / "run" / "run.json").write_text("{")
    assert "cannot be read" in Page(write(tiny_voc, ladder, tmp_path / "out")).text
