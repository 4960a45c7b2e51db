"""The layers of every network here: Conv, BatchNorm, and both with an activation.

Parameters and statistics are float32 at least, whatever the compute dtype. Inputs may have any number of leading axes:
a 2-D convolution of a clip (b, t, h, w, c) works frame by frame.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from motion_jax import kernels

kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """Return the dtype of parameters, statistics and sums where the compute dtype is ``dtype``."""
    return jnp.promote_types(dtype, jnp.float32)


class Conv(nn.Module):
    """Convolution without bias, ``(*lead, *space, c) -> (*lead, *space', features)`` in ``dtype``.

    Padding is symmetric and given as numbers, as in PyTorch; ``SAME`` would pad the other side at stride 2.

    Attributes:
        features: output channels.
        kernel_size: one number per spatial axis; these are the last axes before the channels.
        strides: one per spatial axis, or None for 1.
        padding: zeros added on both sides, one per spatial axis, or None for 0.
        depthwise: convolve each channel by itself (``features`` must equal the input's channels).
        maps: how many maps the input holds side by side along its channels (see ``ops.pack_frames``). Each is
            convolved with the same kernel; ``features`` counts the channels of one.
        kernel_init: of the kernel.
        dtype: of the computation and the result.
    """

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: tuple[int, ...] | None = None
    depthwise: bool = False
    maps: int = 1
    kernel_init: nn.initializers.Initializer = kaiming_normal_fan_out
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank, channels = len(self.kernel_size), x.shape[-1] // self.maps
        if x.ndim <= rank:
            raise ValueError(f"a kernel {self.kernel_size} needs {rank} spatial axes and channels; got {x.shape}")
        if self.depthwise and channels != self.features:
            raise ValueError(f"a depth-wise Conv keeps the channels: features={self.features}, input {x.shape}")
        shape = (*self.kernel_size, 1 if self.depthwise else channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, at_least_float32(self.dtype))
        lead, x = x.shape[: x.ndim - rank - 1], x.reshape(-1, *x.shape[x.ndim - rank - 1 :]).astype(self.dtype)
        sizes = {"strides": self.strides or (1,) * rank, "padding": self.padding or (0,) * rank}
        y = kernels.convolution(x, kernel.astype(self.dtype), **sizes, depthwise=self.depthwise)
        return y.reshape(*lead, *y.shape[1:])


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last, with PyTorch's running statistics.

    In training the batch statistics normalise, and the running statistics move towards them: the variance by its
    unbiased estimate, as in PyTorch and unlike ``flax.linen.BatchNorm``. Sums are float32 at least.

    Attributes:
        momentum: share of the running statistics that is kept (PyTorch's momentum is one less this).
        epsilon: added to the variance.
        axis_name: mapped axis over which to synchronise the statistics; None keeps them per device.
        frozen: normalise with the running statistics in training too, and do not update them.
        maps: as of ``Conv``; the maps share statistics and parameters.
        dtype: of the result.
        scale_init: of the scale; zeros make a residual branch start as the identity.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    frozen: bool = False
    maps: int = 1
    dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise ``(*lead, c)``; ``train`` uses and stores batch statistics unless they are frozen."""
        scale, shift = self.scale_and_shift(x, train=train)
        # One multiplication and one addition, and the gradient keeps the input alone, not the centred input beside it.
        return (x.astype(scale.dtype) * scale + shift).astype(self.dtype)

    @nn.compact
    def scale_and_shift(self, x: jax.Array, *, train: bool, zeros: int = 0) -> tuple[jax.Array, jax.Array]:
        """Return scale and shift per channel, broadcastable to ``x``, so that y = x * scale + shift.

        ``zeros`` is the number of further elements per channel, all 0, that the batch statistics include.
        """
        shape, dtype = (x.shape[-1] // self.maps,), at_least_float32(self.dtype)
        scale = self.param("scale", self.scale_init, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, dtype)
        mean, var = running_mean.value, running_var.value
        if train and not self.frozen:
            x, axis_name = x.astype(at_least_float32(x.dtype)), None if self.is_initializing() else self.axis_name
            mean, var, count = kernels.mean_and_variance(x, maps=self.maps, zeros=zeros, axis_name=axis_name)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_var, var * (count / max(count - 1, 1)))):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new
        scale = scale * jax.lax.rsqrt(var + self.epsilon)
        scale, shift = (kernels.repeat_per_map(each, self.maps, ndim=x.ndim) for each in (scale, bias - mean * scale))
        return scale, shift


STREAM = "stream"
"""The collection that holds what a causal network remembers of the frames before. Clips are whole without it."""


def is_streaming(module: nn.Module) -> bool:
    """Return whether a call continues a stream (``mutable=["stream"]``), so that its clip may follow other frames."""
    return module.is_mutable_collection(STREAM) and not module.is_initializing()


def past_frames(module: nn.Module, x: jax.Array, count: int, *, name: str) -> jax.Array:
    """Return the ``count`` frames before ``x`` (b, t, h, w, c), and remember the last ones of ``x`` in a stream.

    Frames before the first one are zeros, as are all of them outside a stream.

    Raises:
        ValueError: if the state of the stream is of another batch or size.
    """
    batch, _, height, width, channels = x.shape
    shape = (batch, count, height, width, channels)
    if not is_streaming(module):
        return jnp.zeros(shape, x.dtype)
    # Four axes, which every runtime of an export takes.
    flat = (batch, count, height * width, channels)
    memory = module.variable(STREAM, name, jnp.zeros, flat, x.dtype)
    if memory.value.shape != flat:
        raise ValueError(
            f"the state of the stream holds {memory.value.shape} (batch, frames, cells, channels) where these frames "
            f"have {flat}: make it with streaming.init for the batch and the size of the frames"
        )
    past = memory.value.reshape(shape)
    memory.value = jnp.concatenate([past, x], axis=1)[:, -count:].reshape(flat)
    return past


def frames_seen(module: nn.Module, x: jax.Array, *, name: str) -> jax.Array:
    """Return the number of frames before ``x`` (b, t, ...) in each stream (b,), and count those of ``x``.

    It is 0 outside a stream.
    """
    if not is_streaming(module):
        return jnp.zeros(x.shape[0], jnp.int32)
    count = module.variable(STREAM, name, jnp.zeros, (x.shape[0],), jnp.int32)
    seen = count.value
    # A day of video has 2.6 million frames; the limit keeps a longer stream from wrapping.
    count.value = jnp.minimum(seen + x.shape[1], 2**30)
    return seen


@dataclasses.dataclass(frozen=True)
class ConvBNAct:
    """Convolution, normalisation and activation, as submodules of the module in whose compact method it is called.

    Attributes:
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype.
        train: use and store batch statistics.
    """

    norm: Callable[..., nn.Module]
    dtype: jnp.dtype
    train: bool

    def __call__(
        self,
        x: jax.Array,
        features: int,
        kernel_size: tuple[int, ...],
        *,
        name: str | tuple[str, str],
        act: Callable[[jax.Array], jax.Array] | None = nn.relu,
        maps: int = 1,
        scale_init: nn.initializers.Initializer = nn.initializers.ones,
        **options: bool | tuple[int, ...],
    ) -> jax.Array:
        """Apply ``<name>_conv`` and ``<name>_bn``, or the two names given, and ``act``; padding keeps the size."""
        conv, bn = (f"{name}_conv", f"{name}_bn") if isinstance(name, str) else name
        options = {"padding": tuple(side // 2 for side in kernel_size), **options}
        packed = {"maps": maps} if maps > 1 else {}
        x = Conv(features, kernel_size, dtype=self.dtype, name=conv, **packed, **options)(x)
        x = self.norm(dtype=self.dtype, scale_init=scale_init, name=bn, **packed)(x, train=self.train)
        return x if act is None else act(x)
