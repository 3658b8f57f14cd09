"""The classifier: maps whose means are its logits, deep stages that train and shallow ones that do not."""

import numpy as np
import pytest
import torch
from conftest import small_backbone
from sklearn.metrics import average_precision_score, f1_score
from torch import nn

from torch_svm_seg.backbones.backbone import Backbone, Stage
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.sipe import SIPE
from torch_svm_seg.cam.training import score_logits


def images(number: int = 2, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(1)) * 255


def test_logits_are_means_of_the_class_maps_and_linear_in_the_mean_feature() -> None:
    network = Classifier(small_backbone(), 5)
    logits = network(images())
    assert logits.shape == (2, 5) and network.class_maps(images()).shape == (2, 5, 4, 6)
    feature = network.backbone.stages(images(), ["F5"])["F5"].mean((2, 3))
    torch.testing.assert_close(logits, feature @ network.head.weight.flatten(1).T)


def test_loss_is_the_mean_cross_entropy_of_all_decisions() -> None:
    network = Classifier(small_backbone(), 3)
    labels = torch.tensor([[True, False, False], [True, True, False]])
    losses = network.losses(images(), torch.ones(2, 64, 96, dtype=torch.bool), labels)
    assert tuple(losses) == network.loss_names == ("classification",)
    probability = network(images()).sigmoid().detach().numpy()
    by_hand = -np.where(labels.numpy(), np.log(probability), np.log(1 - probability)).mean()
    assert float(losses["classification"].detach()) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("method", [Classifier, SIPE])
def test_only_deep_stages_and_new_layers_train(method: type[Classifier]) -> None:
    network = method(small_backbone(), 3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.5)
    losses = network.losses(images(), torch.ones(2, 64, 96, dtype=torch.bool), torch.eye(3)[:2].bool())
    sum(losses.values()).backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    parameters = ("0.weight", "1.weight", "1.bias")
    deep = {f"backbone.network.{stage}.{name}" for stage in (3, 4) for name in parameters}
    sides = {f"sides.{number}.weight" for number in range(4)} if method is SIPE else set()
    assert changed == deep | sides | {"head.weight"}
    assert {id(p) for p in network.new_parameters + network.pretrained_parameters} == {
        id(p) for p in network.parameters() if p.requires_grad
    }


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_every_backbone_trains_from_stride_16_on_and_leaves_its_own_head_alone(name: str) -> None:
    network = Classifier(load_backbone(name, "random"), 3)
    trained = {n.split(".")[2] for n, p in network.named_parameters() if p.requires_grad and n.startswith("backbone")}
    if name.startswith("resnet"):
        assert trained == {"layer3", "layer4"}
    else:
        trained = {n.split(".")[3] for n, p in network.backbone.named_parameters(prefix="x") if p.requires_grad}
        assert trained == {str(block) for block in range(5, 16)}


def test_a_backbone_without_shallow_stages_trains_all_of_them() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 16, 1), nn.ReLU(), nn.Flatten())
    classifier = Classifier(Backbone(network, {"F4": Stage("1", 4, 16)}), 2)
    assert len(classifier.pretrained_parameters) == 2
    assert SIPE(Backbone(network, {"F4": Stage("1", 4, 16)}), 2).activation_maps(
        images()[0], torch.tensor([False, True])
    ).shape == (2, 4, 6)


def test_new_layers_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (SIPE(small_backbone(), 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not torch.equal(first.sides[0].weight, other.sides[0].weight)


def test_no_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes: expected an integer >= 1, got 0"):
        Classifier(small_backbone(), 0)


def test_scores_are_those_of_scikit_learn() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, generator=random)
    present = torch.rand(40, 4, generator=random) < logits.sigmoid()
    present[:, 2] = False  # a class that no image shows has no average precision
    score = score_logits(logits, present)
    kept = [0, 1, 3]
    expected = average_precision_score(present[:, kept].numpy(), logits[:, kept].numpy(), average="macro")
    assert score.average_precision == pytest.approx(expected, abs=1e-6)
    assert score.f1 == pytest.approx(f1_score(present.numpy(), (logits > 0).numpy(), average="micro"), abs=1e-6)
