"""Confident labels, and the expansion of seeds."""

import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_backbone
from torch import Tensor

from torch_svm_seg import SVMExpander
from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import cam_path, read_cams, save_cams
from torch_svm_seg.cli import expand, train
from torch_svm_seg.data.constants import VOC_CLASSES, VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.io import read_mask, save_mask
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.panels import PanelRow, panel
from torch_svm_seg.expansion.labelling import KnownImages, SVMLabeller
from torch_svm_seg.expansion.sampling import confident_labels
from torch_svm_seg.expansion.self_training import SelfTraining
from torch_svm_seg.pipeline import expansion_summary
from torch_svm_seg.pipeline.backgrounds import activation_of, background_rule, usual_background
from torch_svm_seg.pipeline.cam_supervision import CamFiles
from torch_svm_seg.pipeline.expansion_run import ExpansionRun
from torch_svm_seg.pipeline.run_folder import Progress
from torch_svm_seg.pipeline.supervision import GroundTruth, Supervised
from torch_svm_seg.refine import DenseCRF


def test_the_pixels_that_lead_the_most_are_confident() -> None:
    """Half of 4 pixels of class 0, half of 3, rounded up, of class 1, and none of a class that never wins."""
    first = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.1, 0.2, 0.3])
    scores = torch.stack([first, 1 - first, torch.full((7,), -torch.inf)]).view(1, 3, 1, 7)
    assert confident_labels(scores, 0.5).tolist() == [[[0, 0, VOID, VOID, 1, 1, VOID]]]
    assert confident_labels(scores, 1).tolist() == [[[0, 0, 0, 0, 1, 1, 1]]]
    assert confident_labels(scores, 1e-9).tolist() == [[[0, VOID, VOID, VOID, 1, VOID, VOID]]]


def test_confident_labels_keep_the_share_of_each_region() -> None:
    scores = torch.randn(3, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    regions = scores.argmax(1)
    labels = confident_labels(scores, 0.3)
    for image in range(3):
        assert torch.equal(labels[image : image + 1], confident_labels(scores[image : image + 1], 0.3))
        lead = scores[image].topk(2, dim=0).values.diff(dim=0)[0].neg()
        for id in range(4):
            region, kept = regions[image] == id, labels[image] == id
            assert not (kept & ~region).any()
            assert int(kept.sum()) == -(-3 * int(region.sum()) // 10)
            assert float(lead[kept].min()) >= float(lead[region & ~kept].max())


@pytest.mark.parametrize(
    ("message", "scores", "share"),
    [
        (r"^scores: .*\(2, 3, 4\)", torch.rand(2, 3, 4), 0.5),
        ("^scores: .*int64", torch.ones(1, 2, 3, 4).long(), 0.5),
        ("^share: .*0", torch.rand(1, 2, 3, 4), 0.0),
        ("^share: .*1.5", torch.rand(1, 2, 3, 4), 1.5),
    ],
)
def test_wrong_arguments_are_named(message: str, scores: Tensor, share: float) -> None:
    with pytest.raises(ValueError, match=message):
        confident_labels(scores, share)


@pytest.mark.parametrize("id", [-1, 2, 254])
def test_regions_of_unknown_classes_are_named(id: int) -> None:
    with pytest.raises(ValueError, match=rf"^regions: expected class ids below 2 or 255, got \[{id}\]"):
        confident_labels(torch.rand(1, 2, 3, 4), 0.5, torch.tensor([0, 1, 255, id]).expand(1, 3, 4))


def squares() -> tuple[Tensor, Tensor, Tensor]:
    """Features that show two squares, (2, 4, 24, 32), their true masks, and activation that is vague about them."""
    truth = torch.zeros(2, 48, 64, dtype=torch.long)
    truth[:, 8:24, 8:24], truth[:, 24:44, 36:60] = 1, 3
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.one_hot(truth[:, ::2, ::2], 4).movedim(-1, 1) * 3.0
    features = features + torch.randn(features.shape, generator=generator)
    planes = torch.nn.functional.one_hot(truth, 4).movedim(-1, 1).float()
    activation = torch.nn.functional.avg_pool2d(planes, 15, 1, 7, count_include_pad=False)
    activation[:, 2] = -torch.inf
    return features, truth, activation


def blank(activation: Tensor) -> Tensor:
    """Images without any colour."""
    return torch.zeros(len(activation), 3, *activation.shape[2:])


@pytest.mark.parametrize("num_classes", [None, 4, 9])
def test_every_class_of_the_activation_has_a_plane(num_classes: int | None) -> None:
    """Also the last one, which wins nowhere and so trains nothing, whichever planes the expander has."""
    features, _, activation = squares()
    activation[:, 0] += 0.01
    activation[:, 3] = 0
    expander = SVMExpander(samples_per_class=50, num_classes=num_classes)
    found = SelfTraining(expander, share=0.5, rounds=2)(blank(activation), features, activation)
    assert found.probabilities.shape == activation.shape
    assert not found.probabilities[:, 2:].any() and set(found.masks.unique().tolist()) == {0, 1}


def test_the_first_round_is_the_expansion_of_confident_labels() -> None:
    features, _, activation = squares()
    expander = SVMExpander(samples_per_class=100, num_classes=4)
    found = SelfTraining(expander, share=0.4)(blank(activation), features, activation)
    expected = expander(features, confident_labels(activation, 0.4))
    assert torch.equal(found.masks, expected.masks)
    assert torch.equal(found.probabilities[:, 2], torch.zeros(2, 48, 64)), "an absent class"
    assert torch.allclose(found.probabilities.sum(1), torch.ones(2, 48, 64))


def test_a_prior_is_bayes_rule_by_hand() -> None:
    features, _, activation = squares()
    expander = SVMExpander(samples_per_class=100, num_classes=4)
    alone = SelfTraining(expander)(blank(activation), features, activation)
    both = SelfTraining(expander, prior=True)(blank(activation), features, activation)
    chances = activation.masked_fill(activation == -torch.inf, 0).clamp_min(0)
    product = alone.probabilities * chances
    some = product.sum(1, keepdim=True) > 0
    expected = product / product.sum(1, keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(both.probabilities.where(some, 0), expected.where(some, 0))
    assert not torch.equal(both.masks, alone.masks)
    assert torch.equal(both.probabilities[:, 2], torch.zeros(2, 48, 64)), "an absent class"


def test_pixels_train_with_the_label_that_their_colour_agrees_with() -> None:
    """The seed is a blurred square; the image shows the sharp one."""
    _, truth, activation = squares()
    images = 200.0 * truth[:, None].expand(-1, 3, -1, -1) / 3
    agreed = SelfTraining(SVMExpander(), DenseCRF(), share=1).training_labels(images, activation)
    assert float((activation.argmax(1) == truth).float().mean()) < 0.97
    assert float((agreed == truth).float().mean()) > 0.99
    some = SelfTraining(SVMExpander(), DenseCRF(), share=0.5).training_labels(images, activation)
    assert torch.equal(some[some != VOID], agreed[some != VOID])
    assert 0.49 < float((some != VOID).float().mean()) < 0.51


def test_a_class_that_colour_would_erase_keeps_its_seed() -> None:
    activation = torch.full((1, 2, 20, 20), 0.0)
    activation[0, 0] = 0.9
    activation[0, 1, 4, 5:7] = 1
    labels = SelfTraining(SVMExpander(), DenseCRF(), share=1).training_labels(blank(activation), activation)
    assert torch.equal(labels, activation.argmax(1))


def test_expansion_of_a_seed_comes_closer_to_the_truth() -> None:
    features, truth, activation = squares()
    masks = SelfTraining(SVMExpander(samples_per_class=200, num_classes=4), rounds=2)(
        blank(activation), features, activation
    ).masks
    assert not (masks == 2).any(), "an absent class"
    assert float((masks == truth).float().mean()) > float((activation.argmax(1) == truth).float().mean()) + 0.02


def test_rounds_stop_when_masks_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _, activation = squares()
    expander = SVMExpander(samples_per_class=50, num_classes=4)
    calls = []
    plain = expander.expand_batches
    monkeypatch.setattr(expander, "expand_batches", lambda batches: (calls.append(1), plain(batches))[1])
    easy = features + 100 * torch.nn.functional.one_hot(activation.argmax(1)[:, ::2, ::2], 4).movedim(-1, 1)
    SelfTraining(expander, share=0.9, rounds=10)(blank(activation), easy, activation)
    assert 1 < len(calls) < 10


def test_rounds_of_sizes_together_are_those_of_each_alone() -> None:
    features, _, activation = squares()
    easy = features + 100 * torch.nn.functional.one_hot(activation.argmax(1)[:, ::2, ::2], 4).movedim(-1, 1)
    batches = [
        KnownImages(blank(activation), features, activation),
        KnownImages(blank(activation[:1, :, :40]), easy[:1, :, :20], activation[:1, :, :40]),
    ]
    training = SelfTraining(SVMExpander(samples_per_class=50, num_classes=4), share=0.5, rounds=4, prior=True)
    for found, batch in zip(training.label_batches(batches), batches, strict=True):
        alone = training(batch.images, batch.features, batch.known)
        assert torch.equal(found.masks, alone.masks)
        torch.testing.assert_close(found.probabilities, alone.probabilities, atol=1e-3, rtol=0)


def test_rounds_of_a_batch_are_those_of_each_image_alone() -> None:
    """Though the second one's mask settles while the first one's still changes."""
    features, _, activation = squares()
    easy = features + 100 * torch.nn.functional.one_hot(activation.argmax(1)[:, ::2, ::2], 4).movedim(-1, 1)
    features = torch.stack([features[0], easy[1]])
    training = SelfTraining(SVMExpander(samples_per_class=50, num_classes=4), share=0.5, rounds=4)
    together = training(blank(activation), features, activation)
    for image in range(2):
        one = slice(image, image + 1)
        alone = training(blank(activation[one]), features[one], activation[one])
        assert torch.equal(together.masks[one], alone.masks)
        torch.testing.assert_close(together.probabilities[one], alone.probabilities, atol=1e-3, rtol=0)
        assert together.restored[one] == alone.restored


@pytest.mark.parametrize("agreement", [None, DenseCRF()])
def test_pixels_without_a_seed_do_not_train(agreement: DenseCRF | None) -> None:
    _, _, activation = squares()
    activation[:, [0, 1, 3], :30, :30] = 0.25
    labels = SelfTraining(SVMExpander(), agreement).training_labels(blank(activation), activation)
    assert (labels[:, :30, :30] == VOID).all()
    assert (labels[:, 30:] != VOID).any()


def test_a_restored_class_trains_in_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SVM finds no pixel of class 2, whose seed are two pixels amid those of class 0."""
    features, _, activation = squares()
    activation[:, 2] = 0
    activation[:, 2, 2, 2:4] = 2
    expander = SVMExpander(samples_per_class=50, num_classes=4)
    trained = []
    plain = expander.expand_batches
    monkeypatch.setattr(
        expander, "expand_batches", lambda batches: (trained.append(batches[0].labels), plain(batches))[1]
    )
    SelfTraining(expander, share=0.5, rounds=2)(blank(activation), features, activation)
    assert len(trained) == 2
    assert all((labels[image] == 2).any() for labels in trained for image in range(2))


def test_a_lost_class_gets_its_seed_back() -> None:
    """Its features are those of the background around it: an SVM cannot tell them."""
    activation = torch.zeros(1, 2, 20, 20)
    activation[0, 0] = 0.5
    activation[0, 1, 4, 5:7] = 1
    features = torch.zeros(1, 3, 20, 20)
    found = SelfTraining(SVMExpander(num_classes=2))(blank(activation), features, activation)
    assert torch.equal(found.masks, activation.argmax(1))
    assert found.restored == (1,)


@pytest.mark.parametrize(("message", "options"), [("^share: ", {"share": 0}), ("^rounds: ", {"rounds": 0})])
def test_wrong_options_are_named(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        SelfTraining(SVMExpander(), **options)


# The command line


@pytest.fixture
def cams(tiny_voc: Path, tmp_path: Path) -> Path:
    """Return a folder of maps for the train images of the small VOC: their masks at a quarter of the size."""
    dataset = voc2012(tiny_voc, "train")
    for place, id in enumerate(dataset.ids):
        mask = dataset.mask(place)
        classes = tuple(int(id) for id in mask.unique() if id not in (0, VOID))
        planes = torch.stack([mask == id for id in classes])[None].float()
        maps = torch.nn.functional.avg_pool2d(planes, 4)[0]
        save_cams(
            cam_path(tmp_path / "cams", id), ActivationMaps(classes, maps, tuple(mask.shape)), dataset.class_names
        )
    return tmp_path / "cams"


def command(root: Path, cams: Path, out: Path, *more: str) -> list[str]:
    arguments = ["--root", str(root), "--supervision", "seed", "--cams", str(cams), "--features", "img"]
    return [*arguments, "--samples-per-class", "100", "--out", str(out), *more]


def test_seeds_are_expanded_without_masks(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    """The masks are the same whether or not there is a ground truth."""
    assert expand.main(command(tiny_voc, cams, tmp_path / "with")) == 0
    masks = tiny_voc / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    masks.rename(masks.with_name("away"))
    images = masks.with_name("JPEGImages")
    (tmp_path / "ids.txt").write_text("\n".join(path.stem for path in cams.iterdir()))
    without = ["--images", str(images), "--list", str(tmp_path / "ids.txt")]
    assert expand.main([*without, *command(tiny_voc, cams, tmp_path / "without")[2:]]) == 0
    for path in (tmp_path / "with" / "img").iterdir():
        mask = read_mask(path)
        assert torch.equal(mask, read_mask(tmp_path / "without" / "img" / path.name))
        assert set(mask.unique().tolist()) == {0, 8, 15}
    assert (tmp_path / "without" / "overview.png").is_file()


def test_an_image_without_maps_is_skipped(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = next(cams.iterdir())
    lost.unlink()
    assert expand.main(command(tiny_voc, cams, tmp_path / "out")) == 1
    assert f"skipped {lost.stem}: {lost}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--background", "power"], "--background: expected auto, own, power:EXPONENT"),
        (["--share", "2"], "--share: expected"),
        (["--rounds", "0"], "--rounds: expected"),
        (["--ignore-below", "1.5"], "--ignore-below: expected 0 to 1, got 1.5"),
        (["--seeds", "elsewhere"], "--cams and --seeds: give one of them"),
        (
            ["--refine", "none", "crf+blur"],
            "--refine: expected none or crf, pamr, par, irn, walk, regions joined by +, got",
        ),
        (["--features", "none"], "--features none: needs --baselines"),
        (["--checkpoint", "a.pt", "--weights", "b.pt"], "--checkpoint and --weights: only together with --backbone"),
        (["--checkpoint", "a.pt", "--input-scale", "2"], "--checkpoint and --input-scale: only together with"),
        (["--input-scale", "0"], "scale: expected a positive number, got 0.0"),
        (["--patch-stride", "4"], "patch_stride: efficientnet_lite0 has no patches"),
        (["--second-weights", "b.pt"], "--second-weights: works only together with --second-backbone"),
        (["--refine", "walk", "--walk-power", "-1"], "--walk-power: expected a number > 0, got -1.0"),
        (["--refine", "walk", "--walk-stages", "F9"], "--walk-stages: expected some of F1 F2 F3 F4 F5, got F9"),
        (["--features", "F1+second.F1"], "--features: there are img F1 F2 F3 F4 F5, got F1+second.F1"),
        (["--cams", "nowhere"], "--cams: nowhere: not a folder"),
        (["--refine", "irn"], "--refine irn: needs --irn-weights FILE"),
        (["--checkpoint", "lost.pt"], "lost.pt: No such file"),
        (["--supervision", "ground-truth"], "--cams: only with --supervision seed"),
    ],
)
def test_wrong_flags_are_named(
    flags: list[str], named: str, tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expand.main(command(tiny_voc, cams, tmp_path / "out", *flags)) == 2
    assert named in capsys.readouterr().err


def test_a_background_that_the_maps_have_not_skips_the_image(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expand.main(command(tiny_voc, cams, tmp_path / "out", "--background", "own")) == 1
    assert "have no background of their own" in capsys.readouterr().out


def test_the_usual_background_is_the_maps_own_where_they_have_one() -> None:
    silent = ActivationMaps((3,), torch.tensor([[[0.5, 1.0]]]), (1, 2))
    expected = torch.tensor([[0.0625, 0.0]])
    torch.testing.assert_close(background_rule("auto")(silent), expected)
    own = replace(silent, background=torch.tensor([[0.7, 0.2]]))
    assert torch.equal(background_rule("auto")(own), torch.tensor([[0.7, 0.2]]))


def test_unsure_pixels_are_ignored(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    """The probabilities of a seed are its activation over its sum."""
    out, baseline = tmp_path / "out", ["--baselines", "seed"]
    assert expand.main(command(tiny_voc, cams, out / "all", *baseline)) == 0
    assert expand.main(command(tiny_voc, cams, out / "sure", *baseline, "--ignore-below", "0.8")) == 0
    dataset, maps = voc2012(tiny_voc, "train"), CamFiles(cams, background_rule("power:4"))
    for place, id in enumerate(dataset.ids):
        activation = maps.read(dataset, place).known.clamp_min(0)
        unsure = activation.amax(0) / activation.sum(0) < 0.8
        before, after = (read_mask(out / name / "seed" / f"{id}.png") for name in ("all", "sure"))
        assert 0 < int(unsure.sum()) < unsure.numel()
        assert torch.equal(after, torch.where(unsure, VOID, before))


def test_images_of_other_classes_in_a_batch_change_nothing(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    dataset = voc2012(tiny_voc, "train")
    for id, classes in zip(dataset.ids, [(8,), (15,)], strict=False):
        maps = torch.rand(1, 15, 20, generator=torch.Generator().manual_seed(0))
        save_cams(cam_path(cams, id), ActivationMaps(classes, maps, (60, 80)), dataset.class_names)
    flags = ["--root", str(tiny_voc), "--supervision", "seed", "--cams", str(cams), "--baselines", "seed", "ppmg"]
    flags += ["--refine", "none", "pamr", "--features", "F3"]
    for batch in ("1", "3"):
        assert expand.main([*flags, "--batch-size", batch, "--out", str(tmp_path / batch)]) == 0
    paths = sorted((tmp_path / "1").glob("*/*.png"))
    assert len(paths) == 3 * 2 * 3
    assert set(read_mask(tmp_path / "1/F3" / f"{dataset.ids[1]}.png").unique().tolist()) == {0, 15}
    for path in paths:
        equal = read_mask(path) == read_mask(tmp_path / "3" / path.relative_to(tmp_path / "1"))
        # Some versions of PyTorch round a batch's convolutions otherwise, and a fit is as exact as its tolerance.
        assert equal.float().mean() > 0.99


def test_objects_without_any_seed_are_counted(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind a background that none of them exceeds, in runs of a few images, too."""
    flags = ["--background", "constant:1", "--features", "none", "--baselines", "seed"]
    labels = [len(read_cams(cams, id, (60, 80), VOC_CLASSES).classes) for id in voc2012(tiny_voc, "train").ids]
    for limit in (1, 3):
        assert expand.main(command(tiny_voc, cams, tmp_path / "out", *flags, "--limit", str(limit))) == 0
        assert f"no pixel of their seed shows: {sum(labels[:limit])}\n" in capsys.readouterr().out
    assert expand.main(command(tiny_voc, cams, tmp_path / "usual", *flags[2:])) == 0
    assert "no pixel of their seed" not in capsys.readouterr().out


def test_baselines_need_no_features(
    tiny_voc: Path, cams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[PanelRow] = []
    monkeypatch.setattr(expansion_summary, "panel", lambda rows, *more: (drawn.extend(rows), panel(rows, *more))[1])
    assert expand.main(command(tiny_voc, cams, tmp_path / "out", "--features", "none", "--baselines", "seed")) == 0
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"seed"}
    assert drawn and all(row.samples is None for row in drawn), "nothing was sampled"


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_activation_that_is_no_number_is_refused(value: float) -> None:
    features, _, activation = squares()
    activation[1, 3, 5, 5] = value
    with pytest.raises(ValueError, match=r"^activation: expected numbers"):
        SelfTraining(SVMExpander(samples_per_class=20))(blank(activation), features, activation)
    maps = ActivationMaps((1, 3), activation[1, [1, 3]], (48, 64))
    with pytest.raises(ValueError, match=r"^maps: expected finite"):
        activation_of(maps, usual_background)


class Failing(GroundTruth):
    """Runs out of memory at one image."""

    def read(self, dataset: ImageDataset, place: int) -> Supervised:
        if place == 1:
            raise torch.OutOfMemoryError("no memory left")
        return super().read(dataset, place)


def test_an_image_whose_maps_need_too_much_memory_is_skipped(tiny_voc: Path, tmp_path: Path) -> None:
    dataset, labeller = voc2012(tiny_voc, "train"), SVMLabeller(SVMExpander(samples_per_class=20))
    run = ExpansionRun(small_backbone(), {"img": labeller}, Failing(), {}, {"none": []}, tmp_path, torch.device("cpu"))
    progress = Progress()
    run.run(dataset, range(3), progress)
    assert progress.skipped == {dataset.ids[1]: "no memory left"} and progress.images == 2


def test_a_batch_that_failed_is_let_go_before_its_images_are_tried(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or there would be no more memory for them than for the batch."""
    alive: list[bool] = []
    batches: list[weakref.ref[Tensor]] = []

    def fail(self: SVMLabeller, known: list[KnownImages]) -> None:
        alive.extend(batch() is not None for batch in batches)
        if sum(len(one.images) for one in known) > 1:
            batches.extend(weakref.ref(one.images) for one in known)
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(SVMLabeller, "label_batches", fail)
    labeller = SVMLabeller(SVMExpander())
    run = ExpansionRun(
        small_backbone(), {"img": labeller}, GroundTruth(), {}, {"none": []}, tmp_path, torch.device("cpu")
    )
    progress = Progress()
    run.run(voc2012(tiny_voc, "train"), range(3), progress, batch_size=3)
    assert len(progress.skipped) == 3
    assert len(alive) >= 3 and not any(alive)


def test_maps_made_anew_are_other_seeds(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for checkpoint, code in (("first", 0), ("first", 0), ("second", 2)):
        (cams / "run.json").write_text(json.dumps({"settings": {"checkpoint": checkpoint}}))
        assert expand.main(command(tiny_voc, cams, tmp_path / "out")) == code
    assert "cams was " in capsys.readouterr().err


def test_masks_of_other_seeds_are_not_mixed(
    tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expand.main(command(tiny_voc, cams, tmp_path / "out")) == 0
    assert expand.main(command(tiny_voc, cams, tmp_path / "out", "--share", "0.9")) == 2
    assert "share was 0.7, now 0.9" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["cam", "sipe"])
def test_a_classifier_gives_features_and_seeds(tiny_voc: Path, tmp_path: Path, method: str) -> None:
    """Its maps are those that `train.py cams` writes, rounded there to half precision."""
    data, checkpoint = ["--root", str(tiny_voc)], str(tmp_path / "run" / "checkpoint.pt")
    quick = ["--method", method, "--crop-size", "48", "--batch-size", "3", "--epochs", "1"]
    assert train.main(["classify", *data, *quick, "--out", str(tmp_path / "run")]) == 0
    assert train.main(["cams", *data, "--checkpoint", checkpoint, "--out", str(tmp_path / "cams")]) == 0
    flags = [*data, "--supervision", "seed", "--checkpoint", checkpoint, "--features", "F3", "--baselines", "seed"]
    flags += ["--background", "own" if method == "sipe" else "power:4"]
    assert expand.main([*flags, "--out", str(tmp_path / "own")]) == 0
    assert expand.main([*flags, "--cams", str(tmp_path / "cams"), "--out", str(tmp_path / "files")]) == 0
    for name in ("seed", "F3"):
        for path in (tmp_path / "own" / name).iterdir():
            same = read_mask(path) == read_mask(tmp_path / "files" / name / path.name)
            assert float(same.float().mean()) > 0.95


def test_masks_are_seeds_and_baselines_are_refined(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The seeds are the true masks, shifted: colour moves them back."""
    dataset = voc2012(tiny_voc, "train")
    for place, id in enumerate(dataset.ids):
        mask = dataset.mask(place)
        save_mask(tmp_path / "masks" / f"{id}.png", torch.where(mask == VOID, 0, mask).roll((4, 4), (0, 1)))
    flags = ["--root", str(tiny_voc), "--supervision", "seed", "--seeds", str(tmp_path / "masks"), "--features", "img"]
    flags += [
        "--kernel",
        "rbf",
        "--C",
        "1",
        "--baselines",
        "seed",
        "--refine",
        "none",
        "crf",
        "crf+pamr",
        "--out",
        str(tmp_path / "out"),
    ]
    assert expand.main(flags) == 0
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders == ["img", "img+crf", "img+crf+pamr", "seed", "seed+crf", "seed+crf+pamr"]
    for path in (tmp_path / "masks").iterdir():
        assert torch.equal(read_mask(path), read_mask(tmp_path / "out" / "seed" / path.name))
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    mean = {line[0]: float(line[4]) for line in cells if line and line[0] in folders}
    assert min(mean["seed+crf"], mean["img"]) > mean["seed"] + 10


def test_strange_seed_masks_are_skipped(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = voc2012(tiny_voc, "train").ids
    strange = {ids[0]: torch.full((60, 80), VOID), ids[1]: torch.full((60, 80), 99), ids[2]: torch.zeros(6, 8)}
    for id, mask in strange.items():
        save_mask(tmp_path / "masks" / f"{id}.png", mask.long())
    flags = ["--root", str(tiny_voc), "--supervision", "seed", "--seeds", str(tmp_path / "masks"), "--features", "img"]
    assert expand.main([*flags, "--out", str(tmp_path / "out")]) == 1
    out = capsys.readouterr().out
    assert "no pixel is labelled" in out and "unknown class ids [99]" in out
    assert "8x6 pixels, but the image has 80x60" in out
