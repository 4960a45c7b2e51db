"""STSS on the token grid of a transformer, as MOSS, RLDX-1 and OpenTau compute it."""

import functools
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from motion_jax.blocks.protocol import StandaloneNames
from motion_jax.fields import Channels, OddSide, Positive, Range, check_fields
from motion_jax.layers import BatchNorm, Conv, at_least_float32, kaiming_normal_fan_out
from motion_jax.ops import self_similarity, unit_length
from motion_jax.ops.self_similarity import window_exists
from motion_jax.text import shown

Grid = tuple[int, int, int]

# The names that each field knows.
_CHOICES = {
    "similarity": ("cosine", "dot", "dot_softmax"),
    "temporal_padding": ("zero", "replicate"),
    "norm": ("batch", "group"),
    "integration": ("full", "lite"),
    "output": ("none", "linear", "layer_scale"),
    "initialization": ("normal", "uniform"),
}
_LAYER_SCALE = 1e-5

# What the three modules call by other values than the defaults of the fields.
_MOSS = {
    "features": 320,
    "hidden": 128,
    "window": (5, 9, 9),
    "extraction_width": 64,
    "integration_widths": (64, 64, 128),
    "encoders": 2,
    "initialization": "uniform",
}
_RLDX = {
    "features": 1152,
    "hidden": 512,
    "window": (5, 9, 9),
    "extraction_width": 256,
    "integration_widths": (256, 256, 512),
    "temporal_padding": "replicate",
    "integration": "lite",
    "output": "linear",
    "epsilon": 1e-6,
}
_OPENTAU = {**_RLDX, "hidden": 256, "norm": "group", "zero_start": True}

_gelu = functools.partial(nn.gelu, approximate=False)


class TokenMotion(nn.Module):
    """Motion features of the tokens of a clip, computed from their spatio-temporal self-similarity (STSS).

    One encoder is: LayerNorm, Linear to ``hidden`` channels, STSS of these, 1x1 convolution over its window (the same
    for every temporal offset), integration over space and offsets, Linear. Each further encoder reads the result of the
    one before it, and the results are summed. The caller adds the block's result to its own features.

    A window of one frame, L = 1, compares with the previous frame, and the first frame with itself. Offsets that leave
    the map compare with zeros. Sows ``stss0``, ``stss1``, .. (b, t, h, w, l, u, v), one per encoder, float32 at least.

    Unlike the three modules, the block computes lengths, scores and softmax in float32 at least (MOSS divides by zero
    in float16), gives a feature of zero length no gradient, and never shares batch statistics between devices.

    Attributes:
        features: channels of the result.
        hidden: channels that are compared.
        window: (L, U, V) of the self-similarity, odd. U and V are at most ``2 * min(h, w) + 1``.
        extraction_width: channels of the 1x1 convolution over the U * V similarities.
        integration_widths: channels of the three 3x3 convolutions of ``full``; ``lite`` has the last one only.
        encoders: number of encoders.
        similarity: ``cosine``; ``dot``, inner products over the square root of ``hidden``; ``dot_softmax``, the same
            with a softmax over the cells of each temporal offset that lie on the map.
        temporal_padding: for frames outside the clip: ``zero``, features of zeros; ``replicate``, the first or the
            last frame.
        norm: ``batch``, with PyTorch's statistics; ``group``, one group per clip, in the extraction also per temporal
            offset. RLDX-1 calls it layer norm.
        integration: ``full``, two 3x3 convolutions per temporal offset and one over all; ``lite``, one 1x1 convolution
            over all, without norm.
        output: ``none``; ``linear``, a Linear from ``hidden`` channels after the sum; ``layer_scale``, a factor per
            channel.
        epsilon: of the LayerNorm.
        zero_start: start as zero: the Linear of ``linear``, the factors of ``layer_scale``, or, for ``none``, the last
            Linear of each encoder. Otherwise ``layer_scale`` starts at 1e-5.
        dtype: compute dtype.
        initialization: ``normal``, as in RLDX-1 and OpenTau; ``uniform``, PyTorch's default, as in MOSS.

    Raises:
        ValueError: for a field that is out of its range, or an unknown name.

    Source: the public modules CorrelationSideTuning, ``MOSSBlock``; RLDX-1 and OpenTau, ``MotionModule``.

    >>> block = TokenMotion.opentau(features=8, hidden=4, window=(3, 3, 3), integration_widths=(4, 4, 4))
    >>> tokens = jnp.ones((1, 2 * 3 * 4, 8))
    >>> variables = block.init(jax.random.key(0), tokens, grid=(2, 3, 4), train=False)
    >>> block.apply(variables, tokens, grid=(2, 3, 4), train=False).shape
    (1, 24, 8)
    """

    features: Channels
    hidden: Channels
    window: tuple[OddSide, OddSide, OddSide]
    extraction_width: Channels
    integration_widths: tuple[Channels, Channels, Channels]
    encoders: Annotated[int, Range(1, 64)] = 1
    similarity: str = "cosine"
    temporal_padding: str = "zero"
    norm: str = "batch"
    integration: str = "full"
    output: str = "none"
    epsilon: Positive = 1e-5
    zero_start: bool = False
    dtype: jnp.dtype = jnp.float32
    initialization: str = "normal"

    @classmethod
    def moss(cls, **fields: Any) -> "TokenMotion":
        """Return the block of MOSS for ViT-B/16, with the given fields in place of its own."""
        return cls(**{**_MOSS, **fields})

    @classmethod
    def rldx(cls, **fields: Any) -> "TokenMotion":
        """Return the block of RLDX-1, with the given fields in place of its own."""
        return cls(**{**_RLDX, **fields})

    @classmethod
    def opentau(cls, **fields: Any) -> "TokenMotion":
        """Return the block of OpenTau, which starts as zero, with the given fields in place of its own."""
        return cls(**{**_OPENTAU, **fields})

    def __post_init__(self) -> None:
        check_fields(self)
        for field, names in _CHOICES.items():
            if getattr(self, field) not in names:
                raise ValueError(f"{field} must be one of {', '.join(names)}; got {shown(getattr(self, field))}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b n c"], *, grid: Grid, train: bool, mask: Bool[Array, "b t"] | None = None
    ) -> Float[Array, "b n d"]:
        """Return the residual to add to the tokens, (b, n, features) in ``dtype``.

        Args:
            tokens: tokens of whole clips, n = t * h * w of them, frame by frame and row by row, without class tokens.
            grid: (t, h, w), numbers that are known when the call is traced.
            train: normalise with batch statistics and store them.
            mask: True for frames that only pad the clip's history. They are replaced by the first real frame; the last
                frame counts as real. Their residual is computed too.

        Raises:
            ValueError: for tokens, a mask or a window that do not fit the grid, or tokens of another width than the
                variables.
        """
        self._check_call(tokens, grid, mask)
        x = tokens.reshape(tokens.shape[0], *grid, tokens.shape[-1]).astype(self.dtype)
        if mask is not None:
            x = _fill_padded(x, mask)
        results = []
        for index in range(self.encoders):
            x = self._encode(x, train=train, name=f"encoder{index}")
            results.append(x)
        x = functools.reduce(jnp.add, results)
        if self.output == "linear":
            x = self._linear(x, self.features, zero=self.zero_start, name="out_proj")
        elif self.output == "layer_scale":
            start = nn.initializers.constant(0 if self.zero_start else _LAYER_SCALE)
            scale = self.param("layerscale", start, (self.features,), at_least_float32(self.dtype))
            x = x * scale.astype(self.dtype)[None, None, None, None]
        return x.reshape(*tokens.shape[:2], self.features)

    def _check_call(self, tokens: jax.Array, grid: Grid, mask: jax.Array | None) -> None:
        if len(grid) != 3 or not all(isinstance(size, int | np.integer) and size > 0 for size in grid):
            raise ValueError(f"grid must be three positive integers (t, h, w) known when traced; got {shown(grid)}")
        frames, height, width = grid
        if tokens.ndim != 3 or tokens.shape[1] != math.prod(grid):
            raise ValueError(
                f"tokens must be (b, t * h * w, c) without class tokens, with {math.prod(grid)} tokens for the grid "
                f"{tuple(grid)}; got {tokens.shape}"
            )
        largest = 2 * min(height, width) + 1
        for name, side in zip("UV", self.window[1:], strict=True):
            if side > largest:
                raise ValueError(
                    f"window side {name} = {side} is above 2 * min(h, w) + 1 = {largest} of the grid {tuple(grid)}: "
                    "make the window smaller"
                )
        if mask is not None and (mask.shape != (tokens.shape[0], frames) or mask.dtype != bool):
            raise ValueError(
                f"mask must be (b, t) bool, {(tokens.shape[0], frames)}, True for padded frames; "
                f"got {mask.shape} {mask.dtype}"
            )
        norm = self.variables.get("params", {}).get("encoder0_ln_pre")
        if norm is not None and norm["scale"].shape != tokens.shape[-1:]:
            raise ValueError(
                f"the variables are for tokens of {norm['scale'].shape[-1]} channels; got {tokens.shape[-1]}"
            )

    def _encode(self, x: jax.Array, *, train: bool, name: str) -> jax.Array:
        """Encode features once: (b, t, h, w, c) -> (b, t, h, w, d)."""
        layer = functools.partial(self._layer, train=train)
        types = {"dtype": self.dtype, "param_dtype": at_least_float32(self.dtype)}
        x = nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name=f"{name}_ln_pre", **types)(x)
        x = self._linear(x, self.hidden, name=f"{name}_in_proj")
        stss = self._transform(x)
        wide = stss.astype(at_least_float32(stss.dtype))
        self.sow("intermediates", name.replace("encoder", "stss"), wide, reduce_fn=lambda _, new: new)
        # One map (h, w) per frame and temporal offset: (b, t, l, h, w, u * v).
        x = jnp.moveaxis(stss.reshape(*stss.shape[:5], -1), 4, 2)
        x = layer(x, self.extraction_width, name=f"{name}_extraction")
        first, second, last = self.integration_widths
        if self.integration == "full":
            x = layer(x, first, side=3, name=f"{name}_integration0")
            x = layer(x, second, side=3, name=f"{name}_integration1")
            x = layer(_fold_offsets(x), last, side=3, name=f"{name}_integration2")
        else:
            x = layer(_fold_offsets(x), last, norm=False, name=f"{name}_fuse")
        features = self.hidden if self.output == "linear" else self.features
        return self._linear(x, features, zero=self.zero_start and self.output == "none", name=f"{name}_out_proj")

    def _transform(self, x: jax.Array) -> jax.Array:
        """Self-similarity transformation: (b, t, h, w, c) -> (b, t, h, w, l, u, v)."""
        compare = functools.partial(self_similarity, window=self.window, temporal_padding=self.temporal_padding)
        if self.window[0] == 1:
            compare = functools.partial(compare, offsets=(-1,), temporal_padding="replicate")
        if self.similarity == "cosine":
            # Rounded to what the extraction reads before the windows are picked, which in bfloat16 halves their bytes.
            return compare(unit_length(x), dtype=self.dtype)
        scores = compare(x) / math.sqrt(self.hidden)
        if self.similarity == "dot":
            return scores
        # A frame of zeros outside the clip has a score of 0 everywhere: its weights are uniform.
        on_map = window_exists(1, *x.shape[2:4], window=(1, *self.window[1:]))[0, :, :, 0]
        scores = jnp.where(on_map[None, None, :, :, None], scores, -jnp.inf)
        return nn.softmax(scores, axis=(-2, -1))

    def _layer(
        self, x: jax.Array, features: int, *, train: bool, name: str, side: int = 1, norm: bool = True
    ) -> jax.Array:
        """Apply a convolution over (h, w), the norm and GELU."""
        init = _uniform_fan_in if self.initialization == "uniform" else kaiming_normal_fan_out
        x = Conv(
            features, (side, side), padding=(side // 2,) * 2, kernel_init=init, dtype=self.dtype, name=f"{name}_conv"
        )(x)
        if not norm:
            return _gelu(x)
        if self.norm == "batch":
            return _gelu(BatchNorm(dtype=self.dtype, name=f"{name}_norm")(x, train=train))
        # Over all axes but the clips and, before the fold, the temporal offsets.
        group = nn.LayerNorm(
            epsilon=1e-5,
            reduction_axes=(1, -3, -2, -1),
            feature_axes=-1,
            use_fast_variance=False,
            dtype=self.dtype,
            param_dtype=at_least_float32(self.dtype),
            name=f"{name}_norm",
        )
        return _gelu(group(x))

    def _linear(self, x: jax.Array, features: int, *, name: str, zero: bool = False) -> jax.Array:
        if zero:
            kernel_init = bias_init = nn.initializers.zeros
        elif self.initialization == "uniform":
            kernel_init, bias_init = _uniform_fan_in, _uniform(1 / math.sqrt(x.shape[-1]))
        else:
            kernel_init, bias_init = nn.initializers.normal(0.02), nn.initializers.zeros
        types = {"dtype": self.dtype, "param_dtype": at_least_float32(self.dtype)}
        return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, name=name, **types)(x)

    @nn.nowrap
    def variable_shapes(self, channels: int | None = None) -> dict:
        """Return shape and dtype of every variable, for tokens of ``channels`` channels; None for ``features``."""
        side = max(self.window[1:]) // 2 + 1
        tokens = jax.ShapeDtypeStruct((1, side * side, channels or self.features), self.dtype)
        init = functools.partial(self.init, grid=(1, side, side), train=False)
        return dict(jax.eval_shape(lambda tokens: init(jax.random.key(0), tokens), tokens))

    official_names: ClassVar[StandaloneNames] = StandaloneNames(
        (
            (r"encoder(\d+)_(ln_pre|in_proj|out_proj)", r"stss_encoders.\1.\2"),
            (r"encoder(\d+)_extraction_conv", r"stss_encoders.\1.stss_extraction.conv0.0"),
            (r"encoder(\d+)_extraction_norm", r"stss_encoders.\1.stss_extraction.conv0.1"),
            (r"encoder(\d+)_integration2_conv", r"stss_encoders.\1.stss_integration.conv2_fuse.1"),
            (r"encoder(\d+)_integration2_norm", r"stss_encoders.\1.stss_integration.conv2_fuse.2"),
            (r"encoder(\d+)_integration(\d)_conv", r"stss_encoders.\1.stss_integration.conv\2.0"),
            (r"encoder(\d+)_integration(\d)_norm", r"stss_encoders.\1.stss_integration.conv\2.1"),
            (r"encoder(\d+)_fuse_conv", r"stss_encoders.\1.stss_integration.fuse.1"),
        ),
        three_dimensional=r".*_conv",
        root="stss_encoders.",
        input_width=(("params", "encoder0_ln_pre", "scale"), ("params", "encoder0_ln_pre", "bias")),
        translate=lambda name: re.sub(r"(?<![^.])selfy_layers(\d*)\.(\d+)\.", _of_old_moss, name),
    )


def _of_old_moss(match: re.Match) -> str:
    """Translate the start of a name in an old file of MOSS, whose encoders count from 1, the first without number."""
    return f"moss_layers.{match[2]}.stss_encoders.{int(match[1] or 1) - 1}."


def _fill_padded(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Replace every padded frame of (b, t, h, w, c) by the first real one; the last frame counts as real."""
    frames = x.shape[1]
    padded = mask & (jnp.arange(frames) < frames - 1)[None]
    first = jnp.argmin(padded, axis=1)
    expand = (slice(None), slice(None), None, None, None)
    return jnp.where(padded[expand], jnp.take_along_axis(x, first[:, None][expand], axis=1), x)


def _fold_offsets(x: jax.Array) -> jax.Array:
    """Fold the temporal offsets into the channels, an offset's channels together: (b, t, l, h, w, c) to 5 axes."""
    x = jnp.moveaxis(x, 2, 4)
    return x.reshape(*x.shape[:4], -1)


def _uniform(bound: float) -> Callable[..., jax.Array]:
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


# PyTorch's default for kernels: uniform up to one over the root of the inputs of one result.
_uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
