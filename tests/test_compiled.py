"""Public modules under ``torch.compile`` and ``torch.inference_mode``: the values of plain PyTorch."""

from collections.abc import Callable

import pytest
import torch
from conftest import small_backbone
from torch import Tensor, nn

from torch_svm_seg import PAMR, SVM, AffinityWalk, DenseCRF, Fourier, Nystroem, SVMExpander, class_activation_maps
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.sipe import SIPE
from torch_svm_seg.irn import IRNet
from torch_svm_seg.segmenters import build_segmenter

SIZE = (24, 32)
LABELS = torch.zeros(1, *SIZE, dtype=torch.long)
LABELS[:, 3:12, 3:16], LABELS[:, 14:22, 18:30] = 1, 2


def values(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


IMAGES, PROBABILITIES, FEATURES = 255 * values(1, 3, *SIZE), values(1, 3, *SIZE).softmax(1), values(1, 6, 12, 16)
POINTS, CLASSES = values(2, 40, 4), (values(2, 40) > 0.5).long()

Wrap = Callable[[nn.Module], Callable[..., object]]


def expanded(svm: SVM, wrap: Wrap) -> object:
    return wrap(SVMExpander(svm, samples_per_class=30))(FEATURES, LABELS)[:2]


CASES: dict[str, Callable[[Wrap], object]] = {
    "SVM": lambda wrap: wrap(SVM().fit(POINTS, CLASSES))(POINTS),
    "SVM, linear": lambda wrap: wrap(SVM(kernel="linear").fit(POINTS, CLASSES))(POINTS),
    "SVMExpander": lambda wrap: expanded(SVM(kernel="linear"), wrap),
    "DenseCRF": lambda wrap: wrap(DenseCRF.preset("psa"))(IMAGES, PROBABILITIES),
    "PAMR": lambda wrap: wrap(PAMR())(IMAGES, PROBABILITIES),
    "AffinityWalk": lambda wrap: wrap(AffinityWalk())(FEATURES, PROBABILITIES[..., ::2, ::2]),
    "Backbone": lambda wrap: wrap(small_backbone())(IMAGES),
    "Classifier": lambda wrap: wrap(Classifier(small_backbone(), 4).eval())(IMAGES),
    "SIPE": lambda wrap: wrap(SIPE(small_backbone(), 4).eval())(IMAGES),
    "IRNet": lambda wrap: wrap(IRNet(small_backbone(), 0).eval())(IMAGES),
}
# Traced part by part, which takes a while, or only as parts of others.
UNCOMPILED: dict[str, Callable[[Wrap], object]] = {
    "SVMExpander, Gaussian": lambda wrap: expanded(SVM(), wrap),
    "SVMExpander, squared": lambda wrap: expanded(SVM(kernel="linear", loss="squared_hinge"), wrap),
    "SVMExpander, Nystroem": lambda wrap: expanded(SVM(approximation=Nystroem(8)), wrap),
    "SVMExpander, Fourier": lambda wrap: expanded(SVM(approximation=Fourier(8)), wrap),
    "class_activation_maps": lambda wrap: (
        class_activation_maps(Classifier(small_backbone(), 4).eval(), IMAGES[0], [1, 3]).maps
    ),
    "segmenter": lambda wrap: wrap(build_segmenter("lite:resnet18", 3, "random").eval())(IMAGES),
}


def plain(module: nn.Module) -> nn.Module:
    return module


def in_order(found: object) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else [part for part in found if isinstance(part, Tensor)]  # type: ignore[attr-defined]


def assert_same(found: object, expected: object) -> None:
    assert in_order(expected)
    torch.testing.assert_close(in_order(found), in_order(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of graph breaks
@pytest.mark.parametrize("name", CASES)
def test_compiled_modules_give_the_same_values(name: str) -> None:
    torch._dynamo.reset()
    with torch.no_grad():
        expected = CASES[name](plain)
        found = CASES[name](lambda module: torch.compile(module, backend="eager"))
    assert_same(found, expected)


@pytest.mark.parametrize("name", [*CASES, *UNCOMPILED])
def test_inference_mode_gives_the_same_values(name: str) -> None:
    """Networks may be made there, too; which of their layers are trained is found by a gradient."""
    case = (CASES | UNCOMPILED)[name]
    torch.manual_seed(0)
    with torch.no_grad():
        expected = case(plain)
    torch.manual_seed(0)
    with torch.inference_mode():
        found = case(plain)
    assert_same(found, expected)
    assert all(part.is_inference() for part in in_order(found))
