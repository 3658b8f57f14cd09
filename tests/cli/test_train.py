"""train.py from the command line to the files it writes: resuming, several processes, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_IDS
from torchrun import torchrun
from training_files import rows, same, weights

import torch_svm_seg.training.trainer as training
from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cam.io import read_cams
from torch_svm_seg.cli.train import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.transforms import random_crop
from torch_svm_seg.data.voc import voc2012

QUICK = ["--crop-size", "48", "--batch-size", "2", "--epochs", "2", "--learning-rate", "0.01"]


def classify(root: Path, out: Path, *more: str) -> int:
    """train.py classify on the 3 train images of a data set, 1 step of 2 images an epoch."""
    return main(["classify", "--root", str(root), "--out", str(out), *QUICK, *more])


@pytest.mark.parametrize("method", ["cam", "sipe"])
def test_training_writes_a_classifier_and_its_logs(tiny_voc: Path, tmp_path: Path, method: str) -> None:
    assert classify(tiny_voc, tmp_path, "--method", method, "--val-split", "val", "--momentum", "0.5") == 0
    steps, epochs = rows(tmp_path / "steps.csv"), rows(tmp_path / "epochs.csv")
    losses = ["classification", "consistency"] if method == "sipe" else ["classification"]
    assert list(steps[0]) == ["step", *losses, "learning_rate"]
    assert [row["step"] for row in steps] == ["1", "2"] and [row["epoch"] for row in epochs] == ["1", "2"]
    assert float(steps[0]["learning_rate"]) == 0.01
    assert float(steps[1]["learning_rate"]) == pytest.approx(0.01 * 0.5**0.9, rel=1e-5)
    assert float(steps[0]["classification"]) == pytest.approx(float(epochs[0]["classification"]), rel=1e-5)
    assert all(0 < float(row["val_average_precision"]) <= 1 and 0 <= float(row["val_f1"]) <= 1 for row in epochs)
    network = load_classifier(tmp_path / "checkpoint.pt", VOC_CLASSES)
    assert network.num_classes == 20 and same(network.state_dict(), weights(tmp_path / "checkpoint.pt"))


def test_classes_are_learned(tiny_voc: Path, tmp_path: Path) -> None:
    """All images show a cat and a person: the loss falls towards knowing that."""
    assert classify(tiny_voc, tmp_path, "--method", "cam", "--epochs", "12", "--batch-size", "3") == 0
    losses = [float(row["classification"]) for row in rows(tmp_path / "steps.csv")]
    assert losses[0] > 0.6 and losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("method", ["cam", "sipe"])
def test_interrupted_run_resumes_to_the_same_weights(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    flags = ["--method", method, "--momentum", "0.9", "--batch-size", "1", "--epochs", "3"]
    assert classify(tiny_voc, tmp_path / "undisturbed", *flags) == 0
    done = []

    def stop_at_step_5(network: torch.nn.Module) -> None:
        done.append(network)
        if len(done) == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt

    clip = training.nn.utils.clip_grad_norm_
    monkeypatch.setattr(training.nn.utils, "clip_grad_norm_", lambda *a: (stop_at_step_5(a[0]), clip(*a)))
    assert classify(tiny_voc, tmp_path / "out", *flags) == 130
    assert len(rows(tmp_path / "out/steps.csv")) == 4 and len(rows(tmp_path / "out/epochs.csv")) == 1
    monkeypatch.undo()
    assert classify(tiny_voc, tmp_path / "out", *flags, "--resume", "--workers", "1") == 0
    assert same(weights(tmp_path / "out" / "checkpoint.pt"), weights(tmp_path / "undisturbed" / "checkpoint.pt"))
    assert (tmp_path / "out/steps.csv").read_text() == (tmp_path / "undisturbed/steps.csv").read_text()
    before = (tmp_path / "out/checkpoint.pt").read_bytes()
    assert classify(tiny_voc, tmp_path / "out", *flags, "--resume") == 0  # nothing is left to do
    assert (tmp_path / "out/checkpoint.pt").read_bytes() == before


def test_seed_decides(tiny_voc: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert classify(tiny_voc, tmp_path / name, "--epochs", "1", "--seed", seed) == 0
    assert same(weights(tmp_path / "a" / "checkpoint.pt"), weights(tmp_path / "b" / "checkpoint.pt"))
    assert not same(weights(tmp_path / "a" / "checkpoint.pt"), weights(tmp_path / "c" / "checkpoint.pt"))


def test_two_processes_train_like_one(tiny_voc: Path, tmp_path: Path) -> None:
    flags = ["--root", str(tiny_voc), *QUICK, "--method", "sipe", "--val-split", "val"]
    output = torchrun("train.py", "classify", *flags, "--out", str(tmp_path / "two"))
    assert output.count("3 images, 2 steps") == 1
    assert main(["classify", *flags, "--out", str(tmp_path / "one")]) == 0
    one, two = weights(tmp_path / "one" / "checkpoint.pt"), weights(tmp_path / "two" / "checkpoint.pt")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)
    for first, second in zip(rows(tmp_path / "one/steps.csv"), rows(tmp_path / "two/steps.csv"), strict=True):
        for name in first:
            assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-3)


def test_cams_are_written_of_the_classes_present(tiny_voc: Path, tmp_path: Path) -> None:
    assert classify(tiny_voc, tmp_path, "--epochs", "1") == 0
    (tmp_path / "labels.csv").write_text(f"{TINY_IDS[0]},cat\n{TINY_IDS[1]},person,cat\n")
    command = ["cams", "--checkpoint", str(tmp_path / "checkpoint.pt"), "--root", str(tiny_voc), "--scales", "1"]
    command += ["--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "cams")]
    assert main(command) == 0
    assert [path.name for path in sorted((tmp_path / "cams").glob("*.npz"))] == [f"{id}.npz" for id in TINY_IDS[:2]]
    maps = read_cams(tmp_path / "cams", TINY_IDS[1], (60, 80), VOC_CLASSES)
    assert maps.classes == (8, 15) and maps.maps.shape == (2, 15, 20) and maps.background is not None
    assert 0.99 < maps.maps.max() <= 1
    assert read_cams(tmp_path / "cams", TINY_IDS[0], (60, 80), VOC_CLASSES).classes == (8,)
    written = (tmp_path / "cams" / f"{TINY_IDS[0]}.npz").stat().st_mtime_ns
    assert main(command) == 0  # what is there stays
    assert (tmp_path / "cams" / f"{TINY_IDS[0]}.npz").stat().st_mtime_ns == written
    assert main([*command, "--no-flip"]) == 2  # other settings would mix two kinds of maps
    assert main([*command, "--no-flip", "--overwrite"]) == 0


def test_a_damaged_image_is_skipped_with_its_reason(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(tiny_voc, tmp_path, "--epochs", "1") == 0
    (tiny_voc / "VOCdevkit/VOC2012/JPEGImages" / f"{TINY_IDS[0]}.jpg").write_bytes(b"no image")
    command = ["cams", "--checkpoint", str(tmp_path / "checkpoint.pt"), "--root", str(tiny_voc), "--scales", "0.5"]
    assert main([*command, "--out", str(tmp_path / "cams")]) == 1
    printed = capsys.readouterr().out
    assert f"skipped {TINY_IDS[0]}" in printed and "2 images in" in printed and "1 skipped" in printed
    assert classify(tiny_voc, tmp_path / "again") == 2  # training without it would be another training


def test_images_without_masks_train_with_labels(tiny_voc: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("background\ncat\n")
    (tmp_path / "labels.json").write_text(json.dumps({f"{id}.jpg": ["cat"] for id in TINY_IDS[1:]}))
    (tmp_path / "val.txt").write_text(TINY_IDS[3])
    flags = ["--images", str(tiny_voc / "VOCdevkit/VOC2012/JPEGImages"), "--class-names", str(names)]
    flags += ["--labels", str(tmp_path / "labels.json"), "--val-list", str(tmp_path / "val.txt")]
    assert main(["classify", *flags, *QUICK, "--out", str(tmp_path / "out")]) == 0
    assert load_classifier(tmp_path / "out/checkpoint.pt").num_classes == 1
    # Only the validation images' average precision is known: the one class is in the one image.
    assert float(rows(tmp_path / "out/epochs.csv")[0]["val_average_precision"]) == 1


def test_images_without_labels_are_counted(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({TINY_IDS[0]: ["cat"], TINY_IDS[1]: []}))
    assert classify(tiny_voc, tmp_path / "out", "--labels", str(tmp_path / "labels.json"), "--epochs", "1") == 0
    printed = capsys.readouterr().out
    assert f"2 images without a label are left out: {TINY_IDS[1]}, {TINY_IDS[2]}" in printed
    assert "1 images, 1 steps" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--labels", "unknown.json"], "unknown.json: image x: unknown classes unicorn; expected aeroplane"),
        (["--labels", "none.json"], "none of the 3 images has a label"),
        (["--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
        (["--epochs", "0"], "--epochs: expected at least 1, got 0"),
        (["--crop-size", "8"], "--crop-size: expected at least 32, got 8"),
        (["--learning-rate", "0"], "--learning-rate and --momentum"),
        (["--momentum", "1"], "--learning-rate and --momentum"),
        (["--weight-decay", "-1"], "--weight-decay: expected at least 0, got -1.0"),
        (["--val-split", "nowhere"], "no split 'nowhere'"),
        (["--backbone", "vgg"], "backbone 'vgg'"),
        (["--learning-rate", "1e36", "--batch-size", "1"], "the loss is not finite at step 2"),
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
    Path("unknown.json").write_text('{"x": ["cat", "unicorn"]}')
    Path("none.json").write_text("{}")
    assert classify(tiny_voc, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("train.py: error: ") and message in error
    assert not (tmp_path / "out/checkpoint.pt").exists()


def test_a_folder_with_a_run_is_not_overwritten(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(tiny_voc, tmp_path, "--epochs", "1") == 0
    assert classify(tiny_voc, tmp_path, "--epochs", "1") == 2
    assert "a run is there already" in capsys.readouterr().err
    assert classify(tiny_voc, tmp_path, "--epochs", "1", "--resume", "--seed", "3") == 2
    assert "seed was 0, now 3" in capsys.readouterr().err


def test_checkpoints_of_other_classes_or_of_nothing_are_refused(tiny_voc: Path, tmp_path: Path) -> None:
    assert classify(tiny_voc, tmp_path, "--epochs", "1") == 0
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(InputError, match=r"trained on 20 classes .*but the data set has 2"):
        load_classifier(checkpoint, ["background", "cat", "dog"])
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"settings": content["settings"] | {"backbone": "resnet18"}}, tmp_path / "other.pt")
    torch.save(content["model"], tmp_path / "weights.pt")
    torch.save({"model": np.zeros(3)}, tmp_path / "objects.pt")
    for name, message in (
        ("other.pt", "does not fit resnet18"),
        ("weights.pt", "not a checkpoint of train.py"),
        ("objects.pt", "could run code"),
        ("missing.pt", "No such file"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            load_classifier(tmp_path / name)


def test_trained_weights_serve_as_a_backbone(tiny_voc: Path, tmp_path: Path) -> None:
    from torch_svm_seg.backbones.builder import load_backbone

    assert classify(tiny_voc, tmp_path, "--epochs", "1") == 0
    trained = load_backbone("efficientnet_lite0", tmp_path / "checkpoint.pt").state_dict()
    assert same(
        trained,
        {name[9:]: v for name, v in weights(tmp_path / "checkpoint.pt").items() if name.startswith("backbone.")},
    )


def test_crops_show_the_resized_image_and_padding_elsewhere() -> None:
    image = torch.full((3, 50, 100), 200, dtype=torch.uint8)
    fill = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    sizes = set()
    for seed in range(30):
        crop, valid = random_crop(image, 64, fill, torch.Generator().manual_seed(seed))
        again, _ = random_crop(image, 64, fill, torch.Generator().manual_seed(seed))
        assert torch.equal(crop, again) and crop.shape == (3, 64, 64)
        assert (crop[:, valid] == 200).all() and (crop[:, ~valid] == fill[:, 0]).all()
        height, width = int(valid.any(1).sum()), int(valid.any(0).sum())
        assert valid.sum() == height * width
        assert 20 <= height <= 40 and 40 <= width <= 64
        sizes.add(height)
    assert len(sizes) > 5


def test_crops_mirror_half_of_the_images() -> None:
    image = torch.zeros(3, 8, 16, dtype=torch.uint8)
    image[..., :8] = 100
    mirrored = 0
    for seed in range(40):
        crop, valid = random_crop(image, 16, torch.full((3, 1, 1), 50.0), torch.Generator().manual_seed(seed))
        columns = valid.any(0).nonzero().flatten()
        row = valid.any(1).nonzero()[0]
        mirrored += int(crop[0, row, columns[0]] < crop[0, row, columns[-1]])
    assert 10 < mirrored < 30


def test_images_of_voc_without_masks_are_read(tiny_voc: Path) -> None:
    (tiny_voc / "VOCdevkit/VOC2012/SegmentationClass" / f"{TINY_IDS[0]}.png").unlink()
    assert voc2012(tiny_voc).image(0).shape == (3, 60, 80)
    with pytest.raises(InputError, match=r"\.png"):
        voc2012(tiny_voc)[0]
