"""Files of class activation maps of other code bases: each form is read as its writers mean it, or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from torch_svm_seg.cam.forms import CAM_FORMS
from torch_svm_seg.cam.io import cam_files, read_cam_files
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.pipeline.backgrounds import usual_background
from torch_svm_seg.pipeline.cam_supervision import CamFiles

HEIGHT, WIDTH, CAT, PERSON = 30, 40, 8, 15
SIZE = (HEIGHT, WIDTH)
TRUTH = np.zeros(SIZE, np.uint8)
TRUTH[5:15, 5:20], TRUTH[18:28, 22:36] = CAT, PERSON


def shown(*ids: int) -> list[np.ndarray]:
    """Maps of 1 where classes are, and 0 elsewhere."""
    return [(id == TRUTH).astype(np.float32) for id in ids]


def probabilities(*ids: int) -> list[np.ndarray]:
    return [0.85 * map + np.float32(0.15 / len(ids)) for map in shown(*ids)]


def by_class(keys: list[int], maps: list[np.ndarray]) -> dict[int, np.ndarray]:
    return dict(zip(keys, maps, strict=True))


def keys(*numbers: int) -> np.ndarray:
    return np.array(numbers)


def scores() -> np.ndarray:
    """Scores of all 21 classes, the true one first."""
    logits = np.full((21, *SIZE), -4, np.float32)
    np.put_along_axis(logits, TRUTH[None].astype(int), 4, 0)
    return logits


ALL = (0, CAT, PERSON)
WRITTEN = {
    "irn": {"keys": keys(7, 14), "cam": np.stack(shown(CAT, PERSON))[:, ::2, ::2], "high_res": shown(CAT, PERSON)},
    "irn, tensors": {"keys": torch.tensor([7, 14]), "cam": torch.tensor(np.stack(shown(CAT, PERSON))).bfloat16()},
    "irn, high_res of None": {"keys": keys(7, 14), "cam": np.stack(shown(CAT, PERSON)), "high_res": None},
    "irn, attn_highres": {"keys": keys(14, 7), "attn_highres": np.stack(shown(PERSON, CAT)).astype(np.float16)},
    "sipe": {"keys": keys(*ALL), "IS_CAM": np.stack(shown(*ALL))},
    "psa": by_class([7, 14], shown(CAT, PERSON)),
    "crf": by_class([0, CAT, PERSON], probabilities(*ALL)),
    "crf, float16": by_class([0, CAT, PERSON], [map.astype(np.float16) for map in probabilities(*ALL)]),
    "crf, masks": by_class([0, CAT, PERSON], [map > 0 for map in shown(*ALL)]),
    "irn_background": {"keys": keys(*ALL), "cam": np.stack(probabilities(*ALL))},
    "background_first": {"keys": keys(7, 14), "high_res": np.stack(probabilities(*ALL))},
    "padded_keys": {"keys": keys(*ALL), "hr_cam": np.stack(shown(CAT, PERSON)), "cam": np.zeros((2, 8, 10))},
    "padded_keys, rw": {"keys": keys(*ALL), "rw": np.stack(shown(CAT, PERSON))},
    "excel": {"keys_gt": keys(7, 14), "valid_lam": np.stack(probabilities(*ALL))},
    "scores": {"msc_seg": scores()},
}


def write(folder: Path, content: object, id: str = "a") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{id}.npy", content, allow_pickle=True)


def argmax(read: Tensor, background: Tensor | None, classes: tuple[int, ...]) -> np.ndarray:
    """The class of the largest map at each pixel; where all are 0, the background."""
    first = torch.full(SIZE, 1e-3) if background is None else background
    return np.array([0, *classes])[torch.cat([first[None], read]).argmax(0).numpy()]


@pytest.mark.parametrize("labels", [None, (CAT, PERSON)])
@pytest.mark.parametrize("name", WRITTEN)
def test_each_form_is_read_as_it_is_meant(tmp_path: Path, name: str, labels: tuple[int, ...] | None) -> None:
    write(tmp_path, WRITTEN[name])
    read = read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES, None, labels)
    assert read.form == name.split(",")[0] and read.maps.classes == (CAT, PERSON)
    assert (argmax(read.maps.maps, read.maps.background, read.maps.classes) == TRUTH).all()
    assert any(f"--cams-form {read.form}, " in note for note in read.notes)


@pytest.mark.parametrize("name", ["irn", "sipe", "psa", "crf", "irn_background", "background_first", "padded_keys"])
def test_a_form_can_be_asked_for(tmp_path: Path, name: str) -> None:
    write(tmp_path, WRITTEN[name])
    assert read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES, name).maps.classes == (CAT, PERSON)
    with pytest.raises(InputError, match=r"expected \{msc_seg\}"):
        read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES, "scores")


def test_every_form_is_tested() -> None:
    assert {name.split(",")[0] for name in WRITTEN} | {"background_first_ids", "fma"} == set(CAM_FORMS)


def test_an_archive_on_the_grid_of_a_network_s_input(tmp_path: Path) -> None:
    maps = np.stack([np.kron(map[::2, ::2][:14, :18], np.ones((2, 2), np.float32)) for map in shown(CAT, PERSON)])
    np.savez(tmp_path / "a.npz", fg_cls=keys(7, 14), cam=maps[:, :28, :28])
    read = read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES)
    assert read.form == "fma" and read.maps.classes == (CAT, PERSON) and read.maps.maps.shape == (2, 28, 28)
    assert any("squeezed" in note for note in read.notes)


def test_keys_of_ids_with_one_map_more_are_told_by_the_labels(tmp_path: Path) -> None:
    write(tmp_path, {"keys": keys(CAT, PERSON), "cam": np.stack(probabilities(*ALL))})
    doubtful = read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES)
    assert doubtful.form == "background_first" and doubtful.is_doubtful and doubtful.notes
    assert read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES, None, (CAT, PERSON)).form == "background_first_ids"


def test_one_map_more_that_is_no_probability_needs_the_flag(tmp_path: Path) -> None:
    write(tmp_path, {"keys": keys(7, 14), "cam": np.ones((3, *SIZE))})
    with pytest.raises(InputError, match="2 keys for 3 maps; say what they are by --cams-form"):
        read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES)


def test_images_per_class(tmp_path: Path) -> None:
    for key, map in ((7, shown(CAT)[0]), (14, shown(PERSON)[0])):
        Image.fromarray((map * 255).astype(np.uint8)).save(tmp_path / f"a_{key}.png")
    assert [path.name for path in cam_files(tmp_path, "a", 20)] == ["a_7.png", "a_14.png"]
    read = read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES)
    assert read.maps.classes == (CAT, PERSON)
    assert (argmax(read.maps.maps, None, read.maps.classes) == TRUTH).all()


def test_classes_that_are_not_the_labels_are_an_error(tmp_path: Path) -> None:
    """A shift by one class is never silent."""
    write(tmp_path, by_class([8, 15], shown(CAT, PERSON)))
    with pytest.raises(InputError, match=r"of the class ids 9, 16, .*labelled 8, 15"):
        read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES, None, (CAT, PERSON))


def test_maps_of_other_classes_are_left_out_and_said_so(tmp_path: Path) -> None:
    write(tmp_path, by_class([7, 14], shown(CAT, PERSON)))
    read = read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES, None, (CAT,))
    assert read.maps.classes == (CAT,) and any("left out" in note for note in read.notes)


def tiles(root: Path, contents: dict[str, object]) -> CamFiles:
    for id, content in contents.items():
        write(root / "cams", content, id)
        (root / "images").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "images" / f"{id}.png")
    return CamFiles(root / "cams", usual_background)


def test_a_0_in_all_files_is_the_background_and_else_a_class(tmp_path: Path) -> None:
    """Masks of PMM that overlap do not sum to 1: the files of a folder tell together."""
    background, overlapping = shown(0)[0], np.ones(SIZE, np.float32)
    everywhere = {str(n): {0: background, CAT: shown(CAT)[0], PERSON: overlapping} for n in range(6)}
    cams = tiles(tmp_path / "everywhere", everywhere)
    dataset = folder(tmp_path / "everywhere" / "images")
    assert cams.read(dataset, 0).classes == (0, CAT, PERSON)
    aeroplane = {**everywhere, "6": {7: shown(CAT)[0]}}
    cams = tiles(tmp_path / "once", aeroplane)
    dataset = folder(tmp_path / "once" / "images")
    assert cams.read(dataset, 0).classes == (0, 1, CAT + 1, PERSON + 1)


def test_few_files_that_do_not_tell_name_the_flag(tmp_path: Path) -> None:
    cams = tiles(tmp_path, {"a": {0: shown(0)[0], CAT: np.ones(SIZE, np.float32)}})
    with pytest.raises(InputError, match="say by --cams-form psa or crf, or give --labels"):
        cams.read(folder(tmp_path / "images"), 0)


def test_what_one_more_map_s_keys_count_is_told_by_all_files(tmp_path: Path) -> None:
    """The last class is there only where keys are ids; alone, its file tells for itself."""
    last = len(VOC_CLASSES) - 1
    files = {"a": {"keys": keys(CAT, PERSON), "cam": np.stack(probabilities(*ALL))}}
    cams = tiles(tmp_path / "guess", files)
    dataset = folder(tmp_path / "guess" / "images")
    assert cams.read(dataset, 0).classes == (0, CAT + 1, PERSON + 1)
    assert dataset.notes.lines()[0].startswith("maps read as --cams-form background_first,")
    files["b"] = {"keys": keys(last), "cam": np.stack(probabilities(0, CAT))}
    cams = tiles(tmp_path / "ids", files)
    dataset = folder(tmp_path / "ids" / "images")
    assert [cams.read(dataset, index).classes for index in (0, 1)] == [(0, CAT, PERSON), (0, last)]


def test_classes_that_annotations_do_not_name_are_said(tmp_path: Path) -> None:
    """Ids from 1 without the background look like numbers from 0: nothing else tells."""
    cams = tiles(tmp_path, {"a": by_class([CAT], shown(CAT)), "b": by_class([CAT - 1], shown(CAT))})
    cams = replace(cams, annotated=lambda id: (CAT, PERSON))
    dataset = folder(tmp_path / "images")
    assert [cams.read(dataset, index).classes for index in (0, 1)] == [(0, CAT + 1), (0, CAT)]
    strange = "maps of classes that the image's annotations do not name"
    assert strange in dataset.notes.of("a") and strange not in dataset.notes.of("b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({0: -np.ones(SIZE), CAT: -2 * np.ones(SIZE)}, "no map has a value above 0"),
        ({"keys": keys(), "cam": np.zeros((0, *SIZE))}, "no class in it"),
        ({"keys": keys(7), "cam": np.zeros((1, 30, 41))}, "no fraction of the image's"),
        ({"keys": keys(7), "heat": np.zeros((1, *SIZE))}, r"by key or class 'keys', 'heat'; expected one of the forms"),
        ({"keys": keys(7, 7), "cam": np.zeros((2, *SIZE))}, "class ids 8, 8; expected different ones up to 20"),
        ({"keys": keys(77), "cam": np.zeros((1, *SIZE))}, "class ids 78"),
        ({"keys": keys(7), "cam": np.full((1, *SIZE), np.nan)}, "not a finite number"),
        ({"keys": keys(7, 14, 3), "cam": np.stack(shown(CAT))}, "3 keys for 1 maps"),
        ({**{f"\x1b[31m{n}": n for n in range(500)}}, "expected one of the forms"),
    ],
)
def test_what_cannot_be_read_is_one_short_message(tmp_path: Path, content: object, message: str) -> None:
    write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_cam_files(tmp_path, "a", SIZE, VOC_CLASSES, labels=[CAT] if 0 in content else None)
    text = str(caught.value)
    assert len(text) <= 300 and text.isprintable() and str(tmp_path) in text
