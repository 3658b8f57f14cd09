"""train.py irn and propagate from the command line to the files they write: resuming, several processes, bad input."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS
from torchrun import torchrun
from training_files import rows, same, weights

import torch_svm_seg.training.trainer as training
from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cam.io import cam_path, read_cams, save_cams
from torch_svm_seg.cli.expand import main as expand
from torch_svm_seg.cli.train import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import read_mask, save_mask
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.irn import load_irn

QUICK = ["--crop-size", "64", "--batch-size", "2", "--epochs", "2"]


@pytest.fixture
def cams(tiny_voc: Path, tmp_path: Path) -> Path:
    """Maps of the train images: the objects, dilated, with a background of their own."""
    data = voc2012(tiny_voc)
    for place, id in enumerate(data.ids):
        mask = data.mask(place)
        maps = torch.stack([(mask == id_).float() for id_ in (CAT, PERSON)])
        maps = torch.nn.functional.max_pool2d(maps, 9, 4, 4)
        maps = ActivationMaps((CAT, PERSON), maps, (60, 80), 1 - maps.amax(0))
        save_cams(cam_path(tmp_path / "maps", id), maps, VOC_CLASSES)
    return tmp_path / "maps"


def train_irn(root: Path, cams: Path, out: Path, *more: str) -> int:
    return main(["irn", "--root", str(root), "--cams", str(cams), "--out", str(out), *QUICK, *more])


def test_from_maps_to_refined_maps_to_masks(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "irn"
    assert train_irn(tiny_voc, cams, out) == 0
    printed = capsys.readouterr().out
    assert "3 images in" in printed and f"3 images, 2 steps; the network is {out}/checkpoint.pt" in printed
    assert list(rows(out / "steps.csv")[0]) == ["step", "affinity", "learning_rate"]
    assert len(rows(out / "epochs.csv")) == 2
    labels = read_mask(out / "labels" / f"{TINY_IDS[0]}.png")
    assert labels.shape == (60, 80) and {0, CAT, PERSON} <= set(labels.unique().tolist()) <= {0, CAT, PERSON, 255}

    command = ["propagate", "--irn", str(out / "checkpoint.pt"), "--cams", str(cams), "--root", str(tiny_voc)]
    command += ["--out", str(tmp_path / "refined")]
    assert main(command) == 0
    maps = read_cams(tmp_path / "refined", TINY_IDS[1], (60, 80), VOC_CLASSES)
    assert maps.classes == (CAT, PERSON) and maps.maps.shape == (2, 15, 20) and maps.background is not None
    torch.testing.assert_close(maps.maps.sum(0) + maps.background, torch.ones(15, 20), atol=2e-3, rtol=0)
    written = cam_path(tmp_path / "refined", TINY_IDS[1]).stat().st_mtime_ns
    assert main(command) == 0  # what is there stays
    assert cam_path(tmp_path / "refined", TINY_IDS[1]).stat().st_mtime_ns == written
    assert main([*command, "--background", "power:2"]) == 2  # other settings would mix two kinds of maps

    flags = ["--root", str(tiny_voc), "--supervision", "seed", "--background", "own", "--features", "F2"]
    assert expand([*flags, "--cams", str(tmp_path / "refined"), "--out", str(tmp_path / "masks")]) == 0
    refine = ["--background", "own", "--refine", "none", "irn", "--irn-weights", str(out / "checkpoint.pt")]
    assert expand([*flags, *refine, "--cams", str(cams), "--out", str(tmp_path / "direct")]) == 0
    plain, refined = (read_mask(tmp_path / "direct" / name / f"{TINY_IDS[0]}.png") for name in ("F2", "F2+irn"))
    assert plain.shape == refined.shape and not torch.equal(plain, refined)
    assert read_mask(tmp_path / "masks" / "F2" / f"{TINY_IDS[1]}.png").shape == (60, 80)


def test_interrupted_run_resumes_to_the_same_weights(
    tiny_voc: Path, cams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--momentum", "0.9", "--batch-size", "1"]
    assert train_irn(tiny_voc, cams, tmp_path / "undisturbed", *flags) == 0
    done = []

    def stop_at_step_5(losses: torch.Tensor) -> torch.Tensor:
        done.append(losses)
        if len(done) == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return losses

    monkeypatch.setattr(training, "mean_over_processes", stop_at_step_5)
    assert train_irn(tiny_voc, cams, tmp_path / "out", *flags) == 130
    monkeypatch.undo()
    assert train_irn(tiny_voc, cams, tmp_path / "out", *flags) == 2  # a run is there
    assert train_irn(tiny_voc, cams, tmp_path / "out", *flags, "--resume") == 0
    assert same(weights(tmp_path / "out" / "checkpoint.pt"), weights(tmp_path / "undisturbed" / "checkpoint.pt"))
    assert (tmp_path / "out/steps.csv").read_text() == (tmp_path / "undisturbed/steps.csv").read_text()


def test_run_of_version_0_1_is_not_continued(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its optimiser had a second group of parameters."""
    assert train_irn(tiny_voc, cams, tmp_path, "--epochs", "1") == 0
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    content["optimizer"]["param_groups"] *= 2
    torch.save(content, tmp_path / "checkpoint.pt")
    assert train_irn(tiny_voc, cams, tmp_path, "--epochs", "1", "--resume") == 2
    assert "a run of another version cannot be continued" in capsys.readouterr().err
    assert load_irn(tmp_path / "checkpoint.pt").steps == 256


def test_labels_are_made_anew_before_a_training_and_never_after(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    label, of_other_settings = tmp_path / "out/labels" / f"{TINY_IDS[0]}.png", ["--background-factor", "0"]
    assert train_irn(tiny_voc, cams, tmp_path / "first") == 0
    shutil.copytree(tmp_path / "first/labels", label.parent)
    assert train_irn(tiny_voc, cams, tmp_path / "out", *of_other_settings) == 0
    made = label.read_bytes()
    assert made != (tmp_path / "first/labels" / label.name).read_bytes()
    assert train_irn(tiny_voc, cams, tmp_path / "out") == 2  # a run is there
    assert label.read_bytes() == made


def test_two_processes_train_like_one(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    """Also where the two images of a batch have very different numbers of pairs."""
    assert train_irn(tiny_voc, cams, tmp_path / "one") == 0
    labels = tmp_path / "one/labels"
    few = torch.full((60, 80), 255)
    few[10:14, 10:18] = torch.tensor([0, CAT]).repeat_interleave(4)
    save_mask(labels / f"{TINY_IDS[0]}.png", few)
    flags = ["irn", "--root", str(tiny_voc), "--sure-labels", str(labels), *QUICK]
    assert main([*flags, "--out", str(tmp_path / "single")]) == 0
    torchrun("train.py", *flags, "--out", str(tmp_path / "two"))
    single, two = weights(tmp_path / "single" / "checkpoint.pt"), weights(tmp_path / "two" / "checkpoint.pt")
    assert single.keys() == two.keys()
    for name in single:
        torch.testing.assert_close(single[name], two[name], atol=1e-5, rtol=1e-4)
    for first, second in zip(rows(tmp_path / "single/steps.csv"), rows(tmp_path / "two/steps.csv"), strict=True):
        for name in first:
            assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-4)


def test_images_without_maps_are_skipped_and_counted(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cam_path(cams, TINY_IDS[0]).unlink()
    cam_path(cams, TINY_IDS[1]).write_bytes(b"nothing")
    assert train_irn(tiny_voc, cams, tmp_path / "out", "--epochs", "1") == 1
    printed = capsys.readouterr().out
    assert f"{TINY_IDS[0]}.npz: no class activation maps" in printed
    assert f"{TINY_IDS[1]}.npz: not a file of class activation maps" in printed and "2 skipped" in printed
    assert "1 images, 1 steps" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--cams and --sure-labels: give one of them"),
        (["--cams", "x", "--sure-labels", "y"], "--cams and --sure-labels: give one of them"),
        (["--sure-labels", "nowhere"], "nowhere: no image has sure labels"),
        (["--sure-labels", "small"], "8x4 pixels, but the image has 80x60"),
        (["--sure-labels", "small", "--crop-size", "80"], "--crop-size: expected a multiple of 32, got 80"),
        (
            ["--cams", "small", "--background", "none"],
            "--background: expected auto, own, power:EXPONENT or constant:THRESHOLD",
        ),
        (["--cams", "small", "--background-factor", "2"], "--background-factor: expected 0 to 1, got 2.0"),
    ],
)
def test_bad_input_is_named(
    tiny_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_mask("small/" + TINY_IDS[0] + ".png", torch.zeros(4, 8, dtype=torch.long))
    assert main(["irn", "--root", str(tiny_voc), "--out", "out", *QUICK, *flags]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path("out/checkpoint.pt").exists()


def test_other_checkpoints_are_refused(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    flags = ["--root", str(tiny_voc), "--epochs", "1", "--crop-size", "48"]
    assert main(["classify", *flags, "--out", str(tmp_path)]) == 0
    with pytest.raises(InputError, match=r"checkpoint\.pt: not a checkpoint of train\.py irn \(its method is sipe\)"):
        load_irn(tmp_path / "checkpoint.pt")
    (tmp_path / "broken.pt").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"broken\.pt"):
        load_irn(tmp_path / "broken.pt")
    assert train_irn(tiny_voc, cams, tmp_path / "irn", "--epochs", "1") == 0
    assert load_irn(tmp_path / "irn/checkpoint.pt", exponent=1).exponent == 1
    with pytest.raises(InputError, match=r"not a checkpoint of train\.py classify \(its method is irn\)"):
        load_classifier(tmp_path / "irn/checkpoint.pt", VOC_CLASSES)
    content = torch.load(tmp_path / "irn/checkpoint.pt", weights_only=True)
    content["settings"]["backbone"] = "efficientnet_lite1"
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt: does not fit efficientnet_lite1"):
        load_irn(tmp_path / "other.pt")
