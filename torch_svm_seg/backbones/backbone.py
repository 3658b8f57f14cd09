"""A network read at its stages: the features between the image and the class scores."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from torch_svm_seg.tensors import differentiable, resize

IMAGE = "img"
"""Name of the stage that is the image itself."""

# In units of 0..255.
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Stage:
    """The place in a network where a stage comes out.

    Attributes:
        module: Name of the module whose output it is, as in ``network.named_modules()``.
        channels: Number of feature channels.
        stride: Side of the square that a feature stands for, in pixels of the network's input.
    """

    module: str
    channels: int
    stride: int


class StageReader:
    """Context manager that keeps the outputs of some modules while their network runs in it.

    Its hooks are gone when the context is left, whatever happens in it.

    Args:
        network: The network that will run.
        modules: Names of its modules, by the names under which their outputs are wanted.
        stop: Whether to end the network's run, and with it the context, as soon as all outputs are there. Then
            nothing deeper is computed, and statements after the run are skipped.

    Raises:
        AttributeError: On entering, if the network has no module of a name; no hook is left then either.

    Examples:
        >>> network = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(3, 2))
        >>> with StageReader(network, {"positive": "0"}) as outputs:
        ...     network(torch.tensor([[-1.0, 0.0, 2.0]]))
        >>> outputs
        {'positive': tensor([[0., 0., 2.]])}
    """

    def __init__(self, network: nn.Module, modules: Mapping[str, str], stop: bool = True) -> None:
        self._network = network
        self._modules = dict(modules)
        self._stop = stop
        self._handles: list[RemovableHandle] = []
        self._outputs: dict[str, Any] = {}

    def __enter__(self) -> dict[str, Any]:
        modules = {name: self._network.get_submodule(path) for name, path in self._modules.items()}
        self._outputs = {}
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in modules.items()]
        return self._outputs

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        for handle in self._handles:
            handle.remove()
        return isinstance(error, _AllRead) and error.reader is self

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._outputs[name] = output
            if self._stop and len(self._outputs) == len(self._modules):
                raise _AllRead(self)

        return keep


class _AllRead(Exception):
    """The end of a network's run whose reader has all it wants."""

    def __init__(self, reader: StageReader) -> None:
        super().__init__("all stages are read")
        self.reader = reader


class Backbone(nn.Module):
    """A network, how it wants its images, and where its stages come out.

    BatchNorm stays on its running statistics in training too, as SIPE and the segmentation networks of the field have
    it: their batches are too small for statistics of their own.

    Args:
        network: A network that takes (B, 3, H, W).
        stages: The stages by name, from shallow to deep; the names are free but for ``img``.
        mean: Subtracted from the RGB values 0..255.
        std: What they are divided by then.
        scale: Factor on the image's size at the network's input, > 0. A larger one makes the grids finer, and the
            objects that the network sees larger.

    Attributes:
        amp: Whether stages are computed in bfloat16 where PyTorch deems it safe; they are given in single precision.

    Examples:
        >>> backbone = Backbone(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), {"F1": Stage("1", 8, 2)})
        >>> backbone.stages(torch.zeros(1, 3, 32, 48, dtype=torch.uint8), ["F1"])["F1"].shape
        torch.Size([1, 8, 16, 24])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        stages: Mapping[str, Stage],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if IMAGE in stages:
            raise ValueError(f"stages: {IMAGE!r} is the image itself, got it as a stage of the network")
        if not 0 < scale < math.inf:
            raise ValueError(f"scale: expected a positive number, got {scale}")
        self.network, self.scale, self.amp = network, scale, False
        self._stages = dict(stages)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages there are, from shallow to deep."""
        return (IMAGE, *self._stages)

    @property
    def channels(self) -> dict[str, int]:
        """Number of channels of each stage."""
        return {IMAGE: 3} | {name: stage.channels for name, stage in self._stages.items()}

    @property
    def strides(self) -> dict[str, int]:
        """Stride of each stage; an input side of n pixels has ceil(n / stride) features, but in a few nets of timm."""
        return {IMAGE: 1} | {name: stage.stride for name, stage in self._stages.items()}

    def input_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the size (H, W) at which the network sees an image of a size."""
        height, width = (max(1, round(side * self.scale)) for side in size)
        return height, width

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise images as the network's training did.

        Args:
            images: RGB 0..255, uint8 or floating point, of shape (B, 3, H, W).

        Returns:
            ``(images - mean) / std``, of the same shape, in the network's number type and on its device.

        Raises:
            ValueError: The images have another shape or no pixels.
        """
        return (self._converted(images) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores of images, RGB 0..255 of shape (B, 3, H, W)."""
        scores: Tensor = self.network(self._input(images))
        return scores

    def stages(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Read stages of the network; what lies deeper than the deepest one asked for is not computed.

        Args:
            images: RGB 0..255, uint8 or floating point, of shape (B, 3, H, W); for ``img`` alone, any channels.
            names: Any of :attr:`stage_names`.

        Returns:
            The stages by name, in the order asked for: ``img`` as floating point of the images' shape, the others as
            (B, channels, h, w), whose cells cover the image. All carry gradients unless the caller forbids it.

        Raises:
            ValueError: There is no such stage, or the images have another shape or no pixels.
        """
        names = list(names)
        self.check_stages(names)
        deep = [name for name in names if name != IMAGE]
        features = self._features(self._input(images), deep) if deep else {}
        if IMAGE in names:
            features[IMAGE] = self._converted(images, colours=False)
        return {name: features[name] for name in names}

    def check_stages(self, names: Iterable[str]) -> None:
        """Raise ValueError unless the backbone has all stages of these names."""
        for name in names:
            if name not in self.stage_names:
                raise ValueError(f"stage {name!r}: expected one of {', '.join(self.stage_names)}")

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training, except BatchNorm, or to evaluation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def _features(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Run the network on its input, in bfloat16 if so chosen, and return some of its stages."""
        if not self.amp:
            return self._read(inputs, names)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            features = self._read(inputs, names)
        return {name: values.to(inputs.dtype) for name, values in features.items()}

    def _read(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Run the network on its input and return some of its stages."""
        with StageReader(self.network, {name: self._stages[name].module for name in names}) as outputs:
            self.network(inputs)
        return outputs

    def _input(self, images: Tensor) -> Tensor:
        """Normalise images and resize them to the size at which the network sees them."""
        inputs = self.normalize(images)
        size = self.input_size(images.shape[2:])
        shrinks = size[0] < images.shape[2] or size[1] < images.shape[3]
        return resize(inputs, size, antialias=shrinks)

    def _converted(self, images: Tensor, colours: bool = True) -> Tensor:
        if images.ndim != 4 or 0 in images.shape[1:] or (colours and images.shape[1] != 3):
            shape = f"(B, {3 if colours else 'C'}, H, W)"
            raise ValueError(f"images: expected shape {shape} with at least one pixel, got {tuple(images.shape)}")
        return images.to(self.mean)


def train_only_deep_stages(backbone: Backbone, deepest: str, shallow_stride: int) -> None:
    """Leave trainable only what lies between the last stage of a stride and the deepest one that is used.

    No gradient is computed in what is not trained, and layers that nothing depends on are left out: a network on
    several processes may have none that are trained.

    Args:
        backbone: Its parameters' ``requires_grad`` is set.
        deepest: Name of the deepest stage in use.
        shallow_stride: Stages up to this stride, of a finer grid than the deepest, keep their weights; 1 for none.
    """
    # A plain transformer has one stride throughout, and no shallow stage.
    strides = backbone.strides
    shallow = [name for name, stride in strides.items() if stride <= shallow_stride and stride < strides[deepest]]
    used = {id(parameter) for parameter in _parameters_of(backbone, deepest)}
    frozen = {id(parameter) for name in shallow[-1:] for parameter in _parameters_of(backbone, name)}
    for parameter in backbone.parameters():
        parameter.requires_grad_(id(parameter) in used - frozen)


def _parameters_of(backbone: Backbone, stage: str) -> Iterator[nn.Parameter]:
    """Yield the parameters that a stage depends on, found by its gradient: networks differ too much to name them."""
    if stage == IMAGE:
        return
    backbone.requires_grad_()
    with torch.inference_mode(False), torch.enable_grad():
        twin = differentiable(backbone)
        output = twin.stages(torch.zeros(1, 3, 64, 64), [stage])[stage]
        gradients = torch.autograd.grad(output.sum(), list(twin.parameters()), allow_unused=True)
    own = backbone.parameters()
    yield from (parameter for parameter, gradient in zip(own, gradients, strict=True) if gradient is not None)
