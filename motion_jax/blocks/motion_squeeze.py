"""MotionSqueeze: displacement between neighbouring frames as a feature inside a network."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks.protocol import Operations, Shape, Similarities, TensorNames
from motion_jax.fields import Channels, OddSide, Positive, Range, check_fields
from motion_jax.layers import BatchNorm, Conv, ConvBNAct, frames_seen, is_streaming, past_frames
from motion_jax.ops import l2_normalize, local_correlation, match, pack_frames, unpack_frames
from motion_jax.text import shown

# Forms of the feature transformation and their hidden channels.
TRANSFORMATIONS: dict[str, tuple[int, ...]] = {
    "depthwise_separable": (16, 32, 64),
    "1x(1,1)": (),
    "1x(3,3)": (),
    "4x(3,3)": (64, 64, 64),
}
# Suffixes of the names of sown arrays, by direction: pairs with the next frame, and with the frame before.
DIRECTIONS: dict[str, tuple[str, ...]] = {"forward": ("",), "forward_and_backward": ("", "_backward")}
FUSIONS = ("add", "multiply", "concatenate", "motion")


class MotionSqueeze(nn.Module):
    """The MS module: correlation, displacement estimation and feature transformation, fused with its input.

    Sows ``displacement`` (b, t-1, h, w, 2), (dx, dy) in units of the radius, and ``confidence`` (b, t-1, h, w, 1), of
    each frame but the last towards the next; with backward pairs also ``displacement_backward`` and
    ``confidence_backward``, of each frame but the first towards the one before. A clip of one frame has no pair: its
    motion tensor is zero.

    Attributes:
        reduction: channels the features are reduced to before matching; None matches the input itself.
        reduction_kernel: side of the reduction's kernel. The papers' 1 compares cells one by one; 3 compares each cell
            with its surroundings, which leaves fewer false matches where features have few channels.
        radius: largest displacement searched, in steps of ``dilation`` cells; the window is ``2 * radius + 1`` wide
            (P = 15).
        sigma: width of the Gaussian around the best match, in steps.
        temperature: multiplier of the scores before the softmax.
        widths: hidden channels of the feature transformation, one less than its layers; None for the form's own.
        transformation: form of the feature transformation: ``depthwise_separable`` (hidden 16, 32, 64), or plain
            convolutions ``1x(1,1)``, ``1x(3,3)``, ``4x(3,3)`` (hidden 64, 64, 64), of the supplement's Table 1.
        kernel: keep the soft-argmax near the best match with the Gaussian; False for the plain soft-argmax.
        confidence: feed the confidence to the transformation beside the displacement.
        directions: ``forward``, or ``forward_and_backward``, which adds the pairs of each frame with the one before it
            as further channels.
        fusion: how the motion features join the input: ``add`` (the papers'), ``multiply``, ``concatenate`` (and a 1x1
            convolution back to the input's channels), or ``motion``, which drops the input.
        dilation: cells between neighbouring displacements of the window.
        causal: pair each frame with the one before it, not with the next: a frame gets the motion from the previous
            frame to it. The first frame is paired with itself; what is sown leaves out this pair, unless it is the
            only one.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; normalisation, matching and displacement are float32 at least.

    Raises:
        ValueError: for a field that is out of its range, an unknown transformation, direction or fusion, or widths
            that do not fit the transformation.

    Source: Kwon et al., MotionSqueeze (ECCV 2020), section 3, and its supplement, Table 1; resnet.py of the official
    code, ``flow_computation`` and ``flow_refinement``. Backward pairs, reduction kernels above 1 and the fusions other
    than ``add`` are ours.
    """

    reduction: Channels | None = 64
    reduction_kernel: OddSide = 1
    radius: Annotated[int, Range(1, 31)] = 7
    sigma: Positive = 5.0
    temperature: Positive = 100.0
    widths: tuple[Channels, ...] | None = None
    transformation: str = "depthwise_separable"
    kernel: bool = True
    confidence: bool = True
    directions: str = "forward"
    fusion: str = "add"
    dilation: Annotated[int, Range(1, 31)] = 1
    causal: bool = False
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_names()
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Fuse motion features with ``x``; the result has its shape and ``dtype``."""
        layer = ConvBNAct(self.norm, self.dtype, train)
        reduced = (
            x if self.reduction is None else layer(x, self.reduction, (self.reduction_kernel,) * 2, name="reduction")
        )
        batch, frames, *space, _ = x.shape
        before = self._frame_before(reduced) if self.causal else None
        motion = []
        for suffix in DIRECTIONS[self.directions]:
            source, target = _pairs_of_frames(reduced, before, backward=suffix == "_backward")
            # Correlation computation and displacement estimation (kernel-soft-argmax and confidence) in one operation.
            displacement, confidence = match(
                source,
                target,
                radius=self.radius,
                sigma=self.sigma if self.kernel else None,
                temperature=self.temperature,
                dilation=self.dilation,
                cosine=True,
            )
            pairs = frames if self.causal else frames - 1
            displacement = displacement.reshape(batch, pairs, *space, 2)
            confidence = confidence.reshape(batch, pairs, *space, 1)
            first = 1 if self.causal and not is_streaming(self) and frames > 1 else 0
            for name, value in (("displacement", displacement), ("confidence", confidence)):
                self.sow("intermediates", f"{name}{suffix}", value[:, first:], reduce_fn=lambda _, new: new)
            tensor = jnp.concatenate([displacement, confidence], axis=-1) if self.confidence else displacement
            motion.append(tensor if self.causal else _for_every_frame(tensor, backward=suffix == "_backward"))
        features = self._transform_features(layer, jnp.concatenate(motion, axis=-1), x.shape[-1])
        return self._fuse(x.astype(self.dtype), features)

    def _frame_before(self, x: jax.Array) -> jax.Array:
        """Return the frame before the clip (b, 1, h, w, c): the first frame itself at the start of a clip or stream."""
        seen = frames_seen(self, x, name="seen")
        past = past_frames(self, x, 1, name="reduced")
        return jnp.where((seen == 0)[:, None, None, None, None], x[:, :1], past)

    def _check_names(self) -> None:
        for field, known in (("transformation", TRANSFORMATIONS), ("directions", DIRECTIONS), ("fusion", FUSIONS)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}; got {shown(getattr(self, field))}")
        own = TRANSFORMATIONS[self.transformation]
        if self.widths is not None and self.transformation != "depthwise_separable" and len(self.widths) != len(own):
            raise ValueError(
                f"the transformation {self.transformation} has {len(own)} hidden widths; got widths={self.widths}"
            )

    def _transform_features(self, layer: ConvBNAct, x: jax.Array, features: int) -> jax.Array:
        """Feature transformation: convolutions of the chosen form, with BN and ReLU, up to ``features`` channels."""
        hidden = TRANSFORMATIONS[self.transformation] if self.widths is None else self.widths
        widths = (*hidden, features)
        if self.transformation == "depthwise_separable":
            return self._transform_separably(layer, x, widths)
        side = 1 if self.transformation == "1x(1,1)" else 3
        for index, width in enumerate(widths, start=1):
            x = layer(x, width, (side, side), name=(f"transform{index}_conv", f"transform{index}_conv_bn"))
        return x

    def _transform_separably(self, layer: ConvBNAct, x: jax.Array, widths: tuple[int, ...]) -> jax.Array:
        """Apply a depth-wise and a 1x1 convolution to each of the widths."""
        frames, channels = x.shape[1], x.shape[-1]
        x, maps = pack_frames(x)
        for index, width in enumerate(widths, start=1):
            side = 7 if index == 1 else 3
            depthwise, pointwise = f"transform{index}_depthwise", f"transform{index}_pointwise"
            x = layer(x, channels, (side, side), depthwise=True, maps=maps, name=(depthwise, f"{depthwise}_bn"))
            if index == len(widths):
                x, maps = unpack_frames(x, maps=maps, frames=frames), 1
            x = layer(x, width, (1, 1), maps=maps, name=(pointwise, f"{pointwise}_bn"))
            channels = width
        return x

    def _fuse(self, x: jax.Array, motion: jax.Array) -> jax.Array:
        """Fusion with the input."""
        if self.fusion == "add":
            return x + motion
        if self.fusion == "multiply":
            return x * motion
        if self.fusion == "concatenate":
            both = jnp.concatenate([x, motion], axis=-1)
            return Conv(x.shape[-1], (1, 1), dtype=self.dtype, name="fusion_conv")(both)
        return motion

    narrow_fields: ClassVar[Mapping[str, Any]] = {"reduction": 32, "widths": (8, 16, 16)}

    official_names: ClassVar[TensorNames] = TensorNames(
        (
            (r"reduction_conv", "chnl_reduction.0"),
            (r"reduction_bn", "chnl_reduction.1"),
            (r"transform(\d)_depthwise", r"flow_refinement.conv\1.0"),
            (r"transform(\d)_depthwise_bn", r"flow_refinement.conv\1.1"),
            (r"transform(\d)_pointwise", r"flow_refinement.conv\1.3"),
            (r"transform(\d)_pointwise_bn", r"flow_refinement.conv\1.4"),
        ),
        unused=("bn2",),
    )

    @nn.nowrap
    def operations(self, shape: Shape) -> Operations:
        """Return the cost of local correlation, 2 C - 1 per similarity of C channels.

        Source: the supplement, Tables 1 and 2 (33.7 G in ResNet-50).
        """
        batch, frames, height, width, features = shape
        channels = features if self.reduction is None else self.reduction
        sources = batch * (frames if self.causal else frames - 1) * len(DIRECTIONS[self.directions]) * height * width
        return Operations(correlation=sources * (2 * self.radius + 1) ** 2 * (2 * channels - 1))

    @classmethod
    def published_fields(cls, frames: int) -> Mapping[str, Any]:
        """Return the fields that the paper prints (section 3), the same for any number of frames."""
        return {"radius": cls.radius, "sigma": cls.sigma, "temperature": cls.temperature}

    @nn.nowrap
    def displacement_reach(self) -> int:
        """Return the largest displacement in cells."""
        return self.radius * self.dilation

    @nn.nowrap
    def match_margin(self, variables: Mapping[str, Any], x: Float[Array, "b t h w c"]) -> Float[Array, " b"]:
        """Return the smallest margin per clip between the best and the second-best match, over all positions."""
        x = self._compared(variables, x)
        before = x[:, :1] if self.causal else None
        pairs = [_pairs_of_frames(x, before, backward=bool(suffix)) for suffix in DIRECTIONS[self.directions]]
        return jnp.stack([self._margin(*pair, batch=x.shape[0]) for pair in pairs]).min(axis=0)

    @nn.nowrap
    def similarities(self, variables: Mapping[str, Any], x: Float[Array, "b t h w c"]) -> Similarities:
        """Return the rectified correlation with the next frame, and with the frame before if the block uses it."""
        x = self._compared(variables, x)
        offsets = (1,) if self.directions == "forward" else (-1, 1)
        values = jnp.stack([self._scores(x, offset) for offset in offsets], axis=4)
        sigma = self.sigma if self.kernel else None
        return Similarities(values, offsets, self.dilation, sigma, self.temperature, cosine=True)

    @nn.nowrap
    def _scores(self, x: jax.Array, offset: int) -> jax.Array:
        """Return scores (b, t, h, w, p, p) of each frame with the one at ``offset`` 1 or -1; 0 for a frame without."""
        batch, frames = x.shape[:2]
        source, target = _pairs_of_frames(x, None, backward=offset < 0)
        scores = nn.relu(local_correlation(source, target, radius=self.radius, dilation=self.dilation))
        scores = scores.reshape(batch, frames - 1, *scores.shape[1:])
        return jnp.pad(scores, [(0, 0), (0, 1) if offset > 0 else (1, 0), *[(0, 0)] * 4])

    @nn.nowrap
    def _compared(self, variables: Mapping[str, Any], x: jax.Array) -> jax.Array:
        """Return the normalised features that the block matches."""
        if self.reduction is not None:
            _, state = self.clone(parent=None, name=None).apply(
                variables,
                x,
                train=False,
                capture_intermediates=lambda module, _: module.name == "reduction_bn",
                mutable=["intermediates"],
            )
            x = nn.relu(state["intermediates"]["reduction_bn"]["__call__"][0])
        return l2_normalize(x)

    @nn.nowrap
    def _margin(self, source: jax.Array, target: jax.Array, *, batch: int) -> jax.Array:
        scores = nn.relu(local_correlation(source, target, radius=self.radius, dilation=self.dilation))
        scores = scores.reshape(batch, -1, (2 * self.radius + 1) ** 2)
        best, second = jnp.moveaxis(jax.lax.top_k(scores, 2)[0], -1, 0)
        # The choice has no effect where all scores are zero.
        return jnp.where(best > 0, best - second, jnp.inf).min(axis=1)


def _pairs_of_frames(x: jax.Array, before: jax.Array | None, *, backward: bool) -> tuple[jax.Array, jax.Array]:
    """Return frames and their next ones, or next ones and their frames, each (b * pairs, h, w, c).

    There are t - 1 pairs, and t with the frame ``before`` the clip.
    """
    x = x if before is None else jnp.concatenate([before, x], axis=1)
    batch, frames, *space, channels = x.shape
    # Flat positions while frames are picked: a TPU would pad rows of few cells.
    x = x.reshape(batch, frames, -1, channels)
    first, second = (half.reshape(-1, *space, channels) for half in (x[:, :-1], x[:, 1:]))
    return (second, first) if backward else (first, second)


def _for_every_frame(motion: jax.Array, *, backward: bool) -> jax.Array:
    """Repeat the last pair for the last frame, or the first for the first: (b, t-1, h, w, c) -> (b, t, h, w, c).

    Without any pair the motion of the only frame is zero.
    """
    if motion.shape[1] == 0:
        return jnp.zeros((motion.shape[0], 1, *motion.shape[2:]), motion.dtype)
    ends = (motion[:, :1], motion) if backward else (motion, motion[:, -1:])
    return jnp.concatenate(ends, axis=1)
