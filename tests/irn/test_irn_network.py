"""IRN's losses against a loop over pairs; its network learns boundaries and displacements."""

import math

import pytest
import torch
from conftest import small_backbone
from irn_references import direct_affinity, pairs_of, random
from torch import Tensor, nn

from torch_svm_seg.irn import IRNet
from torch_svm_seg.irn.losses import Pair, pair_kinds, pair_losses
from torch_svm_seg.irn.paths import Paths, path_maxima
from torch_svm_seg.irn.training import centre_displacements
from torch_svm_seg.training.trainable import Crops


def direct_losses(boundary: Tensor, displacement: Tensor, labels: Tensor, paths: Paths) -> tuple[float, float]:
    """The losses by a loop over pairs, in the words of the paper."""
    terms: dict[str, list[float]] = {name: [] for name in ("background", "object", "different", "towards", "still")}
    for image in range(len(labels)):
        for _, _, start, end in pairs_of(tuple(labels.shape[1:]), paths):
            first, second = int(labels[image][start]), int(labels[image][end])
            if 255 in (first, second):
                continue
            affinity = direct_affinity(boundary[image], start, end)
            found = displacement[image][:, start[0], start[1]] - displacement[image][:, end[0], end[1]]
            if first != second:
                terms["different"].append(-math.log(1 - affinity + 1e-5))
            else:
                terms["object" if first else "background"].append(-math.log(affinity + 1e-5))
                expected = torch.tensor(end) - torch.tensor(start) if first else torch.zeros(2)
                terms["towards" if first else "still"].append(float((found - expected).abs().mean()))
    mean = {name: sum(values) / len(values) if values else 0.0 for name, values in terms.items()}
    positive = (mean["background"] + mean["object"]) / 2
    return (positive + mean["different"]) / 2, (mean["towards"] + mean["still"]) / 2


@pytest.mark.parametrize("classes", [(0, 1, 2, 255), (0, 255), (3,)])
def test_losses_are_those_of_every_pair(classes: tuple[int, ...]) -> None:
    choice = torch.randint(len(classes), (2, 6, 7), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor(classes)[choice]
    boundary, displacement = random(2, 6, 7), random(2, 2, 6, 7, seed=1)
    losses = pair_losses(boundary, displacement, labels, Paths(4))
    assert [float(loss) for loss in losses] == pytest.approx(
        direct_losses(boundary, displacement, labels, Paths(4)), rel=1e-4
    )


def test_nothing_sure_costs_nothing() -> None:
    boundary = random(1, 4, 4).requires_grad_()
    losses = pair_losses(boundary, random(1, 2, 4, 4), torch.full((1, 4, 4), 255), Paths(3))
    assert losses.affinity == 0 and losses.displacement == 0
    losses.affinity.backward()
    assert (boundary.grad == 0).all()


def test_kinds_of_pairs() -> None:
    kinds = pair_kinds(torch.tensor([[[0, 0, 5, 5, 255, 7]]]), Paths(2))[0, 0, 0]  # with the right neighbour
    assert kinds.tolist() == [Pair.BACKGROUND, Pair.DIFFERENT, Pair.OBJECT, Pair.UNSURE, Pair.UNSURE, Pair.UNSURE]


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (5, 3)])
def test_network_covers_any_image(size: tuple[int, int]) -> None:
    network = IRNet(small_backbone()).eval()
    images = 255 * random(2, 3, *size).float()
    boundary, displacement = network(images)
    grid = (math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert boundary.shape == (2, *grid) and displacement.shape == (2, 2, *grid)
    assert ((boundary > 0) & (boundary < 1)).all()
    assert network.boundary(images).shape == (2, *grid)
    alone = network.boundary(images[:1])
    torch.testing.assert_close(network.boundary(images)[:1], alone)


def test_boundary_of_the_mirror_image_is_mirrored() -> None:
    network = IRNet(small_backbone()).eval()
    images = 255 * random(1, 3, 64, 96).float()
    torch.testing.assert_close(network.boundary(images.flip(-1)), network.boundary(images).flip(-1))


def test_only_the_branches_train() -> None:
    network = IRNet(small_backbone()).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = network.parameter_groups()
    optimizer = torch.optim.SGD([{"params": parameters, "lr": rate} for parameters, rate in groups])
    labels = torch.tensor([[0, 1], [1, 0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)[None]
    sum(network.losses(255 * random(1, 3, 64, 64).float(), labels).values()).backward()
    optimizer.step()
    still = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert still == {name for name in before if name.startswith("backbone.")} | {"displacement_mean"}
    assert not any(module.training for module in network.backbone.modules())
    assert [rate for _, rate in groups] == [1, 10]


def test_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (IRNet(small_backbone(), seed=seed).boundary_head.weight for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)


class Discs(Crops):
    """A grey disc at a random place of a dark square of 64 pixels, and its label."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        row, column, radius = self.disc(place)
        pixels = torch.arange(64) - 31.5
        inside = (pixels[:, None] - row) ** 2 + (pixels - column) ** 2 < radius**2
        image = (40 + 160 * inside.float()).expand(3, 64, 64)
        return image, inside[2::4, 2::4].long()

    def disc(self, place: int) -> tuple[float, float, float]:
        row, column, radius = torch.rand(3, generator=self.generator(place)).tolist()
        return 12 * row - 6, 12 * column - 6, 16 + 4 * radius


def test_displacements_of_a_disc_point_to_its_centre_and_boundaries_lie_around_it() -> None:
    network, discs = IRNet(small_backbone()).train(), Discs(seed=0)
    groups = [{"params": parameters, "lr": 0.1 * rate} for parameters, rate in network.parameter_groups()]
    optimizer = torch.optim.SGD(groups)
    for step in range(60):
        batch = [discs[place % 16] for place in range(4 * step, 4 * step + 4)]
        images, labels = (torch.stack(parts) for parts in zip(*batch, strict=True))
        optimizer.zero_grad()
        sum(network.losses(images, labels).values()).backward()
        optimizer.step()
    discs.epoch = 1  # other discs
    centre_displacements(network, discs)
    image, labels = discs[0]
    with torch.no_grad():
        boundary, displacement = (part[0] for part in network.eval()(image[None]))
    row, column, _ = discs.disc(0)
    cells = 4 * torch.arange(16) + 1.5 - 31.5
    way = torch.stack([(row - cells)[:, None].expand(16, 16), (column - cells).expand(16, 16)]) / 4
    far = (labels == 1) & (way.norm(dim=0) > 2)
    cosine = nn.functional.cosine_similarity(displacement[:, far], way[:, far], dim=0)
    assert cosine.mean() > 0.9
    kinds, strongest = pair_kinds(labels[None], network.paths), path_maxima(boundary[None], network.paths)
    assert strongest[kinds == Pair.DIFFERENT].mean() > 0.5
    assert max(strongest[kinds == kind].mean() for kind in (Pair.OBJECT, Pair.BACKGROUND)) < 0.5


def test_mean_displacement_is_zero_after_centring() -> None:
    network, discs = IRNet(small_backbone()), Discs(seed=0)
    centre_displacements(network, discs)
    with torch.no_grad():
        means = [network(discs[place][0][None])[1].mean((0, 2, 3)) for place in range(len(discs))]
    torch.testing.assert_close(torch.stack(means).mean(0), torch.zeros(2), atol=1e-5, rtol=0)
