"""The one-vs-rest support vector machine, batched over images and classes."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torch_svm_seg.svm.approximations import Approximation, Fourier, Nystroem, approximate
from torch_svm_seg.svm.arguments import (
    check_choice,
    check_count,
    check_positive,
    check_tensor,
    checked_products,
    checked_samples,
)
from torch_svm_seg.svm.certificates import as_decided
from torch_svm_seg.svm.decisions import DecisionFunction
from torch_svm_seg.svm.feature_maps import LinearMap
from torch_svm_seg.svm.implicit_diff import with_gradient
from torch_svm_seg.svm.models import FeatureModel, GaussianModel, Model, ProductModel
from torch_svm_seg.svm.one_vs_rest import OneVsRest
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.samples import InnerProducts
from torch_svm_seg.svm.stages import solve_in_stages
from torch_svm_seg.tensors import full_precision, take_rows

Kernel = Literal["linear", "rbf"]
Loss = Literal["hinge", "squared_hinge"]
Gradient = Literal["implicit", "unrolled"]

FACTS = ("classes_", "objective_", "duality_gap_", "n_iter_")
"""Buffers that a fit leaves, besides the decision function."""

# Linear problems of more channels are solved quicker in their samples' coefficients than in their channels' weights,
# unless there are so many samples that their kernel matrix would be large.
MANY_CHANNELS, MOST_SAMPLES = 512, 8192


class SVM(nn.Module):
    r"""One-vs-rest SVMs of a batch of images, fitted to a certified duality gap.

    For each image and each class k that it has, minimises over w and b

        1/2 |w|^2  +  C sum_i s_i loss(y_i (w . phi(x_i) + b)),

    y = +1 for the class and -1 for the rest, s_i the sample weights, loss(m) = max(0, 1 - m) or its square. The
    intercept is not penalised, as in LIBSVM. How it is solved, and from where: ``torch_svm_seg.svm.solver``.

    Args:
        kernel: ``"rbf"``, exp(-gamma |x - z|^2), or ``"linear"``.
        C: Weight of the loss, > 0, a number or a tensor of one.
        gamma: Coefficient of the RBF kernel, > 0, likewise, or ``"scale"``: 1 / (D * variance of all entries of the
            image's samples), the variance weighted by the sample weights.
        loss: ``"hinge"`` or ``"squared_hinge"``.
        approximation: Approximation of the RBF kernel, and of it alone, by explicit features, :class:`Nystroem` or
            :class:`Fourier`; None fits the exact kernel; ``"auto"`` is exact, but uses the kernel's low rank where
            there are at most 4 channels, as in RGB, and that misses at most 0.1 % of the kernel of every image.
        tol: Relative duality gap to reach. How it is reached depends on the device, and on the other images and the
            padding of a batch: scores are the same within it.
        max_iter: Steps of the solver at most; it warns, with the gap that remains, when they did not suffice.
        gradient: None fits without a graph. ``"implicit"`` gives the decision values a gradient with respect to
            the samples, their weights, and C and gamma where they are tensors, by the implicit function theorem at the
            solution (``torch_svm_seg.svm.implicit_diff``); ``"unrolled"`` by recording all steps of the solver, which
            needs memory for each of them. Both are as exact as the solution: give a small ``tol``. A hinge's free
            samples change abruptly; the squared hinge's gradients are continuous.

    A fitted SVM is saved by its ``state_dict``, tensors alone, and loaded into one of the same settings.

    Attributes (after ``fit``):
        classes_: Ascending class ids of the whole batch, (K,).
        decision: The fitted ``DecisionFunction``.
        objective_, duality_gap_: Primal objective and absolute duality gap, (B, K) or (K,); nan where an image does
            not have the class or has no other.
        n_iter_: Solver steps, (B, K) or (K,); 0 there.

    Examples:
        >>> x = torch.tensor([[-2.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
        >>> svm = SVM(kernel="linear").fit(x, torch.tensor([7, 7, 9, 9]))
        >>> svm.predict(torch.tensor([[-0.5, 3.0], [0.5, 3.0]])).tolist()
        [7, 9]
    """

    classes_: Tensor
    decision: DecisionFunction
    objective_: Tensor
    duality_gap_: Tensor
    n_iter_: Tensor

    def __init__(
        self,
        kernel: Kernel = "rbf",
        C: float | Tensor = 1.0,
        gamma: float | Tensor | Literal["scale"] = "scale",
        loss: Loss = "hinge",
        approximation: Approximation = "auto",
        tol: float = 1e-3,
        max_iter: int = 1000,
        gradient: Gradient | None = None,
    ) -> None:
        super().__init__()
        check_choice("kernel", kernel, ("linear", "rbf"))
        check_choice("loss", loss, ("hinge", "squared_hinge"))
        if not isinstance(approximation, Nystroem | Fourier):
            check_choice("approximation", approximation, ("auto", None, Nystroem(), Fourier()))
        elif kernel == "linear":
            raise ValueError(f"approximation: expected 'auto' or None with kernel='linear', got {approximation!r}")
        check_choice("gradient", gradient, ("implicit", "unrolled", None))
        check_positive("C", C)
        check_positive("gamma", gamma, "scale")
        check_positive("tol", tol)
        check_count("max_iter", max_iter)
        self.kernel, self.C, self.gamma, self.loss = kernel, C, gamma, loss
        self.approximation, self.tol, self.max_iter, self.gradient = approximation, tol, max_iter, gradient
        for name in FACTS:
            self.register_buffer(name, None)

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f"kernel={self.kernel!r}, C={self.C}, gamma={self.gamma!r}, loss={self.loss!r}"

    def unfitted(self) -> "SVM":
        """Return an SVM of the same settings that is not fitted."""
        return type(self)(
            self.kernel, self.C, self.gamma, self.loss, self.approximation, self.tol, self.max_iter, self.gradient
        )

    def fit(
        self,
        x: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        products: Callable[[], InnerProducts] | None = None,
    ) -> "SVM":
        """Fit one classifier for each image and class.

        Args:
            x: Samples, floating point, (B, N, D), or (N, D) for a single image.
            y: Class ids, integer, (B, N) or (N,); -1 is padding. Images need not have the same classes.
            sample_weight: Weights >= 0 of the samples' losses, (B, N) or (N,); 0 takes a sample out.
            products: Function that makes the inner products of the samples (B, N), where they cost less than by x,
                such as those of interpolated pixels. Called only where they are of use: for the exact RBF kernel and,
                with many channels, the linear one, in fits without a gradient.

        Raises:
            ValueError: Naming the argument, where shapes, ids or weights are not as above, where a sample is not
                finite, or where an image has no sample at all.
        """
        x, y, weight = checked_samples(x, y, sample_weight)
        single = x.dim() == 2
        if single:
            x, y, weight = x[None], y[None], weight[None]
        with torch.set_grad_enabled(self.gradient is not None and torch.is_grad_enabled()), full_precision(x.device):
            self._fit(x, y, weight, products, single)
        return self

    def decision_function(self, x: Tensor) -> Tensor:
        """Return decision values (B, M, K), or (M, K), of x (B, M, D), or (M, D).

        A class that an image does not have scores -inf.

        Raises:
            RuntimeError: The SVM is not fitted.
            ValueError: x is not a tensor of as many images and channels as in ``fit``.
        """
        if not hasattr(self, "decision"):
            raise RuntimeError("SVM: call fit first")
        check_tensor("x", x)
        single, channels = self.objective_.dim() == 1, self.decision.channels
        images = () if single else (len(self.decision.intercept),)
        if x.dim() < 2 or x.shape[:-2] != images or x.shape[-1] != channels:
            expected = ", ".join(map(str, (*images, "M", channels)))
            raise ValueError(f"x: expected ({expected}) as in fit, got {tuple(x.shape)}")
        x = x.to(self.decision.intercept.dtype)
        with full_precision(x.device):
            scores: Tensor = self.decision(x[None] if single else x)
        return scores[0] if single else scores

    def predict(self, x: Tensor) -> Tensor:
        """Return the class ids (B, M), or (M,), of the largest decision values; among equals, the lowest id."""
        return self.classes_[self.decision_function(x).argmax(-1)]

    def forward(self, x: Tensor) -> Tensor:
        """Return :meth:`decision_function` of x."""
        return self.decision_function(x)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *arguments: Any) -> None:
        """Make room for a fit of any size and kind before it is loaded."""
        start = f"{prefix}decision."
        fitted = {name.removeprefix(start): value for name, value in state_dict.items() if name.startswith(start)}
        # There is no room for a part of a fit: PyTorch reports its tensors as unexpected.
        if fitted and all(prefix + name in state_dict for name in FACTS):
            self.decision = DecisionFunction.of_state(fitted)
            for name in FACTS:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _fit(
        self, x: Tensor, y: Tensor, weight: Tensor, products: Callable[[], InnerProducts] | None, single: bool
    ) -> None:
        valid = (y >= 0) & (weight > 0)
        # Padding may hold anything, and must not reach a product: it becomes the image's first sample, of weight 0.
        first = take_rows(x, valid.long().argmax(1, keepdim=True))
        x, weight = torch.where(valid[..., None], x, first), torch.where(valid, weight, 0)
        self.classes_ = y[valid].unique()
        present = ((y[..., None] == self.classes_) & valid[..., None]).any(1)
        problems = OneVsRest.of(present)
        targets = problems.targets(y, self.classes_).to(x)
        problem = Problem(targets, _scalar(self.C, x) * weight[problems.image], self.loss == "squared_hinge")
        model = self._model(x, valid, weight, products)
        solution = self._solve(model, problems.image, problem)
        self.decision = model.decision(*problems.planes(solution.element.to(x.dtype), solution.intercept.to(x.dtype)))
        if x.dtype != torch.float64 and model.rounds_again:
            double = Problem(problem.targets.double(), problem.costs.double(), problem.squared)
            solution = as_decided(self.decision, x, solution, double, problems)
        self._report(solution, problems, single)

    def _model(self, x: Tensor, valid: Tensor, weight: Tensor, products: Callable[[], InnerProducts] | None) -> Model:
        """Return where the problems are solved: by explicit features, samples, or their inner products."""
        if self.kernel == "linear":
            many = x.shape[2] > MANY_CHANNELS and x.shape[1] <= MOST_SAMPLES
            if many and products and self.gradient is None:
                return ProductModel(checked_products(products(), x), x, None)
            return FeatureModel(LinearMap(), x)
        gamma = self._gamma(x, weight)
        feature_map = approximate(self.approximation, x, valid, gamma)
        if feature_map is not None:
            return FeatureModel(feature_map, x)
        if products and self.gradient is None:
            return ProductModel(checked_products(products(), x), x, gamma)
        return GaussianModel(x, gamma)

    def _solve(self, model: Model, image: Tensor, problem: Problem) -> Solution:
        """Return the solution of problems that are of the images ``image`` (P,), with the gradient asked for."""
        with torch.set_grad_enabled(self.gradient == "unrolled" and torch.is_grad_enabled()):
            solution = solve_in_stages(model.samples, image, problem, self.tol, self.max_iter, self.gradient is None)
        # Products have no gradient, and are not used where one is asked for.
        implicit = torch.is_grad_enabled() and self.gradient == "implicit"
        if implicit and isinstance(model, FeatureModel | GaussianModel):
            return with_gradient(solution, model.samples(image), problem)
        return solution

    def _gamma(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the coefficient of each image's kernel, (B, 1, 1)."""
        if not isinstance(self.gamma, str):
            return _scalar(self.gamma, x).expand(x.shape[0], 1, 1)
        share = weight / weight.sum(1, keepdim=True)
        mean = (share * x.mean(2)).sum(1)[:, None, None]
        distances = torch.linalg.vector_norm(x - mean, dim=2)
        variance = (share * distances.square()).sum(1)[:, None, None] / x.shape[-1]
        # Constant samples: any coefficient does.
        return 1 / torch.where(variance > 0, x.shape[-1] * variance, 1)

    def _report(self, solution: Solution, problems: OneVsRest, single: bool) -> None:
        """Keep how good the solutions are, and warn of those that ended before they were good enough."""
        facts = problems.facts(solution.objective.detach()), problems.facts(solution.gap.detach())
        iterations = problems.by_class(solution.iterations[:, None])[..., 0]
        self.objective_, self.duality_gap_, self.n_iter_ = (
            fact[0] if single else fact for fact in (*facts, iterations)
        )
        unfinished = solution.unfinished(self.tol)
        if bool(unfinished.any()):
            worst = float((solution.gap / solution.objective)[unfinished].max())
            if math.isnan(worst):
                raise torch.linalg.LinAlgError(  # type: ignore[attr-defined]
                    f"SVM: with C={self.C} and gamma={self.gamma}, the sums over the samples are too large"
                )
            exhausted = bool((solution.iterations[unfinished] >= self.max_iter).any())
            why = f"stopped at max_iter={self.max_iter}" if exhausted else "are held by the samples' type"
            warnings.warn(
                f"SVM: {int(unfinished.sum())} of {len(unfinished)} problems {why} with "
                f"a relative duality gap of up to {worst:.1e} (tol={self.tol:.1e})",
                stacklevel=4,
            )


def _scalar(value: float | Tensor, x: Tensor) -> Tensor:
    """Return a number, or a tensor of one, in the type and on the device of x."""
    return value.reshape(()).to(x) if isinstance(value, Tensor) else x.new_tensor(float(value))
