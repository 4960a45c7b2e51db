"""MotionSqueeze: displacement between neighbouring frames, learned inside a network."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks.protocol import Operations, Shape, TensorNames
from motion_jax.layers import BatchNorm, Conv
from motion_jax.ops import l2_normalize, local_correlation, match

# Forms of the feature transformation and their hidden channels.
TRANSFORMATIONS: dict[str, tuple[int, ...]] = {
    "depthwise_separable": (16, 32, 64),
    "1x(1,1)": (),
    "1x(3,3)": (),
    "4x(3,3)": (64, 64, 64),
}
# Whether a frame is matched with the next one only, or with the one before it too; by the suffix of what is sown.
DIRECTIONS: dict[str, tuple[str, ...]] = {"forward": ("",), "forward_and_backward": ("", "_backward")}
# The most frames that stand side by side in the feature transformation: 8 times its 16 channels fill a row of a TPU.
FRAMES_TOGETHER = 8
FUSIONS = ("add", "multiply", "concatenate", "motion")


class MotionSqueeze(nn.Module):
    """The MS module: correlation, displacement estimation and feature transformation, fused with its input.

    Sows ``displacement`` (b, t-1, h, w, 2), (dx, dy) in units of the radius, and ``confidence`` (b, t-1, h, w, 1), of
    each frame but the last towards the next; with backward pairs also ``displacement_backward`` and
    ``confidence_backward``, of each frame but the first towards the one before. A clip of one frame has no pair: its
    motion tensor is zero.

    Attributes:
        reduction: channels the features are reduced to before matching; None matches the input itself.
        radius: largest displacement searched, in steps of ``dilation`` cells; the window is ``2 * radius + 1`` wide
            (P = 15).
        sigma: width of the Gaussian around the best match, in steps.
        temperature: multiplier of the scores before the softmax.
        widths: hidden channels of the feature transformation, one less than its layers; None for the form's own.
        transformation: form of the feature transformation: ``depthwise_separable`` (hidden 16, 32, 64), or plain
            convolutions ``1x(1,1)``, ``1x(3,3)``, ``4x(3,3)`` (hidden 64, 64, 64), of the supplement's Table 1.
        kernel: keep the soft-argmax near the best match with the Gaussian; False for the plain soft-argmax.
        confidence: give the transformation the confidence beside the displacement.
        directions: ``forward``, or ``forward_and_backward``, which adds the pairs of each frame with the one before it
            as further channels.
        fusion: how the motion features join the input: ``add`` (the papers'), ``multiply``, ``concatenate`` (and a 1x1
            convolution back to the input's channels), or ``motion``, which drops the input.
        dilation: cells between neighbouring displacements of the window.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; normalisation, matching and displacement are float32 at least.

    Raises:
        ValueError: for an unknown transformation, direction or fusion, or widths that do not fit the transformation.

    Source: Kwon et al., MotionSqueeze (ECCV 2020), section 3, and its supplement, Table 1; resnet.py of the official
    code, ``flow_computation`` and ``flow_refinement``. Backward pairs and the fusions other than ``add`` are ours.
    """

    reduction: int | None = 64
    radius: int = 7
    sigma: float = 5.0
    temperature: float = 100.0
    widths: tuple[int, ...] | None = None
    transformation: str = "depthwise_separable"
    kernel: bool = True
    confidence: bool = True
    directions: str = "forward"
    fusion: str = "add"
    dilation: int = 1
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Fuse motion features with ``x``; the result has its shape and ``dtype``."""
        self._check_fields()
        motion = self._motion_tensor(self._reduce_channels(x, train=train))
        return self._fuse(x.astype(self.dtype), self._transform_features(motion, x.shape[-1], train=train))

    def _check_fields(self) -> None:
        for field, known in (("transformation", TRANSFORMATIONS), ("directions", DIRECTIONS), ("fusion", FUSIONS)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}; got {getattr(self, field)!r}")
        own = TRANSFORMATIONS[self.transformation]
        if self.widths is not None and self.transformation != "depthwise_separable" and len(self.widths) != len(own):
            raise ValueError(
                f"the transformation {self.transformation} has {len(own)} hidden widths; got widths={self.widths}"
            )

    def _reduce_channels(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.reduction is None:
            return x
        x = Conv(self.reduction, (1, 1), dtype=self.dtype, name="reduction_conv")(x)
        return nn.relu(self.norm(dtype=self.dtype, name="reduction_bn")(x, train=train))

    def _motion_tensor(self, x: jax.Array) -> jax.Array:
        """Displacement, and confidence, of every frame in every direction: (b, t, h, w, 3 or 2 per direction)."""
        return jnp.concatenate([self._motion_towards(x, suffix) for suffix in DIRECTIONS[self.directions]], axis=-1)

    def _motion_towards(self, x: jax.Array, suffix: str) -> jax.Array:
        """Motion towards the next frame, the last pair repeated for the last frame; or to the one before, likewise."""
        batch, frames, *space, channels = x.shape
        x = x.reshape(batch, frames, -1, channels)
        backward = suffix == "_backward"
        pair = (x[:, 1:], x[:, :-1]) if backward else (x[:, :-1], x[:, 1:])
        compare = functools.partial(
            match,
            radius=self.radius,
            sigma=self.sigma if self.kernel else None,
            temperature=self.temperature,
            dilation=self.dilation,
            cosine=True,
        )
        # On a TPU the gradient matches again rather than keep the scores: they fit the chip's fast memory.
        displacement, confidence = jax.lax.platform_dependent(
            *(half.reshape(-1, *space, channels) for half in pair), tpu=jax.checkpoint(compare), default=compare
        )
        displacement = displacement.reshape(batch, frames - 1, *space, 2)
        confidence = confidence.reshape(batch, frames - 1, *space, 1)
        self.sow("intermediates", f"displacement{suffix}", displacement, reduce_fn=lambda _, new: new)
        self.sow("intermediates", f"confidence{suffix}", confidence, reduce_fn=lambda _, new: new)
        motion = jnp.concatenate([displacement, confidence], axis=-1) if self.confidence else displacement
        if frames == 1:
            return jnp.zeros((batch, 1, *motion.shape[2:]), motion.dtype)
        ends = (motion[:, :1], motion) if backward else (motion, motion[:, -1:])
        return jnp.concatenate(ends, axis=1)

    def _transform_features(self, x: jax.Array, features: int, *, train: bool) -> jax.Array:
        """Convolutions of the chosen form, BN and ReLU after each of them, up to ``features`` channels."""
        hidden = TRANSFORMATIONS[self.transformation] if self.widths is None else self.widths
        widths = (*hidden, features)
        if self.transformation == "depthwise_separable":
            return self._transform_separably(x, widths, train=train)
        side = 1 if self.transformation == "1x(1,1)" else 3
        for index, width in enumerate(widths, start=1):
            x = self._conv_bn_relu(x, width, side, name=f"transform{index}_conv", train=train)
        return x

    def _transform_separably(self, x: jax.Array, widths: tuple[int, ...], *, train: bool) -> jax.Array:
        """A depth-wise and a 1x1 convolution to each of the widths.

        Up to the last of them, frames of a clip stand side by side along the channels, which are few: (n, h, w, f c).
        """
        batch, frames, height, width, channels = x.shape
        together = max(n for n in range(1, FRAMES_TOGETHER + 1) if frames % n == 0)
        x = x.reshape(batch * frames // together, together, height, width, channels)
        x = jnp.moveaxis(x, 1, 3).reshape(*x.shape[:1], height, width, together * channels)
        for index, after in enumerate(widths, start=1):
            name, side = f"transform{index}", 7 if index == 1 else 3
            options = {"train": train, "side_by_side": together}
            x = self._conv_bn_relu(x, channels, side, name=f"{name}_depthwise", depthwise=True, **options)
            if index == len(widths):
                x = jnp.moveaxis(x.reshape(*x.shape[:3], together, channels), 3, 1)
                x = x.reshape(batch, frames, height, width, channels)
                options["side_by_side"] = 1
            x = self._conv_bn_relu(x, after, 1, name=f"{name}_pointwise", **options)
            channels = after
        return x

    def _conv_bn_relu(
        self,
        x: jax.Array,
        features: int,
        side: int,
        *,
        name: str,
        train: bool,
        depthwise: bool = False,
        side_by_side: int = 1,
    ) -> jax.Array:
        conv = Conv(
            features,
            (side, side),
            padding=(side // 2, side // 2),
            depthwise=depthwise,
            side_by_side=side_by_side,
            dtype=self.dtype,
            name=name,
        )
        norm = self.norm(dtype=self.dtype, side_by_side=side_by_side, name=f"{name}_bn")
        return nn.relu(norm(conv(x), train=train))

    def _fuse(self, x: jax.Array, motion: jax.Array) -> jax.Array:
        if self.fusion == "add":
            return x + motion
        if self.fusion == "multiply":
            return x * motion
        if self.fusion == "concatenate":
            both = jnp.concatenate([x, motion], axis=-1)
            return Conv(x.shape[-1], (1, 1), dtype=self.dtype, name="fusion_conv")(both)
        return motion

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
        sources = batch * (frames - 1) * len(DIRECTIONS[self.directions]) * height * width
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
        if self.reduction is not None:
            _, state = self.clone(parent=None, name=None).apply(
                variables,
                x,
                train=False,
                capture_intermediates=lambda module, _: module.name == "reduction_bn",
                mutable=["intermediates"],
            )
            x = nn.relu(state["intermediates"]["reduction_bn"]["__call__"][0])
        x = l2_normalize(x)
        pairs = [(x[:, :-1], x[:, 1:])]
        if "_backward" in DIRECTIONS[self.directions]:
            pairs.append((x[:, 1:], x[:, :-1]))
        return jnp.stack([self._margin(*pair) for pair in pairs]).min(axis=0)

    @nn.nowrap
    def _margin(self, source: jax.Array, target: jax.Array) -> jax.Array:
        batch = source.shape[0]
        source, target = (x.reshape(-1, *x.shape[2:]) for x in (source, target))
        scores = nn.relu(local_correlation(source, target, radius=self.radius, dilation=self.dilation))
        scores = scores.reshape(batch, -1, (2 * self.radius + 1) ** 2)
        best, second = jnp.moveaxis(jax.lax.top_k(scores, 2)[0], -1, 0)
        # The choice has no effect where all scores are zero.
        return jnp.where(best > 0, best - second, jnp.inf).min(axis=1)
