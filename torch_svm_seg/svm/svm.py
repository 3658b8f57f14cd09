"""The one-vs-rest support vector machine, batched over images and classes."""

import math
import warnings
from collections.abc import Callable
from numbers import Real
from typing import Literal

import torch
from torch import Tensor, nn

from torch_svm_seg.expansion.pixel_samples import PixelProducts, PixelSamples
from torch_svm_seg.svm.implicit_diff import with_gradient
from torch_svm_seg.svm.kernels import DecisionFunction, FeatureMap, FourierMap, GaussianDecision, LinearMap, NystroemMap
from torch_svm_seg.svm.samples import DifferentiableSamples, FeatureSamples, GaussianSamples
from torch_svm_seg.svm.solver import Problem, Solution, solve_in_parts
from torch_svm_seg.tensors import first_true, full_precision, take_rows

Kernel = Literal["linear", "rbf"]
Loss = Literal["hinge", "squared_hinge"]
Approximation = Literal["auto", "nystroem", "fourier"]
Gradient = Literal["implicit", "unrolled"]

# A Gaussian kernel on so few channels has a low numerical rank: features of this many landmarks miss less of it, on
# average over the samples, than the residual, and are as good as exact.
LOW_RANK_CHANNELS, LOW_RANK, LOW_RANK_RESIDUAL = 4, 256, 1e-3

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
        gamma: Kernel width, > 0, likewise, or ``"scale"``: 1 / (D * variance of all entries of the image's samples),
            the variance weighted by the sample weights.
        loss: ``"hinge"`` or ``"squared_hinge"``.
        approximation: Of the RBF kernel: ``None`` solves with the exact kernel; ``"nystroem"`` and ``"fourier"`` with
            ``components`` explicit features; ``"auto"`` is exact, but uses the kernel's low rank where there are at
            most 4 channels, as in RGB.
        components: Number of explicit features.
        tol: Relative duality gap to reach.
        max_iter: Steps of the solver at most; it warns, with the gap that remains, when they did not suffice.
        seed: Of the landmarks' or frequencies' choice.
        gradient: ``None`` fits without a graph. ``"implicit"`` gives the decision values a gradient with respect to
            the samples, their weights, and C and gamma where they are tensors, by the implicit function theorem at the
            solution (``torch_svm_seg.svm.implicit_diff``); ``"unrolled"`` by recording all steps of the solver, which
            needs memory for each of them. Both are as exact as the solution: give a small ``tol``. A hinge's free
            samples change abruptly; the squared hinge's gradients are continuous.

    Attributes (after ``fit``):
        classes_: Ascending class ids of the whole batch, (K,).
        decision: The fitted ``DecisionFunction``.
        objective_, duality_gap_: Primal objective and absolute duality gap, (B, K) or (K,); nan where an image does
            not have the class or has no other.
        n_iter_: Solver steps, (B, K) or (K,); 0 there.

    Example:
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
        approximation: Approximation | None = "auto",
        components: int = 1024,
        tol: float = 1e-3,
        max_iter: int = 1000,
        seed: int = 0,
        gradient: Gradient | None = None,
    ) -> None:
        super().__init__()
        _check_choice("kernel", kernel, ("linear", "rbf"))
        _check_choice("loss", loss, ("hinge", "squared_hinge"))
        _check_choice("approximation", approximation, ("auto", "nystroem", "fourier", None))
        _check_choice("gradient", gradient, ("implicit", "unrolled", None))
        _check_positive("C", C)
        if not isinstance(gamma, str) or gamma != "scale":
            _check_positive("gamma", gamma)
        _check_positive("components", components)
        if components != int(components):
            raise ValueError(f"components: expected a whole number, got {components}")
        _check_positive("tol", tol)
        _check_positive("max_iter", max_iter)
        self.kernel, self.C, self.gamma, self.loss = kernel, C, gamma, loss
        self.approximation, self.components = approximation, components
        self.tol, self.max_iter, self.seed, self.gradient = tol, max_iter, seed, gradient
        self.register_buffer("classes_", None, persistent=False)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel!r}, C={self.C}, gamma={self.gamma!r}, loss={self.loss!r}"

    def fit(
        self,
        x: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        products: Callable[[], PixelProducts] | None = None,
    ) -> "SVM":
        """Fit one classifier for each image and class.

        Args:
            x: Samples, floating point, (B, N, D), or (N, D) for a single image.
            y: Class ids, integer, (B, N) or (N,); -1 is padding. Images need not have the same classes.
            sample_weight: Weights >= 0 of the samples' losses, (B, N) or (N,); 0 takes a sample out.
            products: Makes the inner products of the samples (B, N), if they are pixels that have them at less cost
                than x does. The exact RBF kernel and, with many channels, the linear one use them in fits without a
                gradient.

        Raises:
            ValueError: Naming the argument, where shapes, ids or weights are not as above, where a sample is not
                finite, or where an image has no sample at all.
        """
        x, y, weight = _checked_samples(x, y, sample_weight)
        self._single = x.dim() == 2
        if self._single:
            x, y, weight = x[None], y[None], weight[None]
        self._images, self._channels = x.shape[0], x.shape[2]
        with torch.set_grad_enabled(self.gradient is not None and torch.is_grad_enabled()), full_precision(x.device):
            self._fit(x, y, weight, products)
        return self

    def decision_function(self, x: Tensor) -> Tensor:
        """Decision values (B, M, K), or (M, K), of x (B, M, D), or (M, D); -inf for a class an image does not have."""
        if not hasattr(self, "decision"):
            raise RuntimeError("decision_function: call fit first")
        images = () if self._single else (self._images,)
        if x.dim() < 2 or x.shape[:-2] != images or x.shape[-1] != self._channels:
            expected = ", ".join(map(str, (*images, "M", self._channels)))
            raise ValueError(f"x: expected ({expected}) as in fit, got {tuple(x.shape)}")
        x = x.to(self.decision.intercept.dtype)
        with full_precision(x.device):
            scores: Tensor = self.decision(x[None] if self._single else x)
        return scores[0] if self._single else scores

    def predict(self, x: Tensor) -> Tensor:
        """Class ids (B, M), or (M,), of the largest decision values; among equals, the lowest id."""
        return self.classes_[self.decision_function(x).argmax(-1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.decision_function(x)

    def _fit(self, x: Tensor, y: Tensor, weight: Tensor, products: Callable[[], PixelProducts] | None) -> None:
        valid = (y >= 0) & (weight > 0)
        # Padding may hold anything, and must not reach a product: it becomes the image's first sample, of weight 0.
        first = take_rows(x, valid.long().argmax(1, keepdim=True))
        x, weight = torch.where(valid[..., None], x, first), torch.where(valid, weight, 0)
        self.classes_ = y[valid].unique()
        present = ((y[..., None] == self.classes_) & valid[..., None]).any(1)
        image, index = _problems(present)
        targets = torch.where(y[image] == self.classes_[index][:, None], 1.0, -1.0).to(x)
        problem = Problem(targets, _scalar(self.C, x) * weight[image], self.loss == "squared_hinge")
        gamma = self._gamma(x, weight)
        feature_map = self._feature_map(x, valid, gamma)
        width = gamma if feature_map is None else None
        samples_of = _samples(x if feature_map is None else feature_map.features(x), width, image)
        known = _checked_products(products(), x) if products and self._uses_products(x, feature_map) else None
        with torch.set_grad_enabled(self.gradient == "unrolled" and torch.is_grad_enabled()):
            chosen = _pixel_samples(known, width, image) if known else samples_of
            solution = solve_in_parts(chosen, problem, self.tol, self.max_iter)
        if torch.is_grad_enabled() and self.gradient == "implicit":
            solution = with_gradient(solution, samples_of(torch.arange(len(image), device=x.device)), problem)
        planes = torch.cat([solution.element, solution.intercept], 1).to(x.dtype)
        element, intercept = _by_class(planes, image, index, present, sign=-1).mT.tensor_split((-1,), dim=1)
        if feature_map is not None and known:
            # From coefficients of the samples about the cells' mean to weights of the channels.
            element = (x - known.mean[:, None]).mT @ element
            intercept = intercept - known.mean[:, None] @ element
        intercept = _with_absent_classes(intercept, present)
        if feature_map is None:
            self.decision = _gaussian_decision(x, gamma, element, intercept)
        else:
            self.decision = feature_map.decision(element, intercept)
        self._report(solution, image, index, present)

    def _report(self, solution: Solution, image: Tensor, index: Tensor, present: Tensor) -> None:
        """Keep how good the solutions are, and warn of those that ended before they were good enough."""
        facts = torch.stack([solution.objective, solution.gap], 1).detach()
        solved = present & (present.sum(1, keepdim=True) > 1)
        facts = torch.where(solved[..., None], _by_class(facts, image, index, present, sign=1), torch.nan)
        self.objective_, self.duality_gap_ = (fact[0] if self._single else fact for fact in facts.unbind(-1))
        iterations = _by_class(solution.iterations[:, None], image, index, present, sign=1)[..., 0]
        self.n_iter_ = iterations[0] if self._single else iterations
        unfinished = solution.unfinished(self.tol)
        if bool(unfinished.any()):
            worst = float((solution.gap / solution.objective)[unfinished].max())
            if math.isnan(worst):
                raise torch.linalg.LinAlgError(  # type: ignore[attr-defined]
                    f"SVM: with C={self.C} and gamma={self.gamma}, the sums over the samples are too large"
                )
            warnings.warn(
                f"SVM: {int(unfinished.sum())} of {len(unfinished)} problems stopped at max_iter={self.max_iter} with "
                f"a relative duality gap of up to {worst:.1e} (tol={self.tol:.1e})",
                stacklevel=4,
            )

    def _uses_products(self, x: Tensor, feature_map: FeatureMap | None) -> bool:
        """Whether a fit takes inner products of the samples in place of their features: without a gradient alone."""
        if self.gradient is not None:
            return False
        if self.kernel == "linear":
            return x.shape[2] > MANY_CHANNELS and x.shape[1] <= MOST_SAMPLES
        return feature_map is None

    def _gamma(self, x: Tensor, weight: Tensor) -> Tensor:
        """Kernel width of each image, (B, 1, 1)."""
        if not isinstance(self.gamma, str):
            return _scalar(self.gamma, x).expand(x.shape[0], 1, 1)
        share = weight / weight.sum(1, keepdim=True)
        mean = (share * x.mean(2)).sum(1)[:, None, None]
        distances = torch.linalg.vector_norm(x - mean, dim=2)
        variance = (share * distances.square()).sum(1)[:, None, None] / x.shape[-1]
        # Constant samples: any width does.
        return 1 / torch.where(variance > 0, x.shape[-1] * variance, 1)

    def _feature_map(self, x: Tensor, valid: Tensor, gamma: Tensor) -> FeatureMap | None:
        """The explicit map to solve with; None for the exact RBF kernel."""
        if self.kernel == "linear":
            return LinearMap()
        if self.approximation == "nystroem":
            return NystroemMap(x, valid, gamma, self.components, self.seed)
        if self.approximation == "fourier":
            return FourierMap(x, gamma, self.components, self.seed)
        if self.approximation == "auto" and x.shape[-1] <= LOW_RANK_CHANNELS and x.shape[1] > LOW_RANK:
            low_rank = NystroemMap(x, valid, gamma, LOW_RANK, self.seed)
            residual = (low_rank.residual(x) * valid).sum(1) / valid.sum(1)
            return low_rank if bool((residual <= LOW_RANK_RESIDUAL).all()) else None
        return None


def _samples(x: Tensor, gamma: Tensor | None, image: Tensor) -> Callable[[Tensor], DifferentiableSamples]:
    """Gives the samples of a few problems, which are of the images ``image`` (P,), from those of all images."""

    def of_problems(values: Tensor, part: Tensor) -> Tensor:
        # All problems of a single image share its samples, uncopied.
        return values.expand(len(part), -1, -1) if len(values) == 1 else values[image[part]]

    if gamma is None:
        return lambda part: FeatureSamples(of_problems(x, part))
    return lambda part: GaussianSamples(of_problems(x, part), of_problems(gamma, part))


def _pixel_samples(products: PixelProducts, gamma: Tensor | None, image: Tensor) -> Callable[[Tensor], PixelSamples]:
    """The same by products of pixels."""
    return lambda part: PixelSamples(products, image[part], None if gamma is None else gamma[image[part]])


def _gaussian_decision(x: Tensor, gamma: Tensor, coefficients: Tensor, intercept: Tensor) -> GaussianDecision:
    """The decision function whose centres are those of the samples (B, N, D) that carry anything for any class."""
    carrying, real = first_true((coefficients != 0).any(2))
    return GaussianDecision(
        take_rows(x, carrying), take_rows(coefficients, carrying) * real[..., None], gamma, intercept
    )


def _problems(present: Tensor) -> tuple[Tensor, Tensor]:
    """Image and class index, (P,) each, of the binary problems to solve, from which classes (B, K) are present.

    An image's only class needs none, and two classes need one: the other's solution is its negative.
    """
    number = present.sum(1, keepdim=True)
    first_of_two = (number == 2) & (present.cumsum(1) == 1)
    image, index = (present & ((number > 2) | first_of_two)).nonzero(as_tuple=True)
    return image, index


def _with_absent_classes(intercept: Tensor, present: Tensor) -> Tensor:
    """Intercepts (B, 1, K): -inf for a class that an image does not have, and 1 for its only class."""
    intercept = intercept + torch.where(present, 0.0, -torch.inf)[:, None]
    return torch.where(present.sum(1)[:, None, None] > 1, intercept, intercept + 1)


def _by_class(values: Tensor, image: Tensor, index: Tensor, present: Tensor, sign: int) -> Tensor:
    """Values (P, E) of the problems as (B, K, E): 0 where there is none, ``sign`` times the first's for a second."""
    result = values.new_zeros(*present.shape, values.shape[1])
    result[image, index] = values
    second_of_two = (present.sum(1, keepdim=True) == 2) & (present.cumsum(1) == 2) & present
    return torch.where(second_of_two[..., None], sign * result.sum(1, keepdim=True), result)


def _checked_samples(x: Tensor, y: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments of ``fit``, found to be as documented; weights of 1 where none are given."""
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(value).__name__}")
    if x.dim() not in (2, 3) or not x.dtype.is_floating_point:
        raise ValueError(f"x: expected floating point (B, N, D) or (N, D), got {x.dtype} {tuple(x.shape)}")
    if y.shape != x.shape[:-1] or y.dtype.is_floating_point or y.dtype.is_complex:
        raise ValueError(f"y: expected integer {tuple(x.shape[:-1])} to match x, got {y.dtype} {tuple(y.shape)}")
    y = y.long()  # small types could not be compared with -1
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()  # half precision cannot hold a duality gap
    weight = torch.ones_like(y, dtype=x.dtype) if sample_weight is None else sample_weight.to(x)
    if weight.shape != y.shape:
        raise ValueError(f"sample_weight: expected {tuple(y.shape)} to match y, got {tuple(weight.shape)}")
    used = (y >= 0) & (weight != 0)
    if not bool((weight[used].isfinite() & (weight[used] > 0)).all()):
        raise ValueError("sample_weight: expected finite weights >= 0, got a negative or non-finite one")
    if bool((y < -1).any()):
        raise ValueError(f"y: expected class ids >= 0, or -1 for padding, got {int(y.min())}")
    spoilt = _images_with(~x.isfinite().all(-1) & used)
    if spoilt:
        raise ValueError(f"x: expected finite samples, got nan or inf in image(s) {spoilt}")
    huge = _images_with(~(torch.linalg.vector_norm(x, dim=-1).square() * x.shape[-2]).isfinite() & used)
    if huge:
        raise ValueError(f"x: expected samples whose squares {x.dtype} can hold, got larger ones in image(s) {huge}")
    empty = _images_with(~used.any(-1, keepdim=True))
    if empty:
        raise ValueError(f"y: expected samples in every image, got none in image(s) {empty}")
    return x, y, weight


def _checked_products(products: PixelProducts, x: Tensor) -> PixelProducts:
    found, expected = products.norms, x[..., 0]
    if found.shape != expected.shape or found.dtype != x.dtype:
        raise ValueError(
            f"products: expected {x.dtype} of {tuple(expected.shape)} samples as x, got {found.dtype} of "
            f"{tuple(found.shape)}"
        )
    return products


def _images_with(found: Tensor) -> list[int]:
    """The images in which a mask (B, N), or (N,) for a single image, is true anywhere."""
    return [image for image, any_found in enumerate(torch.atleast_2d(found).any(1).tolist()) if any_found]


def _scalar(value: float | Tensor, x: Tensor) -> Tensor:
    """A number, or a tensor of one, in the type and on the device of x."""
    return value.reshape(()).to(x) if isinstance(value, Tensor) else x.new_tensor(float(value))


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {choices}, got {value!r}")


def _check_positive(name: str, value: float | Tensor | str) -> None:
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not (isinstance(number, Real) and 0 < number < math.inf):
        raise ValueError(f"{name}: expected a finite number > 0, got {value!r}")
