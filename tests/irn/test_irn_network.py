"""IRN's losses against a loop over pairs; its network learns boundaries."""

import math

import pytest
import torch
from conftest import small_backbone
from irn_references import direct_affinity, pairs_of, random
from torch import Tensor, nn

from torch_svm_seg.irn import IRNet
from torch_svm_seg.irn.losses import Pair, affinity_loss, pair_kinds
from torch_svm_seg.irn.paths import Paths, path_maxima
from torch_svm_seg.training.trainable import Crops


def direct_loss(boundary: Tensor, labels: Tensor, paths: Paths) -> float:
    """The loss by a loop over pairs, in the words of the paper."""
    terms: dict[str, list[float]] = {name: [] for name in ("background", "object", "different")}
    for image in range(len(labels)):
        for _, _, start, end in pairs_of(tuple(labels.shape[1:]), paths):
            first, second = int(labels[image][start]), int(labels[image][end])
            if 255 in (first, second):
                continue
            affinity = direct_affinity(boundary[image], start, end)
            if first != second:
                terms["different"].append(-math.log(1 - affinity + 1e-5))
            else:
                terms["object" if first else "background"].append(-math.log(affinity + 1e-5))
    mean = {name: sum(values) / len(values) if values else 0.0 for name, values in terms.items()}
    positive = (mean["background"] + mean["object"]) / 2
    return (positive + mean["different"]) / 2


@pytest.mark.parametrize("classes", [(0, 1, 2, 255), (0, 255), (3,)])
def test_loss_is_that_of_every_pair(classes: tuple[int, ...]) -> None:
    choice = torch.randint(len(classes), (2, 6, 7), generator=torch.Generator().manual_seed(0))
    labels, boundary = torch.tensor(classes)[choice], random(2, 6, 7)
    loss = affinity_loss(boundary, labels, Paths(4))
    assert float(loss) == pytest.approx(direct_loss(boundary, labels, Paths(4)), rel=1e-4)


def test_nothing_sure_costs_nothing() -> None:
    boundary = random(1, 4, 4).requires_grad_()
    loss = affinity_loss(boundary, torch.full((1, 4, 4), 255), Paths(3))
    assert loss == 0
    loss.backward()
    assert (boundary.grad == 0).all()


def test_kinds_of_pairs() -> None:
    kinds = pair_kinds(torch.tensor([[[0, 0, 5, 5, 255, 7]]]), Paths(2))[0, 0, 0]  # with the right neighbour
    assert kinds.tolist() == [Pair.BACKGROUND, Pair.DIFFERENT, Pair.OBJECT, Pair.UNSURE, Pair.UNSURE, Pair.UNSURE]


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (5, 3)])
def test_network_covers_any_image(size: tuple[int, int]) -> None:
    network = IRNet(small_backbone()).eval()
    images = 255 * random(2, 3, *size).float()
    boundary = network(images)
    grid = (math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert boundary.shape == (2, *grid)
    assert ((boundary > 0) & (boundary < 1)).all()
    assert network.boundary(images).shape == (2, *grid)
    alone = network.boundary(images[:1])
    torch.testing.assert_close(network.boundary(images)[:1], alone)


def test_boundary_of_the_mirror_image_is_mirrored() -> None:
    network = IRNet(small_backbone()).eval()
    images = 255 * random(1, 3, 64, 96).float()
    torch.testing.assert_close(network.boundary(images.flip(-1)), network.boundary(images).flip(-1))


def test_only_the_branch_trains() -> None:
    network = IRNet(small_backbone()).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = network.parameter_groups()
    optimizer = torch.optim.SGD([{"params": parameters, "lr": rate} for parameters, rate in groups])
    labels = torch.tensor([[0, 1], [1, 0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)[None]
    sum(network.losses(255 * random(1, 3, 64, 64).float(), labels).values()).backward()
    optimizer.step()
    still = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert still == {name for name in before if name.startswith("backbone.")}
    assert not any(module.training for module in network.backbone.modules())
    assert [rate for _, rate in groups] == [1]


def test_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (IRNet(small_backbone(), seed=seed).boundary_head.weight for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)


class Discs(Crops):
    """A grey disc at a random position in a dark square of 64 pixels, and its label."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row, column, radius = self.disc(index)
        pixels = torch.arange(64) - 31.5
        inside = (pixels[:, None] - row) ** 2 + (pixels - column) ** 2 < radius**2
        image = (40 + 160 * inside.float()).expand(3, 64, 64)
        return image, inside[2::4, 2::4].long()

    def disc(self, index: int) -> tuple[float, float, float]:
        row, column, radius = torch.rand(3, generator=self.generator(index)).tolist()
        return 12 * row - 6, 12 * column - 6, 16 + 4 * radius


def test_boundaries_lie_around_a_disc() -> None:
    network, discs = IRNet(small_backbone()).train(), Discs(seed=0)
    groups = [{"params": parameters, "lr": 0.1 * rate} for parameters, rate in network.parameter_groups()]
    optimizer = torch.optim.SGD(groups)
    for step in range(60):
        batch = [discs[index % 16] for index in range(4 * step, 4 * step + 4)]
        images, labels = (torch.stack(parts) for parts in zip(*batch, strict=True))
        optimizer.zero_grad()
        sum(network.losses(images, labels).values()).backward()
        optimizer.step()
    discs.epoch = 1  # other discs
    image, labels = discs[0]
    with torch.no_grad():
        boundary = network.eval()(image[None])
    kinds, strongest = pair_kinds(labels[None], network.paths), path_maxima(boundary, network.paths)
    assert strongest[kinds == Pair.DIFFERENT].mean() > 0.5
    assert max(strongest[kinds == kind].mean() for kind in (Pair.OBJECT, Pair.BACKGROUND)) < 0.5


def former_state(network: IRNet) -> dict[str, Tensor]:
    """The state of a network of version 0.1, which had a second branch that found the centres of objects."""
    state = dict(network.state_dict())
    channels, strides = network.backbone.channels, network.backbone.strides
    widths = {name: {2: 64, 4: 128}.get(strides[name], 256) for name in network.boundary_layers}
    shallow, deep = (sum(w for n, w in widths.items() if (strides[n] < 8) == small) for small in (True, False))
    layers = {f"displacement_layers.{name}": (channels[name], width) for name, width in widths.items()}
    layers |= {"deep_layer": (deep, 256), "merged_layer": (shallow + 256, 256)}
    for name, (inputs, outputs) in layers.items():
        state[f"{name}.0.weight"] = random(outputs, inputs, 1, 1).float()
        state[f"{name}.1.weight"], state[f"{name}.1.bias"] = torch.ones(outputs), torch.zeros(outputs)
    state["displacement_head.weight"] = random(2, 256, 1, 1).float()
    return state | {"displacement_mean": torch.tensor([0.3, -0.1])}


def test_checkpoints_of_version_0_1_load() -> None:
    written, network = IRNet(small_backbone(), seed=1), IRNet(small_backbone(), seed=2)
    state = former_state(written)
    assert len(state) > len(written.state_dict())
    network.load_state_dict(state)
    images = 255 * random(1, 3, 40, 56).float()
    assert torch.equal(network.eval().boundary(images), written.eval().boundary(images))
    nn.Sequential(network).load_state_dict({f"0.{name}": value for name, value in state.items()})  # as a part too
    with pytest.raises(RuntimeError, match="strange"):
        network.load_state_dict(state | {"strange": torch.zeros(1)})
