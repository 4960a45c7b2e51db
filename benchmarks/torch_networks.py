"""TSM, MSNet and SELFYNet on ResNet-18, 34 and 50 in plain PyTorch, as the baseline of our time measurements.

The networks are optimised for eager PyTorch to make the comparison fair. The temporal shift is one copy in each
direction. Matching and self-similarity are matrix products, and their windows are views. SELFY's small maps are always
convolved channels last. Modules have the official names, so the official state dicts and those of
``motion_jax.weights.save.torch_state_dict`` load strictly. Features are (b*t, c, h, w). Requires PyTorch
(benchmarks/requirements.txt).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Name -> residual blocks per stage, and whether they are bottlenecks.
RESNETS = {"r18": ((2, 2, 2, 2), False), "r34": ((3, 4, 6, 3), False), "r50": ((3, 4, 6, 3), True)}
# The official networks contain a BatchNorm of this width that they do not use.
UNUSED_CHANNELS = 128


class TSM(nn.Module):
    """ResNet with temporal shift: clips (b, t, h, w, 3), uint8 or normalised floats -> float32 logits (b, num_classes).

    Args:
        stage_sizes: residual blocks per stage.
        bottleneck: use bottlenecks instead of basic blocks.
        num_classes: number of logits.
        dropout: rate before the classifier in training.
        memory_format: layout of the features, ``torch.contiguous_format`` (NCHW) or ``torch.channels_last``.

    Source: torchvision resnet.py; TSM, section 4 ("residual shift").
    """

    def __init__(
        self,
        stage_sizes: Sequence[int],
        *,
        bottleneck: bool,
        num_classes: int,
        dropout: float,
        memory_format: torch.memory_format,
    ) -> None:
        super().__init__()
        expansion = 4 if bottleneck else 1
        self.memory_format, self.dropout = memory_format, dropout
        scale = torch.tensor(STD).reciprocal().view(1, 3, 1, 1)
        self.register_buffer("scale", scale / 255, persistent=False)
        self.register_buffer("offset", torch.tensor(MEAN).view(1, 3, 1, 1) * scale, persistent=False)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.bn2 = nn.BatchNorm2d(UNUSED_CHANNELS)
        channels = 64
        for stage, size in enumerate(stage_sizes):
            blocks = nn.ModuleList()
            for index in range(size):
                features = 64 * 2**stage * expansion
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(ResidualBlock(channels, features, stride=stride, bottleneck=bottleneck))
                channels = features
            self.add_module(f"layer{stage + 1}", blocks)
        self.fc1 = nn.Conv1d(channels, num_classes, 1)
        self.motion_channels = 128 * expansion

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits of the clips, averaged over the frames."""
        frames = clips.shape[1]
        x = F.relu(self.bn1(self.conv1(self._normalised(clips))), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in (self.layer1, self.layer2):
            for block in stage:
                x = block(x, frames)
        x = self.with_motion(x, frames)
        for stage in (self.layer3, self.layer4):
            for block in stage:
                x = block(x, frames)
        x = F.dropout(wide(x).mean((2, 3)), self.dropout, self.training)
        return wide(self.fc1(x.unflatten(0, (-1, frames)).transpose(1, 2))).mean(2)

    def with_motion(self, x: Tensor, frames: int) -> Tensor:
        """Return the features of res3 unchanged; networks with a motion block override this."""
        del frames
        return x

    def _normalised(self, clips: Tensor) -> Tensor:
        x = clips.flatten(0, 1).permute(0, 3, 1, 2)
        if clips.dtype == torch.uint8:
            return x.to(torch.float32, memory_format=self.memory_format).mul_(self.scale).sub_(self.offset)
        return x.contiguous(memory_format=self.memory_format)


class ResidualBlock(nn.Module):
    """Basic block or bottleneck with a temporal shift in the residual branch."""

    def __init__(self, channels: int, features: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        inner = features // 4 if bottleneck else features
        if bottleneck:
            self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(inner, features, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(features)
        else:
            self.conv1 = nn.Conv2d(channels, inner, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(inner, features, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner)
        self.bottleneck, self.downsample = bottleneck, None
        if stride != 1 or channels != features:
            shortcut = nn.Conv2d(channels, features, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(features))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map (b*t, channels, h, w) to (b*t, features, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(Shift.apply(x, frames))), inplace=True)
        x = self.bn2(self.conv2(x))
        if self.bottleneck:
            x = self.bn3(self.conv3(F.relu(x, inplace=True)))
        return x.add_(shortcut).relu_()


class Shift(torch.autograd.Function):
    """Temporal shift and its gradient, one copy each. Autograd of slices or ``cat`` takes three times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frames: int) -> Tensor:
        """Take an eighth of the channels from the next frame and an eighth from the previous one."""
        ctx.frames = frames
        eighth = x.shape[1] // 8
        return _shifted(x, frames, from_next=slice(0, eighth), from_last=slice(eighth, 2 * eighth))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Shift the gradient in the opposite direction."""
        (grad,) = grads
        eighth = grad.shape[1] // 8
        return _shifted(grad, ctx.frames, from_next=slice(eighth, 2 * eighth), from_last=slice(0, eighth)), None


def _shifted(x: Tensor, frames: int, *, from_next: slice, from_last: slice) -> Tensor:
    moved = torch.empty_like(x)
    source, result = (tensor.unflatten(0, (-1, frames)) for tensor in (x, moved))
    result[:, :-1, from_next], result[:, -1, from_next] = source[:, 1:, from_next], 0
    result[:, 1:, from_last], result[:, 0, from_last] = source[:, :-1, from_last], 0
    rest = slice(2 * (x.shape[1] // 8), None)
    result[:, :, rest] = source[:, :, rest]
    return moved


class MSNet(TSM):
    """TSM with MotionSqueeze after res3.

    Source: MotionSqueeze, section 3; resnet.py of the official code, ``flow_computation`` and ``flow_refinement``.
    """

    def __init__(self, stage_sizes: Sequence[int], **options: Any) -> None:
        super().__init__(stage_sizes, **options)
        self.chnl_reduction = nn.Sequential(
            nn.Conv2d(self.motion_channels, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        )
        self.flow_refinement = FlowRefinement((3, 16, 32, 64, self.motion_channels))

    def with_motion(self, x: Tensor, frames: int) -> Tensor:
        """Add the refined displacement and confidence to the features."""
        motion = motion_of(self.chnl_reduction(x), frames)
        return x + self.flow_refinement(motion.contiguous(memory_format=self.memory_format))


class FlowRefinement(nn.Module):
    """Four depth-wise separable layers, 7x7 and then 3x3, with BN and ReLU after each half."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
            side = 7 if index == 1 else 3
            layer = nn.Sequential(
                nn.Conv2d(inputs, inputs, side, 1, side // 2, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.ReLU(inplace=True),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            )
            self.add_module(f"conv{index}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, channels of the network, h, w)."""
        return self.conv4(self.conv3(self.conv2(self.conv1(x))))


def wide(x: Tensor) -> Tensor:
    """Convert to float32, unless the dtype is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def match(source: Tensor, target: Tensor, *, radius: int = 7, sigma: float = 5.0, temperature: float = 100.0) -> Tensor:
    """Match two maps (n, c, h, w); return displacement (dx, dy) in units of the radius and confidence, (n, 3, h, w).

    Computes the kernel-soft-argmax over rectified scores. The Gaussian is looked up by row and column of the best
    match.

    Source: MotionSqueeze, section 3.2; resnet.py, ``match_to_flow_soft`` and ``apply_gaussian_kernel``.
    """
    height, width = source.shape[2:]
    side = 2 * radius + 1
    with torch.autocast(source.device.type, enabled=False):
        scores = torch.bmm(source.flatten(2).transpose(1, 2), target.flatten(2)).unflatten(1, (height, width))
        scores = F.relu(windows(scores.unflatten(3, (height, width)), side)).flatten(3)
        confidence, best = scores.max(-1)
        cell = torch.arange(-radius, radius + 1, device=source.device, dtype=scores.dtype)
        gaussian = torch.exp((cell[:, None] - cell).square() * (-0.5 / sigma**2))
        kernel = gaussian[best // side][..., :, None] * (temperature * gaussian)[best % side][..., None, :]
        weights = torch.softmax(scores * kernel.flatten(3), -1)
        steps = torch.stack([cell.repeat(side), cell.repeat_interleave(side)], 1) / radius
        return torch.cat([weights @ steps, confidence[..., None]], 3).permute(0, 3, 1, 2)


def motion_of(x: Tensor, frames: int) -> Tensor:
    """Match features (b*t, c, h, w) with those of the next frame: (b*t, 3, h, w). The last frame repeats the last pair.

    Source: MotionSqueeze, resnet.py, ``flow_computation``.
    """
    x = normalised(x).unflatten(0, (-1, frames))
    motion = match(x[:, :-1].flatten(0, 1), x[:, 1:].flatten(0, 1)).unflatten(0, (-1, frames - 1))
    return torch.cat([motion, motion[:, -1:]], 1).flatten(0, 1)


def normalised(x: Tensor) -> Tensor:
    """Scale features (n, c, h, w) to unit length. Source: MotionSqueeze, resnet.py, ``L2normalize``."""
    x = wide(x)
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-6)


def windows(scores: Tensor, side: int) -> Tensor:
    """Select the window around each position from the scores of all pairs: (n, h, w, h, w) -> (n, h, w, side, side).

    Scores outside the frame are zero. The result is a view of the padded scores: moving down one row in the source also
    moves down one row in the target.
    """
    height, width = scores.shape[1:3]
    radius = side // 2
    scores = F.pad(scores, (radius,) * 4)
    wide, area = width + 2 * radius, (height + 2 * radius) * (width + 2 * radius)
    strides = (height * width * area, width * area + wide, area + 1, wide, 1)
    return scores.as_strided((len(scores), height, width, side, side), strides)


class SELFYNet(TSM):
    """TSM with the SELFY block after res3.

    Source: Learning Self-Similarity in Space and Time, section 3; the official code's ``STSSTransformation``,
    ``STSSExtraction`` and ``STSSIntegration``.
    """

    def __init__(self, stage_sizes: Sequence[int], **options: Any) -> None:
        super().__init__(stage_sizes, **options)
        del self.bn2
        self.selfy = Selfy(self.motion_channels, memory_format=self.memory_format)

    def with_motion(self, x: Tensor, frames: int) -> Tensor:
        """Return the ReLU of the sum of the features and the output of the block."""
        return self.selfy(x, frames).add_(x).relu_()


class Selfy(nn.Module):
    """SELFY block over five frames and 9x9 cells, without the fusion: (b*t, channels, h, w) -> the same shape."""

    def __init__(self, channels: int, *, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.memory_format = memory_format
        self.stss_transformation, self.stss_extraction, self.stss_integration = (nn.Module() for _ in range(3))
        self.stss_transformation.downsample = nn.Sequential(
            nn.Conv2d(channels, 128, 3, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(inplace=True)
        )
        layers = ((1, 4, 1, 1), (4, 16, 2, 1), (16, 64, 2, 1), (64, 64, 1, 0))
        for index, (inputs, outputs, stride, padding) in enumerate(layers):
            layer = conv_bn_relu(inputs, outputs, stride=stride, padding=padding)
            self.stss_extraction.add_module(f"conv{index}", layer)
        for index in range(3):
            self.stss_integration.add_module(f"conv{index}", conv_bn_relu(64, 64))
        self.stss_integration.conv3_fuse = nn.Sequential(nn.Identity(), *conv_bn_relu(5 * 64, 64))
        self.stss_integration.upsample = nn.Sequential(Upsample(64, channels), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Apply transformation, extraction and integration."""
        features = normalised(self.stss_transformation.downsample(x)).unflatten(0, (-1, frames))
        height, width = features.shape[3:]
        stss = self_similarity(features)
        x = stss.reshape(-1, *stss.shape[-2:], 1).permute(0, 3, 1, 2)
        extraction, integration = self.stss_extraction, self.stss_integration
        for layer in (extraction.conv0, extraction.conv1, extraction.conv2, extraction.conv3):
            x = layer(x)
        x = x.reshape(-1, height, width, 64).permute(0, 3, 1, 2)
        for layer in (integration.conv0, integration.conv1, integration.conv2):
            x = layer(x)
        # Move the offsets before the channels; the channels stay last.
        x = x.permute(0, 2, 3, 1).unflatten(0, (-1, 5)).permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
        return integration.upsample(integration.conv3_fuse(x)).contiguous(memory_format=self.memory_format)


def self_similarity(x: Tensor, *, length: int = 5, side: int = 9) -> Tensor:
    """Compute inner products with the window around each position: (b, t, c, h, w) -> (b*t*l, h, w, u, v)."""
    height, width = x.shape[3:]
    with torch.autocast(x.device.type, enabled=False):
        x = x.flatten(3)
        others = F.pad(x, (0, 0, 0, 0, length // 2, length // 2))
        source = x.transpose(2, 3)
        scores = torch.stack([source @ others[:, start : start + x.shape[1]] for start in range(length)], 2)
        return windows(scores.view(-1, height, width, height, width), side)


def conv_bn_relu(inputs: int, outputs: int, *, stride: int = 1, padding: int = 1) -> nn.Sequential:
    """Build a 3x3 layer of the SELFY block."""
    conv = FlatConv3d(inputs, outputs, (1, 3, 3), (1, stride, stride), (0, padding, padding), bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class FlatConv3d(nn.Conv3d):
    """1x3x3 convolution of (n, c, h, w): weights as in the official code, computed as a 2-D convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, features, h', w')."""
        return F.conv2d(x, self.weight.squeeze(2), None, self.stride[1:], self.padding[1:])


class Upsample(nn.ConvTranspose3d):
    """Transposed 1x1 convolution of stride 2: (n, c, h, w) -> (n, features, 2h, 2w), three of four cells zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute in 2-D; the official code uses 3-D."""
        return F.conv_transpose2d(x, self.weight.squeeze(2), stride=2, output_padding=1)


def build_network(
    name: str,
    *,
    num_classes: int,
    dropout: float = 0.5,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> TSM:
    """Build the PyTorch version of one of our named models, with PyTorch's initial weights.

    Args:
        name: ``{tsm,msnet_tsm,selfynet_tsm}_{r18,r34,r50}``.
        num_classes: number of logits.
        dropout: rate before the classifier in training.
        memory_format: layout of the features and the weights.

    Raises:
        ValueError: if there is no PyTorch version of ``name``.
    """
    kind, _, depth = name.rpartition("_")
    if kind not in KINDS or depth not in RESNETS:
        raise ValueError(f"there is no PyTorch version of {name!r}, only of {', '.join(NAMES)}")
    stage_sizes, bottleneck = RESNETS[depth]
    options = {"bottleneck": bottleneck, "num_classes": num_classes, "dropout": dropout}
    network = KINDS[kind](stage_sizes, memory_format=memory_format, **options)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=memory_format)
    return network


KINDS = {"tsm": TSM, "msnet_tsm": MSNet, "selfynet_tsm": SELFYNet}
NAMES = tuple(f"{kind}_{depth}" for depth in RESNETS for kind in KINDS)


def make_optimizer(model: nn.Module, *, learning_rate: float = 0.01) -> torch.optim.SGD:
    """Build SGD with the official parameter groups: biases at twice the rate, weight decay only on weights.

    ``fused`` is several times as fast as ``foreach`` on a CPU.

    Source: MotionSqueeze and SELFY, main.py and ``TSN.get_optim_policies``.
    """
    norms = {id(p) for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    others = [p for p in model.parameters() if id(p) not in norms]
    groups = [
        {"params": [p for p in others if p.ndim > 1]},
        {"params": [p for p in others if p.ndim == 1], "lr": 2 * learning_rate, "weight_decay": 0.0},
        {"params": [p for p in model.parameters() if id(p) in norms], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, clips: Tensor, labels: Tensor, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Run one training step with clipping at norm 20; return the loss and the gradient norm before clipping.

    Args:
        model: in training mode.
        optimizer: optimizer of its parameters.
        clips: (b, t, h, w, 3).
        labels: (b,) int64.
        dtype: dtype of autocast; float32 disables it.
    """
    with torch.autocast(clips.device.type, dtype, enabled=dtype != torch.float32):
        loss = F.cross_entropy(model(clips), labels)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 20.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach(), norm


@torch.inference_mode()
def predict(model: nn.Module, clips: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return the logits of clips (b, t, h, w, 3) with a model in evaluation mode; ``dtype`` as in ``train_step``."""
    with torch.autocast(clips.device.type, dtype, enabled=dtype != torch.float32):
        return model(clips)
