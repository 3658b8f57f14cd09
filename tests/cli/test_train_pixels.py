"""train.py pixels and posterior from the command line to the files they write."""

import json
from pathlib import Path

import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS
from torchrun import torchrun

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import cam_path, read_cams, save_cams
from torch_svm_seg.cli.expand import main as expand
from torch_svm_seg.cli.train import main
from torch_svm_seg.data.constants import VOC_CLASSES, VOID
from torch_svm_seg.data.io import read_mask, save_mask
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.pixel_classifier.classifier import PixelModel, PixelNetwork, load_pixel_classifier

FEATURES = ["--features", "F2+F3", "--samples-per-image", "100", "--rounds", "2"]


@pytest.fixture
def cams(tiny_voc: Path, tmp_path: Path) -> Path:
    """Maps of the train images: the objects, dilated, with a background of their own."""
    data = voc2012(tiny_voc)
    for index, id in enumerate(data.ids):
        maps = torch.stack([(data.mask(index) == id_).float() for id_ in (CAT, PERSON)])
        maps = torch.nn.functional.max_pool2d(maps, 9, 4, 4)
        save_cams(
            cam_path(tmp_path / "maps", id),
            ActivationMaps((CAT, PERSON), maps, (60, 80), 1 - maps.amax(0)),
            VOC_CLASSES,
        )
    return tmp_path / "maps"


def fit(root: Path, cams: Path, out: Path, *more: str) -> int:
    return main(["pixels", "--root", str(root), "--cams", str(cams), "--out", str(out), *FEATURES, *more])


def test_from_maps_to_posteriors_to_masks(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pixels"
    assert fit(tiny_voc, cams, out) == 0
    printed = capsys.readouterr().out
    assert "round 2: " in printed and f"3 images, 0 skipped; the classifier is {out}/checkpoint.pt" in printed
    classifier = load_pixel_classifier(out / "checkpoint.pt", VOC_CLASSES)
    assert classifier.stages == ("F2", "F3")

    posterior = ["posterior", "--pixels", str(out / "checkpoint.pt"), "--cams", str(cams), "--root", str(tiny_voc)]
    assert main([*posterior, "--out", str(tmp_path / "refined")]) == 0
    maps = read_cams(tmp_path / "refined", TINY_IDS[1], (60, 80), VOC_CLASSES)
    assert maps.classes == (CAT, PERSON) and maps.background is not None
    torch.testing.assert_close(maps.maps.sum(0) + maps.background, torch.ones(15, 20), atol=2e-3, rtol=0)

    masks = ["--supervision", "seed", "--cams", str(tmp_path / "refined"), "--features", "none", "--baselines", "seed"]
    assert expand(["--root", str(tiny_voc), *masks, "--out", str(tmp_path / "masks")]) == 0
    assert {CAT, PERSON} <= set(read_mask(tmp_path / "masks" / "seed" / f"{TINY_IDS[1]}.png").unique().tolist())


def test_a_rerun_finds_it_done_and_other_settings_are_refused(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pixels"
    assert fit(tiny_voc, cams, out) == 0
    before = (out / "checkpoint.pt").read_bytes()
    assert fit(tiny_voc, cams, out) == 0
    assert "is there already" in capsys.readouterr().out
    assert fit(tiny_voc, cams, out, "--share", "0.5") == 2
    assert "share was 0.7, now 0.5" in capsys.readouterr().err
    assert (out / "checkpoint.pt").read_bytes() == before
    assert fit(tiny_voc, cams, out, "--share", "0.5", "--overwrite") == 0
    assert (out / "checkpoint.pt").read_bytes() != before


def test_a_damaged_map_is_skipped_and_named(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cam_path(cams, TINY_IDS[0]).write_bytes(b"PK no archive")
    assert fit(tiny_voc, cams, tmp_path / "pixels") == 1
    printed = capsys.readouterr().out
    assert f"skipped {TINY_IDS[0]}: " in printed and "2 images, 1 skipped" in printed


def test_an_image_that_memory_does_not_hold_is_skipped_and_named(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch on a CPU says it by a plain RuntimeError."""
    calls, features = iter(TINY_IDS), PixelModel.features

    def fail_at_first(model: PixelModel, image: torch.Tensor) -> torch.Tensor:
        if next(calls) == TINY_IDS[0]:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate")
        return features(model, image)

    monkeypatch.setattr(PixelModel, "features", fail_at_first)
    assert fit(tiny_voc, cams, tmp_path / "pixels") == 1
    printed = capsys.readouterr().out
    assert f"skipped {TINY_IDS[0]}: [enforce fail" in printed and "2 images, 1 skipped" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--share", "0"], "--share: expected more than 0 and at most 1, got 0.0"),
        (["--ridge", "-1"], "--ridge: expected more than 0, got -1.0"),
        (["--features", "F2+F9"], "--features: expected some of img F1"),
        (["--features", "F2+F2"], "--features: expected some of"),
        (["--second-weights", "x.pt"], "--second-weights: "),
        (["--cams", "nowhere"], "--cams: nowhere: not a folder"),
    ],
)
def test_bad_values_are_named(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert fit(tiny_voc, cams, tmp_path / "pixels", *flags) == 2
    assert message in capsys.readouterr().err


def test_checkpoints_of_other_methods_are_refused(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {}, "settings": {"method": "cam"}, "class_names": list(VOC_CLASSES)}, tmp_path / "a.pt")
    command = ["posterior", "--pixels", str(tmp_path / "a.pt"), "--cams", str(cams), "--root", str(tiny_voc)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "a.pt: not a checkpoint of train.py pixels (its method is cam)" in capsys.readouterr().err


def test_two_processes_fit_as_one(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    assert fit(tiny_voc, cams, tmp_path / "one") == 0
    flags = ["pixels", "--root", str(tiny_voc), "--cams", str(cams), *FEATURES]
    torchrun("train.py", *flags, "--out", str(tmp_path / "two"))
    one, two = (load_pixel_classifier(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    torch.testing.assert_close(two.weight, one.weight, rtol=1e-3, atol=1e-4)


def test_masks_serve_in_place_of_maps(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = voc2012(tiny_voc)
    for index, id in enumerate(data.ids):
        mask = data.mask(index).clone()
        mask[:, :20] = 0
        save_mask(tmp_path / "seeds" / f"{id}.png", mask)
    given = ["--root", str(tiny_voc), "--seeds", str(tmp_path / "seeds"), "--seeds-certainty", "0.6"]
    assert main(["pixels", *given, "--out", str(tmp_path / "pixels"), *FEATURES]) == 0
    posterior = ["posterior", *given, "--pixels", str(tmp_path / "pixels" / "checkpoint.pt")]
    assert main([*posterior, "--out", str(tmp_path / "maps")]) == 0
    for id in data.ids:
        maps = read_cams(tmp_path / "maps", id, (60, 80), VOC_CLASSES)
        assert set(maps.classes) == set(read_mask(tmp_path / "seeds" / f"{id}.png").unique().tolist()) - {0, VOID}
        assert maps.background is not None

    assert main([*posterior, "--seeds-certainty", "1", "--out", str(tmp_path / "sure")]) == 2
    assert "--seeds-certainty: expected more than 0 and less than 1, got 1.0" in capsys.readouterr().err
    assert main([*posterior, "--cams", str(tmp_path / "maps"), "--out", str(tmp_path / "both")]) == 2
    assert "--cams and --seeds: give one of them" in capsys.readouterr().err


def test_without_maps_the_classifier_decides_among_the_labels(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    assert fit(tiny_voc, cams, tmp_path / "pixels") == 0
    checkpoint = tmp_path / "pixels" / "checkpoint.pt"
    posterior = ["posterior", "--root", str(tiny_voc), "--pixels", str(checkpoint), "--out", str(tmp_path / "alone")]
    assert main(posterior) == 0
    data, classifier = voc2012(tiny_voc), load_pixel_classifier(checkpoint)
    for index, id in enumerate(data.ids):
        maps = read_cams(tmp_path / "alone", id, (60, 80), VOC_CLASSES)
        assert set(maps.classes) == set(data.mask(index).unique().tolist()) - {0, VOID}
        logits = classifier.logits(classifier.features(data.image(index)), (0, *maps.classes))
        assert maps.background is not None
        found = torch.cat([maps.background[None], maps.maps])
        torch.testing.assert_close(found, logits.softmax(2).permute(2, 0, 1), atol=2e-3, rtol=0)


def test_labels_leave_out_what_masks_have_too_much(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Persons that images are not labelled with cannot be; an image without labels is named."""
    assert fit(tiny_voc, cams, tmp_path / "pixels") == 0
    data = voc2012(tiny_voc)
    for index, id in enumerate(data.ids):
        save_mask(tmp_path / "seeds" / f"{id}.png", data.mask(index))
    (tmp_path / "labels.json").write_text(json.dumps({id: ["cat"] for id in TINY_IDS[:2]}))
    given = ["--root", str(tiny_voc), "--seeds", str(tmp_path / "seeds"), "--labels", str(tmp_path / "labels.json")]
    posterior = ["posterior", *given, "--pixels", str(tmp_path / "pixels" / "checkpoint.pt")]
    assert main([*posterior, "--out", str(tmp_path / "among")]) == 1
    assert f"{TINY_IDS[2]}: has no image-level label" in capsys.readouterr().out
    for id in TINY_IDS[:2]:
        maps = read_cams(tmp_path / "among", id, (60, 80), VOC_CLASSES)
        assert maps.classes == (CAT,)


def test_a_network_of_masks_is_the_same_on_two_processes(tiny_voc: Path, tmp_path: Path) -> None:
    masks = tiny_voc / "VOCdevkit/VOC2012/SegmentationClass"
    flags = ["--root", str(tiny_voc), "--seeds", str(masks), "--features", "F2+F3", "--hidden", "32"]
    assert main(["pixels", *flags, "--out", str(tmp_path / "one")]) == 0
    torchrun("train.py", "pixels", *flags, "--out", str(tmp_path / "two"))
    one, two = (load_pixel_classifier(tmp_path / run / "checkpoint.pt", VOC_CLASSES) for run in ("one", "two"))
    assert isinstance(one, PixelNetwork)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    posterior = ["posterior", "--root", str(tiny_voc), "--pixels", str(tmp_path / "one/checkpoint.pt")]
    assert main([*posterior, "--out", str(tmp_path / "known")]) == 0
    maps = read_cams(tmp_path / "known", TINY_IDS[0], (60, 80), VOC_CLASSES)
    found = torch.cat([maps.background[None] if maps.background is not None else maps.maps[:0], maps.maps]).argmax(0)
    truth = read_mask(masks / f"{TINY_IDS[0]}.png")[2::4, 2::4]
    labels = torch.tensor([0, *maps.classes])[found]
    inside = truth != VOID
    assert float((labels == truth)[inside].double().mean()) > 0.9


@pytest.mark.parametrize("more", [["--rounds", "2"], ["--ridge", "0.1"], ["--points", "clicks.json"]])
def test_a_network_has_no_settings_of_the_linear_classifier(
    tiny_voc: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clicks.json").write_text("{}")
    more = [str(tmp_path / one) if one.endswith("json") else one for one in more]
    seeds = [] if "--points" in more else ["--seeds", str(tiny_voc / "VOCdevkit/VOC2012/SegmentationClass")]
    command = ["pixels", "--root", str(tiny_voc), *seeds, *more, "--hidden", "8", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert f"--hidden: not with {more[0]}" in capsys.readouterr().err
