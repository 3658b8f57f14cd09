"""Several networks read as one: each stage by the network that has it."""

from collections.abc import Iterable

from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import IMAGE, Backbone, Stage

SECOND = "second."
"""Start of the names of the second network's stages."""


class TwoBackbones(Backbone):
    """Two networks whose stages can be used, and fused, side by side.

    Each sees the images as it was trained to. A network of which no stage is asked for is not run.

    Args:
        first: Its stages keep their names; its class scores are those of both.
        second: Its stages have ``second.`` before their names.

    Examples:
        >>> import torch
        >>> first = Backbone(nn.Conv2d(3, 8, 3, 2, 1), {"F1": Stage("", 8, 2)})
        >>> both = TwoBackbones(first, Backbone(nn.Conv2d(3, 5, 4, 4), {"F1": Stage("", 5, 4)}))
        >>> found = both.stages(torch.zeros(1, 3, 8, 8), ["F1", "second.F1"])
        >>> {name: tuple(values.shape) for name, values in found.items()}
        {'F1': (1, 8, 4, 4), 'second.F1': (1, 5, 2, 2)}
    """

    def __init__(self, first: Backbone, second: Backbone) -> None:
        stages = {
            prefix + name: Stage(f"{index}", backbone.channels[name], backbone.strides[name])
            for index, (prefix, backbone) in enumerate((("", first), (SECOND, second)))
            for name in backbone.stage_names
            if name != IMAGE
        }
        super().__init__(nn.ModuleList([first, second]), stages)
        self.first, self.second = first, second

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores of the first network for images, RGB 0..255 of shape (B, 3, H, W)."""
        scores: Tensor = self.first(images)
        return scores

    def stages(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Read stages of both networks; see :meth:`Backbone.stages`."""
        names = list(names)
        self.check_stages(names)
        own = [name for name in names if not name.startswith(SECOND)]
        others = [name.removeprefix(SECOND) for name in names if name.startswith(SECOND)]
        found = self.first.stages(images, own)
        found |= {SECOND + name: values for name, values in self.second.stages(images, others).items()}
        return {name: found[name] for name in names}
