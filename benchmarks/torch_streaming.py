"""TSM on MobileNet-V2 one frame at a time in plain PyTorch, as the baseline of our streams.

Requires PyTorch (benchmarks/requirements.txt).
"""

import torch
from torch import Tensor, nn

from benchmarks.torch_mobilenetv2 import InvertedResidual, MobileNetV2

FOLD_DIV = 8


class OnlineConv2d(nn.Conv2d):
    """A convolution whose first input channels, one in ``FOLD_DIV``, are those of the frame before.

    Source: Lin et al., TSM (ICCV 2019), section 4.3: the uni-directional shift of the online model.
    """

    past: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map one frame (b, channels, h, w), and keep its first channels; those before the first frame are zero."""
        fold = x.shape[1] // FOLD_DIV
        past = torch.zeros_like(x[:, :fold]) if self.past is None else self.past
        self.past = x[:, :fold]
        return super().forward(torch.cat([past, x[:, fold:]], dim=1))


class OnlineMobileNetV2(MobileNetV2):
    """TSM-MobileNet-V2 for streams: a call takes the next frame (b, 1, h, w, 3) and returns its logits.

    The state dict has the names of the online code, without ``.net.``.
    """

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, frames=1, shifted=False, dropout=0.0)
        for block in self.features:
            if isinstance(block, InvertedResidual) and block.has_shortcut:
                expand = block.conv[0]
                block.conv[0] = OnlineConv2d(expand.in_channels, expand.out_channels, 1, bias=False)
