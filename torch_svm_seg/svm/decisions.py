"""Decision functions: the scores of fitted classifiers.

A decision function first *centres* its input and *projects* it, which commutes with interpolation, a weighted mean, and
then *evaluates* the projections. So an image's features may be projected on their own coarse grid and the projections
interpolated: the dense features of a whole image never need to exist.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torch_svm_seg.svm.kernels import LOG2_E, multiply_by_kernel
from torch_svm_seg.tensors import first_true, take_rows

ALL = slice(None)


class DecisionFunction(nn.Module):
    """Classifiers of B images: K one-vs-rest decision values for every row of x (B, M, D).

    Shape:
        Input (B, M, D), output (B, M, K); a class that an image does not have scores -inf.
    """

    intercept: Tensor  # (B, 1, K)

    def __init__(self, **fitted: Tensor) -> None:
        super().__init__()
        for name, tensor in fitted.items():
            self.register_buffer(name, tensor)

    @staticmethod
    def of_state(state: Mapping[str, Tensor]) -> "DecisionFunction":
        """Return a decision function of the kind and with the shapes of a saved state, yet to be loaded.

        Raises:
            ValueError: The state is not of the tensors of any kind.
        """
        tensors: dict[type[DecisionFunction], set[str]] = {
            LinearDecision: {"weights", "intercept"},
            GaussianDecision: {"centres", "coefficients", "gamma", "intercept", "mean", "squared_norms"},
            FourierDecision: {"frequencies", "phases", "coefficients", "intercept"},
        }
        kind = next((kind for kind, names in tensors.items() if names == set(state)), None)
        if kind is None:
            raise ValueError(f"decision: expected the tensors of a decision function, got {sorted(state)}")
        decision: DecisionFunction = kind.__new__(kind)
        DecisionFunction.__init__(decision, **{name: torch.empty_like(tensor) for name, tensor in state.items()})
        return decision

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Save tensors that share no memory and lie in one piece, as safetensors asks for."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({f"{prefix}{name}": destination[f"{prefix}{name}"].contiguous() for name in self._buffers})

    def select(self, images: slice, classes: Tensor) -> "DecisionFunction":
        """Return the decision function of some of the images, for some of the classes, by their places (k,)."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """Number of channels D of the input."""
        raise NotImplementedError

    @property
    def num_projections(self) -> int:
        """Number of projections P."""
        raise NotImplementedError

    def centre(self, x: Tensor, channels: slice = ALL) -> Tensor:
        """Move x, or some of its channels, to where projections and norms lose the least to rounding."""
        return x

    def project(self, x: Tensor, channels: slice = ALL) -> Tensor:
        """Return the projections (B, M, P) of centred x; of some of its channels, what these contribute."""
        raise NotImplementedError

    def evaluate(self, projections: Tensor, squared_norms: Tensor) -> Tensor:
        """Return scores (B, M, K) from projections (B, M, P) and the centred rows' squared norms (B, M)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (B, M, K) of x (B, M, D)."""
        x = self.centre(x)
        return self.evaluate(self.project(x), x.square().sum(-1))


class LinearDecision(DecisionFunction):
    """x . w + b with weights w (B, D, K).

    Examples:
        >>> decision = LinearDecision(torch.tensor([[[2.0], [1.0]]]), torch.tensor([[[-3.0]]]))
        >>> decision(torch.tensor([[[1.0, 0.0], [1.0, 2.0]]])).tolist()
        [[[-1.0], [1.0]]]
    """

    weights: Tensor

    def __init__(self, weights: Tensor, intercept: Tensor) -> None:
        super().__init__(weights=weights, intercept=intercept)

    def select(self, images: slice, classes: Tensor) -> "LinearDecision":
        """Return that of some images and classes."""
        return LinearDecision(self.weights[images][..., classes], self.intercept[images][..., classes])

    @property
    def channels(self) -> int:
        """Number of channels D of the input."""
        return self.weights.shape[1]

    @property
    def num_projections(self) -> int:
        """Number of classes K."""
        return self.weights.shape[2]

    def project(self, x: Tensor, channels: slice = ALL) -> Tensor:
        """Return x . w (B, M, K)."""
        return x @ self.weights[:, channels]

    def evaluate(self, projections: Tensor, squared_norms: Tensor) -> Tensor:
        """Return x . w + b (B, M, K)."""
        return projections + self.intercept


class GaussianDecision(DecisionFunction):
    """sum_j coefficients_j exp(-gamma |x - centres_j|^2) + b: centres (B, P, D), coefficients (B, P, K).

    Examples:
        >>> centres, coefficients = torch.rand(1, 4, 3), torch.rand(1, 4, 2)
        >>> decision = GaussianDecision(centres, coefficients, torch.ones(1, 1, 1), torch.zeros(1, 1, 2))
        >>> decision(torch.rand(1, 5, 3)).shape
        torch.Size([1, 5, 2])
    """

    centres: Tensor
    coefficients: Tensor
    gamma: Tensor  # (B, 1, 1)
    mean: Tensor  # of the centres, (B, 1, D)
    squared_norms: Tensor  # of the centres about it, (B, 1, P)
    samples: Tensor | None = None  # that are the centres, by their indices (B, P); not part of the state

    def __init__(self, centres: Tensor, coefficients: Tensor, gamma: Tensor, intercept: Tensor) -> None:
        mean = centres.detach().mean(1, keepdim=True)
        squared_norms = (centres - mean).square().sum(-1)[:, None]
        super().__init__(
            centres=centres,
            coefficients=coefficients,
            gamma=gamma,
            intercept=intercept,
            mean=mean,
            squared_norms=squared_norms,
        )

    @classmethod
    def of_samples(cls, x: Tensor, coefficients: Tensor, gamma: Tensor, intercept: Tensor) -> "GaussianDecision":
        """Return the one whose centres are the samples x (B, N, D) with a coefficient (B, N, K) other than 0."""
        carrying, valid = first_true((coefficients != 0).any(2))
        decision = cls(take_rows(x, carrying), take_rows(coefficients, carrying) * valid[..., None], gamma, intercept)
        decision.samples = carrying
        return decision

    def select(self, images: slice, classes: Tensor) -> "GaussianDecision":
        """Return that of some images and classes, with the centres that carry weight there."""
        coefficients = self.coefficients[images][..., classes]
        intercept = self.intercept[images][..., classes]
        found = self.of_samples(self.centres[images], coefficients, self.gamma[images], intercept)
        if self.samples is not None and found.samples is not None:
            found.samples = self.samples[images].gather(1, found.samples)
        return found

    @property
    def channels(self) -> int:
        """Number of channels D of the input."""
        return self.centres.shape[2]

    @property
    def num_projections(self) -> int:
        """Number of centres P."""
        return self.centres.shape[1]

    def centre(self, x: Tensor, channels: slice = ALL) -> Tensor:
        """Move x to the mean of the centres."""
        return x - self.mean[..., channels]

    def project(self, x: Tensor, channels: slice = ALL) -> Tensor:
        """Return the inner products (B, M, P) with the centres, about their mean."""
        return x @ (self.centres[..., channels] - self.mean[..., channels]).mT

    def evaluate(self, projections: Tensor, squared_norms: Tensor) -> Tensor:
        """Return scores (B, M, K); the exponents come from inner products and squared norms."""
        rate = LOG2_E * self.gamma
        exponents = torch.addcmul(-rate * self.squared_norms, projections, 2 * rate) - rate * squared_norms[..., None]
        return exponents.exp2_() @ self.coefficients.mT.contiguous().mT + self.intercept

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (B, M, K) of x (B, M, D)."""
        return multiply_by_kernel(x, self.centres, self.gamma, self.coefficients) + self.intercept


class FourierDecision(DecisionFunction):
    """sum_j coefficients_j cos(x . frequencies_j + phases_j) + b: frequencies (B, D, P), phases (B, 1, P).

    Examples:
        >>> frequencies, phases, coefficients = torch.zeros(1, 3, 4), torch.zeros(1, 1, 4), torch.ones(1, 4, 2)
        >>> FourierDecision(frequencies, phases, coefficients, torch.ones(1, 1, 2))(torch.rand(1, 1, 3)).tolist()
        [[[5.0, 5.0]]]
    """

    frequencies: Tensor
    phases: Tensor
    coefficients: Tensor

    def __init__(self, frequencies: Tensor, phases: Tensor, coefficients: Tensor, intercept: Tensor) -> None:
        super().__init__(frequencies=frequencies, phases=phases, coefficients=coefficients, intercept=intercept)

    def select(self, images: slice, classes: Tensor) -> "FourierDecision":
        """Return that of some images and classes."""
        fitted = self.coefficients[images][..., classes], self.intercept[images][..., classes]
        return FourierDecision(self.frequencies[images], self.phases[images], *fitted)

    @property
    def channels(self) -> int:
        """Number of channels D of the input."""
        return self.frequencies.shape[1]

    @property
    def num_projections(self) -> int:
        """Number of frequencies P."""
        return self.frequencies.shape[2]

    def project(self, x: Tensor, channels: slice = ALL) -> Tensor:
        """Return x . frequencies (B, M, P)."""
        return x @ self.frequencies[:, channels]

    def evaluate(self, projections: Tensor, squared_norms: Tensor) -> Tensor:
        """Return scores (B, M, K)."""
        return (projections + self.phases).cos_() @ self.coefficients + self.intercept
