"""train.py segment and predict, from the command line to the files: resuming, several processes, and bad input."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS
from PIL import Image
from torchrun import torchrun
from training_files import rows, same, weights

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import cam_path, read_cams, save_cams
from torch_svm_seg.cli import evaluate, expand
from torch_svm_seg.cli.train import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import read_mask, save_mask
from torch_svm_seg.data.palette import voc_palette
from torch_svm_seg.data.transforms import random_masked_crop
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.voc_archive import write_voc_archive
from torch_svm_seg.segmenters import Segmenter, build_segmenter, load_segmenter
from torch_svm_seg.segmenters.training import survey_masks
from torch_svm_seg.training.trainer import Training

QUICK = ["--crop-size", "48", "--batch-size", "2", "--steps", "4", "--check-every", "2"]


def segment(root: Path, out: Path, *more: str) -> int:
    """train.py segment on the 3 train images of a data set, 4 steps of 2 images, 1 step a pass over the data."""
    return main(["segment", "--root", str(root), "--out", str(out), *QUICK, *more])


def predict(root: Path, run: Path, out: Path, *more: str) -> int:
    return main(["predict", "--root", str(root), "--checkpoint", str(run / "checkpoint.pt"), "--out", str(out), *more])


def masks_folder(root: Path) -> Path:
    return root / "VOCdevkit/VOC2012/SegmentationClass"


def test_classes_are_learned_and_the_best_network_is_kept(tiny_voc: Path, tmp_path: Path) -> None:
    flags = ["--steps", "30", "--check-every", "10", "--batch-size", "3", "--learning-rate", "0.005"]
    flags += ["--val-split", "val", "--scale-range", "0.8", "1.2"]
    assert segment(tiny_voc, tmp_path / "run", *flags) == 0
    steps, checks = rows(tmp_path / "run/steps.csv"), rows(tmp_path / "run/checks.csv")
    assert list(steps[0]) == ["step", "segmentation", "learning_rate"] and len(steps) == 30
    assert [row["step"] for row in checks] == ["10", "20", "30"]
    assert float(steps[0]["segmentation"]) > 2.5 and float(steps[-1]["segmentation"]) < 0.7
    assert float(steps[10]["learning_rate"]) == pytest.approx(0.005 * (20 / 30) ** 0.9, rel=1e-5)
    best = max(float(row["val_miou"]) for row in checks)
    assert torch.load(tmp_path / "run/best.pt", weights_only=True)["best"] == pytest.approx(best, rel=1e-5)
    assert same(load_segmenter(tmp_path / "run/best.pt").state_dict(), weights(tmp_path / "run/best.pt"))
    assert predict(tiny_voc, tmp_path / "run", tmp_path / "masks", "--split", "val") == 0
    data = ["--root", str(tiny_voc), "--split", "val", "--predictions", str(tmp_path / "masks")]
    assert evaluate.main([*data, "--json", str(tmp_path / "figures.json")]) == 0
    # evaluate.py finds in the files what the last check found on the fly.
    miou = evaluate.json.loads((tmp_path / "figures.json").read_text())["masks"]["miou"]
    assert miou == pytest.approx(float(checks[-1]["val_miou"]), rel=1e-5) and miou > 0.4


def test_pseudo_masks_take_the_place_of_the_ground_truth(tiny_voc: Path, tmp_path: Path) -> None:
    for id in TINY_IDS[:2]:
        mask = read_mask(masks_folder(tiny_voc) / f"{id}.png")
        save_mask(tmp_path / "pseudo" / f"{id}.png", mask.where(mask != PERSON, 0))
    dataset = voc2012(tiny_voc).with_masks(tmp_path / "pseudo")
    summary = survey_masks(dataset)
    assert summary.with_masks.ids == TINY_IDS[:2] and summary.without == TINY_IDS[2:3]
    expected = torch.stack([(dataset.mask(place) == CAT).sum() for place in (0, 1)]).sum()
    assert summary.pixels[CAT] == expected and summary.pixels[PERSON] == 0 and summary.unlabelled > 0
    assert segment(tiny_voc, tmp_path / "run", "--masks", str(tmp_path / "pseudo"), "--val-split", "val") == 0
    assert torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["settings"]["number"] == 2


def test_interrupted_run_resumes_to_the_same_networks(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--val-split", "val", "--steps", "5", "--batch-size", "1", "--network", "lraspp:mobilenet_v3_large"]
    flags += ["--weights", "random", "--batch-size", "2"]
    assert segment(tiny_voc, tmp_path / "undisturbed", *flags) == 0
    losses, done = Segmenter.losses, []

    def stop_at_step_4(network: Segmenter, images: torch.Tensor, masks: torch.Tensor) -> dict[str, torch.Tensor]:
        done.append(1)
        if len(done) == 4:  # between two checkpoints
            raise KeyboardInterrupt
        return losses(network, images, masks)

    monkeypatch.setattr(Segmenter, "losses", stop_at_step_4)
    torch.manual_seed(1)
    assert segment(tiny_voc, tmp_path / "out", *flags) == 130
    assert len(rows(tmp_path / "out/steps.csv")) == 3 and len(rows(tmp_path / "out/checks.csv")) == 1
    monkeypatch.undo()
    torch.manual_seed(2)  # nothing depends on the generator's state
    assert segment(tiny_voc, tmp_path / "out", *flags, "--resume", "--workers", "1") == 0
    for name in ("checkpoint.pt", "best.pt"):
        assert same(weights(tmp_path / "out" / name), weights(tmp_path / "undisturbed" / name))
    assert (tmp_path / "out/steps.csv").read_text() == (tmp_path / "undisturbed/steps.csv").read_text()
    checks = rows(tmp_path / "out/checks.csv")
    assert [row["step"] for row in checks] == ["2", "4", "5"]
    assert segment(tiny_voc, tmp_path / "out", *flags, "--resume") == 0  # nothing is left to do
    assert rows(tmp_path / "out/checks.csv") == checks
    assert segment(tiny_voc, tmp_path / "out", *flags) == 2  # a run is there
    assert segment(tiny_voc, tmp_path / "out", *flags, "--resume", "--crop-size", "64") == 2  # another one
    (tmp_path / "out/best.pt").replace(tmp_path / "out/checkpoint.pt")
    assert segment(tiny_voc, tmp_path / "out", *flags, "--resume") == 2  # not enough to continue from


def test_the_first_step_of_adamw_is_the_learning_rate_against_the_gradient(tiny_voc: Path, tmp_path: Path) -> None:
    """Loshchilov and Hutter (ICLR 2019): Adam's first step is -r sign(g), and the decay is r times the weight."""
    flags = ["--network", "lite:resnet18", "--weights", "random", "--optimizer", "adamw"]
    flags += ["--steps", "1", "--learning-rate", "1e-3", "--weight-decay", "0.5"]
    assert segment(tiny_voc, tmp_path, *flags) == 0
    before = build_segmenter("lite:resnet18", len(VOC_CLASSES), "random").state_dict()
    after = weights(tmp_path / "checkpoint.pt")
    rate = 1e-2  # of new layers
    # The classifier starts at zero, and the decoder before it has no gradient yet: it decays alone.
    decay = after["join.0.weight"] / before["join.0.weight"]
    torch.testing.assert_close(decay, torch.full_like(decay, 1 - rate * 0.5))
    moved = after["coarse_classifier.weight"].abs().flatten()
    assert float((moved / rate - 1).abs().quantile(0.9)) < 1e-2  # tiny gradients move less


def test_two_processes_train_like_one(tiny_voc: Path, tmp_path: Path) -> None:
    """Void is spread unevenly, so that a mean of the processes' means would differ from the mean of all pixels."""
    path = masks_folder(tiny_voc) / f"{TINY_IDS[1]}.png"
    mask = read_mask(path)
    mask[:, 30:] = 255
    save_mask(path, mask)
    flags = ["segment", "--root", str(tiny_voc), *QUICK, "--val-split", "val"]
    output = torchrun("train.py", *flags, "--out", str(tmp_path / "two"))
    assert output.count("3 images, 4 steps") == 1
    assert main([*flags, "--out", str(tmp_path / "one")]) == 0
    for log in ("steps.csv", "checks.csv"):
        for first, second in zip(rows(tmp_path / "one" / log), rows(tmp_path / "two" / log), strict=True):
            for name in first.keys() - {"seconds"}:
                assert float(first[name]) == pytest.approx(float(second[name]), rel=2e-3)
    one, two = weights(tmp_path / "one/checkpoint.pt"), weights(tmp_path / "two/checkpoint.pt")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


def probabilities(folder: Path) -> str:
    """Maps of the train images, which take the lower half of each for what its mask has there, and are not sure."""
    for id in TINY_IDS[:3]:
        cat = torch.linspace(0.1, 0.9, 60)[:, None].expand(60, 80)
        maps = ActivationMaps((CAT, PERSON), torch.stack([cat, (1 - cat) / 2]), (60, 80), (1 - cat) / 2)
        save_cams(cam_path(folder, id), maps, VOC_CLASSES)
    return str(folder)


def test_labels_by_probability_and_online_resume_to_the_same_network(tiny_voc: Path, tmp_path: Path) -> None:
    flags = ["--probabilities", probabilities(tmp_path / "maps"), "--ignore-below", "0.3", "--online", "2"]
    flags += ["--online-after", "1", "--online-features", "F2", "F3"]
    assert segment(tiny_voc, tmp_path / "plain") == 0
    assert segment(tiny_voc, tmp_path / "whole", *flags) == 0
    assert not same(*(weights(tmp_path / name / "checkpoint.pt") for name in ("plain", "whole")))
    state = torch.load(tmp_path / "whole/checkpoint.pt", weights_only=True)["settings"]
    assert state["ignore_below"] == 0.3 and state["online"] == 2

    interrupted, run = [], Training.run

    def stop_after_the_first_check(training: Training, *arguments: Any) -> None:
        if interrupted:
            raise KeyboardInterrupt
        interrupted.append(1)
        run(training, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run", stop_after_the_first_check)
        assert segment(tiny_voc, tmp_path / "parts", *flags) == 130
    assert segment(tiny_voc, tmp_path / "parts", *flags, "--resume") == 0
    assert same(*(weights(tmp_path / name / "checkpoint.pt") for name in ("parts", "whole")))
    assert segment(tiny_voc, tmp_path / "parts", *flags[:-3], "--resume") == 2  # another run
    (tmp_path / "maps" / f"{TINY_IDS[0]}.npz").write_bytes((tmp_path / "maps" / f"{TINY_IDS[1]}.npz").read_bytes()[:-1])
    assert segment(tiny_voc, tmp_path / "parts", *flags, "--resume") == 2  # on other maps


def test_two_processes_label_online_like_one(tiny_voc: Path, tmp_path: Path) -> None:
    flags = ["segment", "--root", str(tiny_voc), *QUICK, "--online", "1", "--online-after", "2"]
    flags += ["--probabilities", probabilities(tmp_path / "maps")]
    torchrun("train.py", *flags, "--out", str(tmp_path / "two"))
    assert main([*flags, "--out", str(tmp_path / "one")]) == 0
    one, two = weights(tmp_path / "one/checkpoint.pt"), weights(tmp_path / "two/checkpoint.pt")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


class TestPredict:
    @pytest.fixture
    def run(self, tiny_voc: Path, tmp_path: Path) -> Path:
        assert segment(tiny_voc, tmp_path / "run", "--steps", "1") == 0
        return tmp_path / "run"

    def test_masks_are_packed_for_the_evaluation_server(self, tiny_voc: Path, run: Path, tmp_path: Path) -> None:
        lists = tiny_voc / "VOCdevkit/VOC2012/ImageSets/Segmentation"
        (lists / "test.txt").write_text("\n".join(TINY_IDS[:2]))
        for path in masks_folder(tiny_voc).iterdir():
            path.unlink()  # the test set has no masks
        archive = tmp_path / "results.tar.gz"
        flags = ["--split", "test", "--voc-archive", str(archive), "--scales", "1", "0.5", "--flip"]
        assert predict(tiny_voc, run, tmp_path / "masks", *flags) == 0
        with tarfile.open(archive) as packed:
            assert packed.getnames() == [f"results/VOC2012/Segmentation/comp6_test_cls/{id}.png" for id in TINY_IDS[:2]]
            member = packed.extractfile(packed.getnames()[0])
            assert member is not None
            image_file = Image.open(member)
            assert image_file.mode == "P" and image_file.getpalette() == voc_palette() and image_file.size == (80, 60)
            assert np.array_equal(np.array(image_file), read_mask(tmp_path / "masks" / f"{TINY_IDS[0]}.png"))
        first = archive.read_bytes()
        write_voc_archive(archive, tmp_path / "masks", TINY_IDS[:2])
        assert archive.read_bytes() == first
        with pytest.raises(InputError, match="1 masks are missing, such as none"):
            write_voc_archive(archive, tmp_path / "masks", [*TINY_IDS[:2], "none"])

    def test_a_networks_maps_are_seeds_of_the_next_masks(self, tiny_voc: Path, run: Path, tmp_path: Path) -> None:
        labels = tmp_path / "labels.csv"
        labels.write_text(f"{TINY_IDS[0]},cat\n{TINY_IDS[1]},person,cat\n")
        command = ["cams", "--checkpoint", str(run / "checkpoint.pt"), "--root", str(tiny_voc), "--scales", "1"]
        assert main([*command, "--labels", str(labels), "--out", str(tmp_path / "maps")]) == 0
        maps = read_cams(tmp_path / "maps", TINY_IDS[1], (60, 80), VOC_CLASSES)
        assert maps.classes == (CAT, PERSON) and maps.background is not None
        torch.testing.assert_close(maps.maps.sum(0) + maps.background, torch.ones(15, 20), atol=2e-3, rtol=0)
        names = tmp_path / "names.txt"
        names.write_text("\n".join(TINY_IDS[:2]))
        flags = [
            "--root",
            str(tiny_voc),
            "--list",
            str(names),
            "--supervision",
            "seed",
            "--cams",
            str(tmp_path / "maps"),
        ]
        flags += ["--agreement", "none", "--out", str(tmp_path / "masks")]
        assert expand.main(flags) == 0
        for id, classes in zip(TINY_IDS, [{0, CAT}, {0, PERSON, CAT}], strict=False):
            assert set(np.unique(read_mask(tmp_path / "masks/F4" / f"{id}.png"))) <= classes

    def test_a_run_continues_and_skips_damaged_images(
        self, tiny_voc: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        item = tiny_voc / "VOCdevkit/VOC2012/JPEGImages" / f"{TINY_IDS[0]}.jpg"
        content = item.read_bytes()
        item.write_bytes(content[:200])
        assert predict(tiny_voc, run, tmp_path / "masks") == 1
        printed = capsys.readouterr().out
        assert f"skipped {TINY_IDS[0]}" in printed and "2 images in" in printed
        item.write_bytes(content)
        assert predict(tiny_voc, run, tmp_path / "masks") == 0
        assert "1 images in" in capsys.readouterr().out
        assert predict(tiny_voc, run, tmp_path / "masks", "--flip") == 2  # would mix two kinds of masks
        assert predict(tiny_voc, run, tmp_path / "masks", "--refine", "crf", "--crf", "psa", "--overwrite") == 0
        assert "3 images in" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--refine", "blur"], "--refine: expected none or crf, pamr, par, irn joined by +"),
            (["--voc-archive", "masks.zip"], "expected a name that ends in .tar.gz or .tgz"),
            (["--scales", "1", "0"], "--scales: expected positive numbers"),
        ],
    )
    def test_bad_flags_are_named(
        self,
        tiny_voc: Path,
        run: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        flags: list[str],
        message: str,
    ) -> None:
        assert predict(tiny_voc, run, tmp_path / "masks", *flags) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "masks").exists()

    def test_checkpoints_of_other_networks_are_refused(self, tiny_voc: Path, run: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"trained on 20 classes .*but the data set has 1 \(cat\)"):
            load_segmenter(run / "checkpoint.pt", ["background", "cat"])
        assert load_segmenter(run / "checkpoint.pt", VOC_CLASSES).num_classes == 21
        content = torch.load(run / "checkpoint.pt", weights_only=True)
        settings = content["settings"]
        torch.save(content | {"settings": settings | {"network": "lraspp:mobilenet_v3_large"}}, tmp_path / "other.pt")
        torch.save(content | {"settings": settings | {"method": "cam"}}, tmp_path / "classifier.pt")
        (tmp_path / "cut.pt").write_bytes((run / "checkpoint.pt").read_bytes()[:1000])
        for name, message in (
            ("other.pt", "does not fit lraspp:mobilenet_v3_large"),
            ("classifier.pt", r"not a checkpoint of train.py segment"),
            ("cut.pt", "damaged"),
        ):
            with pytest.raises(InputError, match=f"{name}: .*{message}"):
                load_segmenter(tmp_path / name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--masks", "nowhere"], "nowhere: no such folder"),
        (["--masks", "empty"], "masks: none of the 3 images has one, such as 2008_000001.png"),
        (["--masks", "unknown"], "unknown class ids 77; expected 0..20"),
        (["--masks", "size"], "the mask has 8x8 pixels"),
        (["--masks", "unsure"], "no labelled pixel in 3 masks"),
        (["--val-split", "empty"], "empty.txt: no images"),
        (["--val-masks", "unsure"], "--val-masks: works only together with"),
        (["--network", "deeplabv9:resnet50"], "network 'deeplabv9:resnet50': expected deeplabv2:resnet101"),
        (["--scale-range", "2", "1"], "--scale-range: expected positive numbers"),
        (["--ignore-below", "0.5"], "--ignore-below: works only together with --probabilities"),
        (["--ignore-below", "2"], "--ignore-below: expected 0 to 1, got 2.0"),
        (["--probabilities", "empty"], f"empty/{TINY_IDS[0]}.npz: no such file; every mask needs"),
        (["--online", "1", "--online-features", "F9"], "stage F9: expected one of img, F1"),
        (["--steps", "0"], "--steps: expected at least 1, got 0"),
        (["--check-every", "0", "--steps", "0"], "expected at least 1"),
        (["--network", "lraspp:mobilenet_v3_large", "--weights", "random", "--batch-size", "1"], "needs at least 2"),
        (["--learning-rate", "1e36"], "the loss is not finite at step 2"),
        (["--learning-rate", "1e36", "--online", "1", "--online-after", "1"], "the loss is not finite at step 2"),
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
    Path("empty").mkdir()
    (tiny_voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/empty.txt").write_text("\n")
    for id in TINY_IDS:
        save_mask(f"unknown/{id}.png", torch.full((60, 80), 77))
        save_mask(f"size/{id}.png", torch.zeros(8, 8, dtype=torch.long))
        save_mask(f"unsure/{id}.png", torch.full((60, 80), 255))
    assert segment(tiny_voc, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("train.py: error: ") and message in error
    assert not (tmp_path / "out/checkpoint.pt").exists()


def test_crops_of_image_and_mask_stay_together() -> None:
    """The image shows its mask's values, so wherever both are resized, mirrored and cut to, they must agree."""
    mask = torch.arange(60)[:, None] // 20 + 3 * (torch.arange(90) // 30)  # 9 squares
    image = (mask * 20).to(torch.uint8).expand(3, 60, 90)
    fill = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    padded, mirrored = [], 0
    for seed in range(20):
        crop, cut = random_masked_crop(image, mask, 64, (0.5, 1.5), fill, torch.Generator().manual_seed(seed))
        assert crop.shape == (3, 64, 64) and cut.shape == (64, 64) and cut.dtype == torch.int64
        padding = cut == 255
        assert (crop[:, padding] == fill[:, 0]).all()
        agree = ((crop[0] / 20 - cut).abs() < 0.05) | padding
        assert agree.float().mean() > 0.85  # all but the squares' blurred borders
        row = cut[~padding.all(1)][0]
        row = row[row != 255]
        mirrored += int(row[0] > row[-1])
        padded.append(float(padding.float().mean()))
    assert min(padded) < 0.1 and max(padded) > 0.5
    assert 4 < mirrored < 16


def test_a_mask_that_another_folder_lacks_is_not_replaced_by_sbd(tiny_voc: Path, tmp_path: Path) -> None:
    (tiny_voc / "VOCdevkit/VOC2012/SegmentationClassAug").mkdir()
    (tiny_voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt").write_text(TINY_IDS[0])
    (tiny_voc / "SBD/cls").mkdir(parents=True)
    (tiny_voc / "SBD/cls" / f"{TINY_IDS[0]}.mat").touch()
    dataset = voc2012(tiny_voc, "train_aug")
    assert dataset.has_mask(0) and not dataset.with_masks(tmp_path).has_mask(0)
