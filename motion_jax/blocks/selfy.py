"""SELFY: spatio-temporal self-similarity (STSS) as a motion representation."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from motion_jax.blocks import feature_integration
from motion_jax.blocks.feature_integration import integrate, upsample
from motion_jax.blocks.protocol import Operations, Shape, Similarities, TensorNames
from motion_jax.fields import Channels, OddSide, Positive, Range, check_fields
from motion_jax.layers import BatchNorm, Conv, ConvBNAct, at_least_float32, frames_seen, past_frames
from motion_jax.ops import kernel_soft_argmax, self_similarity
from motion_jax.ops.self_similarity import TEMPORAL_PADDINGS, temporal_offsets, window_exists
from motion_jax.text import shown

FUSIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "relu_of_sum": lambda z, v: nn.relu(z + v),  # the official code
    "sum_of_relu": lambda z, v: v + nn.relu(z),  # the paper's text, and "Z+V" of Table 3c
    "z_only": lambda z, v: nn.relu(z),
    "v_only": lambda z, v: v,
}
SIMILARITIES = ("cosine", "embedded_gaussian", "dot")
# Ways of feature extraction and the channels of their layers.
EXTRACTIONS: dict[str, tuple[int, ...]] = {
    "conv": (4, 16, 64, 64),
    "conv3d": (4, 16, 64, 64),
    "mlp": (64, 64, 64, 64),
    "soft_argmax": (),
}
Factor = Annotated[int, Range(1, 64)]


class Selfy(nn.Module):
    """The SELFY block: self-similarity transformation, feature extraction, feature integration, fusion.

    Sows ``stss`` (b, t, h', w', l, u, v), the input of the extraction at the reduced resolution, in float32 at least.

    The papers compare at 14x14 for inputs of 224 pixels at every site: ``stride`` 4, 2, 1 for maps of 56x56, 28x28,
    14x14, and ``enlarge`` 2 with ``stride`` 1 for 7x7.

    Attributes:
        window: (L, U, V) of the self-similarity, odd; the papers use (5, 9, 9) for 8 frames, (9, 9, 9) for 16.
        offsets: temporal offsets in frames in place of L, such as (1,) for the next frame only.
        channels: channels that the input is reduced to before the comparison.
        stride: of the reduction, in space; the result is upsampled to the input's size.
        extraction_widths: channels of the layers of the extraction; None for its own.
        integration_width: channels of the convolutions over (x, y).
        fusion: ``relu_of_sum``, ``sum_of_relu``, ``z_only`` or ``v_only``, with Z the block's features, V its input.
        extraction: ``conv``, convolutions over (u, v), channels 4, 16, 64, 64, the last of which reduces the window to
            one cell; ``conv3d``, the same over (l, u, v) with multi-channel 3x3x3 kernels (Table 3d); ``mlp``, four
            layers of 64 on the flattened (u, v); ``soft_argmax``, displacement and confidence per offset as in
            MotionSqueeze (KS + CM), which needs U = V of 3 or more.
        similarity: ``cosine``; ``dot``, inner products of the features; ``embedded_gaussian``, inner products of two
            learned embeddings with a softmax over those cells of the window that exist.
        temporal_padding: ``zero``, ``edge`` or ``replicate``, for frames outside the clip (see ``self_similarity``).
        enlarge: factor of a bilinear enlargement before the reduction, for maps smaller than the resolution to compare
            at; at the end the cells of the enlarged map are averaged back.
        sigma: of ``soft_argmax``: width of the Gaussian around the best match, in cells; None for none.
        temperature: of ``soft_argmax``: multiplier of the scores before the softmax.
        causal: compare with the frame itself and frames before it only: L gives the offsets -(L - 1) .. 0. Frames
            before the clip are padded as ``temporal_padding`` says, ``edge`` with the first frame.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; normalisation and similarities are float32 at least, and then rounded to it unless
            the extraction is ``soft_argmax``.

    Raises:
        ValueError: for a field that is out of its range, an unknown fusion, extraction, similarity or padding, or a
            window that does not fit them.

    Source: Kwon et al., Learning Self-Similarity in Space and Time (ICCV 2021), section 3, and its supplement, Table 3;
    the official code's ``STSSTransformation``, ``STSSExtraction`` and ``STSSIntegration``. The papers do not print the
    widths of the MLP and the resizing for comparison at 14x14 at sites other than 28x28; these are ours.
    """

    window: tuple[OddSide, OddSide, OddSide] = (5, 9, 9)
    offsets: tuple[Annotated[int, Range(-1024, 1024)], ...] | None = None
    channels: Channels = 128
    stride: Factor = 2
    extraction_widths: tuple[Channels, ...] | None = None
    integration_width: Channels = 64
    fusion: str = "relu_of_sum"
    extraction: str = "conv"
    similarity: str = "cosine"
    temporal_padding: str = "zero"
    enlarge: Factor = 1
    sigma: Positive | None = 5.0
    temperature: Positive = 100.0
    causal: bool = False
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_names()
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Fuse self-similarity features with ``x``; the result has its shape and ``dtype``."""
        layer = ConvBNAct(self.norm, self.dtype, train)
        x = x.astype(self.dtype)
        large = _enlarge(x, self.enlarge)
        reduced = layer(large, self.channels, (3, 3), strides=(self.stride, self.stride), name="downsample")
        stss = self._transform(reduced)
        self.sow("intermediates", "stss", stss.astype(at_least_float32(stss.dtype)), reduce_fn=lambda _, new: new)
        features = self._extract(layer, stss)
        features = integrate(layer, features, self.integration_width)
        features = upsample(layer, features, like=large, stride=self.stride)
        return FUSIONS[self.fusion](_mean_of_cells(features, self.enlarge), x)

    def _check_names(self) -> None:
        known = {
            "fusion": FUSIONS,
            "extraction": EXTRACTIONS,
            "similarity": SIMILARITIES,
            "temporal_padding": TEMPORAL_PADDINGS,
        }
        for field, names in known.items():
            if getattr(self, field) not in names:
                raise ValueError(f"{field} must be one of {', '.join(names)}; got {shown(getattr(self, field))}")
        if self.extraction == "soft_argmax" and (self.window[1] != self.window[2] or self.window[1] < 3):
            raise ValueError(f"the extraction soft_argmax needs a window with U = V of 3 or more; got {self.window}")
        for field in ("offsets", "extraction_widths"):
            if getattr(self, field) == ():
                raise ValueError(f"{field} must name one or more, or be None for the block's own; got ()")
        if self.causal and max(self.temporal_offsets()) > 0:
            raise ValueError(f"causal compares with frames before, at offsets of 0 or less; got offsets={self.offsets}")

    @nn.nowrap
    def temporal_offsets(self) -> tuple[int, ...]:
        """Return the temporal offsets of the window, in frames."""
        if self.offsets is not None:
            return self.offsets
        length = self.window[0]
        return tuple(range(1 - length, 1)) if self.causal else temporal_offsets(length)

    def _transform(self, x: jax.Array) -> jax.Array:
        """Self-similarity transformation: (b, t, h', w', c) -> (b, t, h', w', l, u, v)."""
        seen = frames_seen(self, x, name="seen") if self.causal else None
        if self.similarity == "embedded_gaussian":
            query, key = (
                Conv(self.channels, (1, 1), dtype=self.dtype, name=f"embedding_{name}")(x) for name in ("query", "key")
            )
            return self._softmax(self_similarity(query, key, **self._window(key, seen)), seen)
        # Rounded to what the extraction reads before the windows are picked, which in bfloat16 halves their bytes.
        dtype = None if self.extraction == "soft_argmax" else self.dtype
        return self_similarity(x, cosine=self.similarity == "cosine", dtype=dtype, **self._window(x, seen))

    def _window(self, x: jax.Array, seen: jax.Array | None) -> dict[str, Any]:
        """Return the options of ``self_similarity``, with the frames before ``x`` if they count."""
        window = {"window": self.window, "offsets": self.temporal_offsets()}
        reach = -min(window["offsets"])
        if not self.causal or reach == 0:
            return {**window, "temporal_padding": self.temporal_padding}
        past = past_frames(self, x, reach, name="reduced")
        if self.temporal_padding == "edge":
            exists = jnp.arange(-reach, 0)[None] + seen[:, None] >= 0
            # In a stream, the first frame is the oldest one that exists.
            first = jnp.where((seen == 0)[:, None, None, None], x[:, 0], _oldest(past, exists))
            past = jnp.where(exists[:, :, None, None, None], past, first[:, None])
        return {**window, "past": past}

    def _softmax(self, scores: jax.Array, seen: jax.Array | None) -> jax.Array:
        """Softmax over the window (l, u, v), with weight 0 for cells outside the clip or the frame."""
        padding, offsets = self.temporal_padding, self.temporal_offsets()
        size = scores.shape[1:4]
        if self.causal:
            space = window_exists(1, *size[1:], window=self.window, offsets=(0,))[None]
            time = np.arange(size[0])[:, None] + np.array(offsets)
            exists = time[None] + seen[:, None, None] >= (min(offsets) if padding == "edge" else 0)
            exists = space & exists[:, :, None, None, :, None, None]
        else:
            exists = window_exists(*size, window=self.window, offsets=offsets, temporal_padding=padding)[None]
        scores = jnp.where(exists, scores, jnp.finfo(scores.dtype).min)
        axes = (-3, -2, -1)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axes, keepdims=True)))
        weights = jnp.where(exists, weights, 0)
        total = weights.sum(axes, keepdims=True)
        return weights / jnp.where(total > 0, total, 1)  # windows without any cell: all 0

    def _extract(self, layer: ConvBNAct, stss: jax.Array) -> jax.Array:
        """Feature extraction: (b, t, h', w', l, u, v) -> (b, t, h', w', l, d)."""
        if self.extraction == "soft_argmax":
            return self._extract_displacement(stss)
        widths = EXTRACTIONS[self.extraction] if self.extraction_widths is None else self.extraction_widths
        if self.extraction == "mlp":
            x = stss.reshape(*stss.shape[:5], -1)
            for index, width in enumerate(widths):
                x = layer(x, width, (1, 1), name=f"extraction{index}")
            return x
        over_l = 1 if self.extraction == "conv3d" else 0  # further axes of the kernels
        # One batch of windows. Those of one offset stay together, in the order of the comparison.
        x = (stss if over_l else jnp.moveaxis(stss, 4, 2)).astype(self.dtype)
        lead = x.shape[: 5 - over_l]
        x = x.reshape(-1, *x.shape[5 - over_l :], 1)
        *hidden, last = widths
        for index, width in enumerate(hidden):
            # Halve the window, but never below three cells: strides 1, 2, 2 for 9x9, 13x13 and 17x17; 1, 2, 1 for 5x5.
            strides = tuple(2 if index > 0 and (side + 1) // 2 >= 3 else 1 for side in x.shape[-3:-1])
            kernel_size, strides = (3,) * over_l + (3, 3), (1,) * over_l + strides
            x = layer(x, width, kernel_size, strides=strides, name=f"extraction{index}")
        # The last kernel closes the window to one cell.
        kernel_size, padding = (3,) * over_l + x.shape[-3:-1], (1,) * over_l + (0, 0)
        x = layer(x, last, kernel_size, padding=padding, name=f"extraction{len(hidden)}")
        return x.reshape(*stss.shape[:5], last) if over_l else jnp.moveaxis(x.reshape(*lead, last), 2, 4)

    def _extract_displacement(self, stss: jax.Array) -> jax.Array:
        """Return (dx, dy) in units of the window's radius and confidence, per offset: (b, t, h', w', l, 3)."""
        scores = nn.relu(stss)
        window = scores.shape[-2:]
        displacement = kernel_soft_argmax(
            scores.reshape(-1, *scores.shape[3:5], *window), sigma=self.sigma, temperature=self.temperature
        )
        displacement = displacement.reshape(*scores.shape[:5], 2)
        return jnp.concatenate([displacement, scores.max((-2, -1))[..., None]], axis=-1)

    narrow_fields: ClassVar[Mapping[str, Any]] = {
        "channels": 32,
        "extraction_widths": (4, 8, 16, 16),
        "integration_width": 16,
    }

    official_names: ClassVar[TensorNames] = TensorNames(
        (
            (r"extraction(\d)_conv", r"selfy.stss_extraction.conv\1.0"),
            (r"extraction(\d)_bn", r"selfy.stss_extraction.conv\1.1"),
            *feature_integration.OFFICIAL_MODULES,
        ),
        feature_integration.TRANSPOSED,
        r"(extraction|integration|upsample).*",
    )

    @nn.nowrap
    def operations(self, shape: Shape) -> Operations:
        """Return the cost of the self-similarity, 2 C - 1 per similarity of C channels, and of upsampling.

        Source: the supplement, Tables 3a and 3g (36.6 G in ResNet-50).
        """
        batch, frames, height, width, features = shape
        size = (self.enlarge * height, self.enlarge * width)
        _, *sides = self.window
        window = len(self.temporal_offsets()) * math.prod(sides)
        positions = batch * frames * math.prod(-(-side // self.stride) for side in size)
        cost = feature_integration.upsample_operations(
            batch * frames, size, stride=self.stride, width=self.integration_width, features=features
        ) + Operations(correlation=positions * window * (2 * self.channels - 1))
        return cost + Operations.softmax(positions, window) if self.similarity == "embedded_gaussian" else cost

    @nn.nowrap
    def similarities(self, variables: Mapping[str, Any], x: Float[Array, "b t h w c"]) -> Similarities:
        """Return the STSS, at the resolution of the comparison."""
        block = self.clone(parent=None, name=None)
        _, state = block.apply(variables, x, train=False, mutable=["intermediates"])
        cosine, values = self.similarity == "cosine", state["intermediates"]["stss"]
        return Similarities(values, self.temporal_offsets(), 1, self.sigma, self.temperature, cosine)

    @classmethod
    def fields_at(cls, cell: int) -> Mapping[str, Any]:
        """Return the fields that compare at 14x14 for an input of 224, at any site (supplement, Table 3b)."""
        return {"stride": max(1, 16 // cell), "enlarge": max(1, cell // 16)}

    @classmethod
    def published_fields(cls, frames: int) -> Mapping[str, Any]:
        """Return the window (L, U, V) of section 4.2, longer for 16 frames, and the official code's fusion."""
        return {"window": (9, 9, 9) if frames >= 16 else cls.window, "fusion": cls.fusion}


def _oldest(past: jax.Array, exists: jax.Array) -> jax.Array:
    """Return the first frame of ``past`` (b, n, ...) where ``exists`` (b, n) holds: (b, ...)."""
    index = exists.argmax(axis=1)
    return jnp.take_along_axis(past, index[:, None, None, None, None], axis=1)[:, 0]


def _enlarge(x: jax.Array, factor: int) -> jax.Array:
    """Resize bilinearly with aligned cell centres: (b, t, h, w, c) -> (b, t, factor * h, factor * w, c)."""
    batch, frames, height, width, channels = x.shape
    if factor == 1:
        return x
    return jax.image.resize(x, (batch, frames, factor * height, factor * width, channels), method="linear")


def _mean_of_cells(x: jax.Array, factor: int) -> jax.Array:
    """Average blocks of cells: (b, t, factor * h, factor * w, c) -> (b, t, h, w, c)."""
    if factor == 1:
        return x
    batch, frames, height, width, channels = x.shape
    cells = x.reshape(batch, frames, height // factor, factor, width // factor, factor, channels)
    return cells.mean(axis=(3, 5))
