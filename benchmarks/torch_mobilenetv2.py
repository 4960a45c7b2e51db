"""TSN, TSM and MSNet on MobileNet-V2 in plain PyTorch, as the baseline of our training runs.

Modules have the names of the TSM repository, so the state dicts of ``motion_jax.weights.save.torch_state_dict`` load
strictly. Requires PyTorch (benchmarks/requirements.txt).
"""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.torch_networks import MEAN, STD, FlowRefinement, Shift, motion_of

# Expansion, channels, number of blocks and stride of the first block.
INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The last layer before the motion block, at a stride of 8 pixels, and its channels.
SITE, SITE_CHANNELS = 6, 32


class MobileNetV2(nn.Module):
    """MobileNet-V2 on every frame: clips (b, t, h, w, 3), uint8 or normalised floats -> logits (b, num_classes).

    Args:
        num_classes: number of logits.
        frames: frames per clip, t.
        shifted: whether channels are shifted between frames (TSM) or not (TSN).
        dropout: rate before the classifier in training.

    Source: Sandler et al., MobileNetV2 (CVPR 2018), Table 2; the TSM repository's archs/mobilenet_v2.py.
    """

    def __init__(self, *, num_classes: int, frames: int, shifted: bool, dropout: float) -> None:
        super().__init__()
        self.frames = frames
        scale = 1 / torch.tensor(STD)
        self.register_buffer("scale", scale / 255, persistent=False)
        self.register_buffer("offset", torch.tensor(MEAN) * scale, persistent=False)
        layers = [nn.Sequential(*conv_bn(3, 32, side=3, stride=2), nn.ReLU6())]
        channels = 32
        for expansion, features, count, first_stride in INVERTED_RESIDUALS:
            for stride in (first_stride, *[1] * (count - 1)):
                layers.append(
                    InvertedResidual(
                        channels, features, expansion=expansion, stride=stride, frames=frames if shifted else None
                    )
                )
                channels = features
        layers.append(nn.Sequential(*conv_bn(channels, 1280), nn.ReLU6()))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits of the clips, averaged over the frames."""
        if clips.dtype == torch.uint8:
            clips = clips * self.scale - self.offset
        x = clips.flatten(0, 1).permute(0, 3, 1, 2)
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index == SITE:
                x = self.with_motion(x)
        return self.classifier(self.dropout(x.mean((2, 3)))).unflatten(0, (-1, self.frames)).mean(1)

    def with_motion(self, x: Tensor) -> Tensor:
        """Return the features unchanged; a network with a motion block overrides this."""
        return x


class MSNet(MobileNetV2):
    """MobileNet-V2 with MotionSqueeze, which matches the features as they are, without reduction.

    Source: MotionSqueeze, supplement, section 3.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.flow_refinement = FlowRefinement((3, 16, 32, 64, SITE_CHANNELS))

    def with_motion(self, x: Tensor) -> Tensor:
        """Add the refined displacement and confidence to the features."""
        return x + self.flow_refinement(motion_of(x, self.frames))


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter depth-wise by a 3x3, project by a linear 1x1; added to the input where both fit.

    With ``frames``, blocks that have both an expansion and a shortcut shift channels before the expansion.
    """

    def __init__(self, channels: int, features: int, *, expansion: int, stride: int, frames: int | None) -> None:
        super().__init__()
        self.has_shortcut = stride == 1 and channels == features
        inner = expansion * channels
        layers = []
        if expansion != 1:
            expand, norm = conv_bn(channels, inner)
            if self.has_shortcut and frames is not None:
                expand = Shifted(expand, frames)
            layers += [expand, norm, nn.ReLU6()]
        layers += [*conv_bn(inner, inner, side=3, stride=stride, groups=inner), nn.ReLU6(), *conv_bn(inner, features)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b*t, channels, h, w) to (b*t, features, h / stride, w / stride)."""
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class Shifted(nn.Module):
    """Temporal shift before a convolution."""

    def __init__(self, net: nn.Module, frames: int) -> None:
        super().__init__()
        self.net, self.frames = net, frames

    def forward(self, x: Tensor) -> Tensor:
        """Map (b*t, channels, h, w) to (b*t, features, h, w)."""
        return self.net(Shift.apply(x, self.frames))


def conv_bn(
    inputs: int, outputs: int, *, side: int = 1, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    """Build a convolution without bias, and the BatchNorm after it."""
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def build_network(name: str, *, num_classes: int, frames: int, dropout: float = 0.5) -> MobileNetV2:
    """Build the PyTorch version of one of our named models, with PyTorch's initial weights.

    Args:
        name: ``{tsn,tsm,msnet_tsm}_mobilenetv2``.
        num_classes, frames, dropout: see ``MobileNetV2``.

    Raises:
        ValueError: if there is no PyTorch version of ``name``.
    """
    if name not in NETWORKS:
        raise ValueError(f"there is no PyTorch version of {name!r}, only of {', '.join(NETWORKS)}")
    network, shifted = NETWORKS[name]
    return network(num_classes=num_classes, frames=frames, shifted=shifted, dropout=dropout)


NETWORKS = {
    "tsn_mobilenetv2": (MobileNetV2, False),
    "tsm_mobilenetv2": (MobileNetV2, True),
    "msnet_tsm_mobilenetv2": (MSNet, True),
}
