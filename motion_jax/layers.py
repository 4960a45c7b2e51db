"""The two layers every network here is made of: Conv and BatchNorm.

Both keep parameters and statistics in float32 at least, whatever the compute dtype, and both take any number of
leading axes: a clip (b, t, h, w, c) goes through a 2-D convolution frame by frame without being reshaped by the caller.
"""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Initializer = Callable[..., jax.Array]

kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which parameters, statistics and sums of ``dtype`` are kept."""
    return jnp.promote_types(dtype, jnp.float32)


class Conv(nn.Module):
    """Convolution over the last axes before the channels, as many as ``kernel_size`` has.

    ``(*lead, *space, c) -> (*lead, *space', features)`` in ``dtype``. Padding is symmetric and given as numbers, as in
    PyTorch; ``SAME`` would pad the other side at stride 2.

    A kernel of size 1 is a matrix product. On a CPU so is one that reaches every cell from every cell, as 3x3 does on a
    map of 2x2, and a depth-wise one is a sum of shifted products: XLA's own convolution is many times slower there. On
    a TPU it moves the fewest bytes (docs/performance.md).

    Attributes:
        features: output channels.
        kernel_size: one number per spatial axis.
        strides: one per spatial axis, or None for 1.
        padding: zeros added on both sides, one per spatial axis, or None for 0.
        depthwise: convolve each channel by itself (``features`` must equal the input's channels).
        side_by_side: how many maps the channels of the input hold one after the other, each convolved with the same
            kernel to as many in the result: of few channels each, they fill a TPU's rows of 128 together. For
            depth-wise kernels and those of size 1. ``features`` are those of one map.
        banded: on a CPU, compute it as a matrix product over whole rows of the last spatial axis (see ``_banded``):
            faster for many windows of a few cells with few channels, such as SELFY's.
        use_bias: add a bias per output channel.
        dtype: of the computation and the result.
        kernel_init: of the kernel, shaped (*kernel_size, in, out), with 1 for ``in`` when depth-wise.
    """

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: tuple[int, ...] | None = None
    depthwise: bool = False
    side_by_side: int = 1
    banded: bool = False
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = kaiming_normal_fan_out

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank = len(self.kernel_size)
        strides = self.strides or (1,) * rank
        padding = self.padding or (0,) * rank
        channels = x.shape[-1] // self.side_by_side
        if x.ndim < rank + 1:
            raise ValueError(
                f"Conv with a kernel {self.kernel_size} needs {rank} spatial axes and channels; got {x.shape}"
            )
        if self.depthwise and channels != self.features:
            raise ValueError(f"a depth-wise Conv keeps the channels: features={self.features}, input {x.shape}")
        inputs = 1 if self.depthwise else channels
        kernel = self.param(
            "kernel", self.kernel_init, (*self.kernel_size, inputs, self.features), at_least_float32(self.dtype)
        ).astype(self.dtype)
        lead, x = x.shape[: x.ndim - rank - 1], x.reshape(-1, *x.shape[x.ndim - rank - 1 :]).astype(self.dtype)
        sizes = {"strides": strides, "padding": padding}
        is_product = math.prod(self.kernel_size) == 1 and not any(padding) and not self.depthwise
        if self.side_by_side > 1 and not (self.depthwise or is_product):
            raise ValueError("side_by_side is for depth-wise convolutions and kernels of size 1 without padding")
        form = functools.partial(_convolve, **sizes, groups=x.shape[-1] if self.depthwise else 1)
        form_on_cpu = None
        if self.depthwise:
            kernel = jnp.tile(kernel, self.side_by_side)
            form_on_cpu = functools.partial(_depthwise, **sizes)
        elif is_product:
            form = functools.partial(_product, strides=strides)
            form_on_cpu = functools.partial(_product_of_rows, strides=strides)
        elif _reaches_everywhere(x.shape[1:-1], self.kernel_size, strides, padding):
            form_on_cpu = functools.partial(_banded, **sizes, axes=rank)
        elif self.banded:
            form_on_cpu = functools.partial(_banded, **sizes, axes=1)
        if form_on_cpu is None:
            x = form(x, kernel)
        else:
            x = jax.lax.platform_dependent(x, kernel, cpu=form_on_cpu, default=form)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), at_least_float32(self.dtype))
            x = x + jnp.tile(bias.astype(self.dtype), self.side_by_side).reshape((1,) * (x.ndim - 1) + (-1,))
        return x.reshape(*lead, *x.shape[1:])


def _convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[int], *, groups: int = 1
) -> jax.Array:
    space = "DHW"[-len(strides) :]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )


def _product(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int]) -> jax.Array:
    """Convolution with a kernel of size 1; of maps side by side with a block-diagonal one."""
    x = x[(slice(None), *(slice(None, None, stride) for stride in strides))]
    kernel = kernel.reshape(kernel.shape[-2:])
    maps = x.shape[-1] // kernel.shape[0]
    return jnp.dot(x, kernel if maps == 1 else jnp.kron(jnp.eye(maps, dtype=kernel.dtype), kernel))


def _product_of_rows(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int]) -> jax.Array:
    """The same of two dimensions: of more, XLA on a CPU transposes a copy of the input for the kernel's gradient.

    Maps side by side become rows of their own.
    """
    x = x[(slice(None), *(slice(None, None, stride) for stride in strides))]
    product = jnp.dot(x.reshape(-1, kernel.shape[-2]), kernel.reshape(kernel.shape[-2:]))
    return product.reshape(*x.shape[:-1], -1)


def _depthwise(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[int]) -> jax.Array:
    """Sum over the cells of the kernel of the shifted input times that cell's weight per channel.

    A scan over the kernel's first axis keeps the program small, its rows checkpointed so that the gradient keeps the
    input alone: written out cell by cell, XLA compiles three times as long and runs slower.
    """
    first, *others = size = kernel.shape[: len(strides)]
    outputs = _output_size(x.shape[1:-1], size, strides, padding)
    x = jnp.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])

    @jax.checkpoint
    def slab(x: jax.Array, kernel: jax.Array, index: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(x, index, (outputs[0] - 1) * strides[0] + 1, axis=1)[:, :: strides[0]]
        weights = jax.lax.dynamic_index_in_dim(kernel, index, keepdims=False)
        total = jnp.zeros((), x.dtype)
        for cell in np.ndindex(*others):
            window = tuple(
                slice(start, start + (n - 1) * stride + 1, stride)
                for start, n, stride in zip(cell, outputs[1:], strides[1:], strict=True)
            )
            total = total + rows[(slice(None), slice(None), *window)] * weights[cell].reshape(
                (1,) * (x.ndim - 1) + (-1,)
            )
        return total

    def add(total: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        return total + slab(x, kernel, index), None

    # From the first slab and not from zeros, which under shard_map would not vary over the devices as the sum does.
    return jax.lax.scan(add, slab(x, kernel, 0), jnp.arange(1, first))[0]


def _output_size(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Sequence[int]
) -> list[int]:
    return [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, window, strides, padding, strict=True)]


def _reaches_everywhere(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Sequence[int]
) -> bool:
    """Whether every cell of the result depends on every cell of the input."""
    outputs = _output_size(size, window, strides, padding)
    return all(
        (out - 1) * s <= p and n + p <= k
        for n, out, k, s, p in zip(size, outputs, window, strides, padding, strict=True)
    )


def _banded(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[int], *, axes: int) -> jax.Array:
    """Convolution as the product of rows with the kernel as a banded matrix, zero outside its reach.

    A row is the last ``axes`` spatial axes and the channels together: (n, *outer, *inner, c) as (n, *outer, row). Over
    the outer axes, the rows around each result are laid side by side.
    """
    rank = len(strides)
    split = rank - axes
    window, features = kernel.shape[:rank], kernel.shape[-1]
    outputs = _output_size(x.shape[1:-1], window, strides, padding)

    band = kernel
    for axis in range(split, rank):
        # The taps of this axis become the cells of the input, shifted with each cell of the result, which comes last.
        cells, tap = x.shape[1 + axis], padding[axis]
        before = max(0, (outputs[axis] - 1) * strides[axis] - tap)
        after = max(0, cells + tap - window[axis])
        band = jnp.pad(band, [(before, after) if other == axis else (0, 0) for other in range(band.ndim)])
        starts = [before + tap - result * strides[axis] for result in range(outputs[axis])]
        band = jnp.stack([jax.lax.slice_in_dim(band, start, start + cells, axis=axis) for start in starts], axis=-2)

    rows = x.reshape(*x.shape[: 1 + split], -1)
    rows = jnp.pad(rows, [(0, 0), *((p, p) for p in padding[:split]), (0, 0)])
    around = [
        tuple(slice(first, first + (n - 1) * s + 1, s) for first, n, s in zip(start, outputs, strides, strict=False))
        for start in np.ndindex(*window[:split])
    ]
    rows = jnp.concatenate([rows[(slice(None), *cut)] for cut in around], axis=-1)
    product = jnp.dot(rows.reshape(-1, rows.shape[-1]), band.reshape(rows.shape[-1], -1))
    return product.reshape(-1, *outputs, features)


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last, with PyTorch's running statistics.

    In training the batch mean and variance normalise, and the running statistics move towards them: the variance by
    the unbiased estimate, as in PyTorch and unlike ``flax.linen.BatchNorm``. Statistics are summed in float32 at least,
    in one pass over the data.

    Attributes:
        momentum: share of the running statistics that is kept (PyTorch's momentum is one less this).
        epsilon: added to the variance.
        axis_name: mapped axis over which to take the statistics together; None keeps them per device.
        frozen: normalise with the running statistics in training too, and leave them as they are.
        side_by_side: how many maps the channels hold one after the other; they share statistics and parameters.
        two_pass: subtract the mean before squaring; exact where the mean is far larger than the deviation, slower.
        dtype: of the result.
        scale_init: of the scale; zeros make a residual branch start as the identity.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    frozen: bool = False
    side_by_side: int = 1
    two_pass: bool = False
    dtype: jnp.dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise ``(*lead, c)``; ``train`` takes and stores batch statistics unless they are frozen."""
        factor, shift = self.affine(x, train=train)
        # One multiplication and one addition, and the gradient keeps the input alone, not the centred input beside it.
        return (x.astype(factor.dtype) * factor + shift).astype(self.dtype)

    @nn.compact
    def affine(self, x: jax.Array, *, train: bool, cells: int | None = None) -> tuple[jax.Array, jax.Array]:
        """What normalises ``(*lead, c)``: the factor and the shift of each channel, of as many axes, float32 at least.

        Args:
            x: the input.
            train: take and store batch statistics unless they are frozen.
            cells: take the statistics as if zeros filled ``x`` up to as many cells; None where there are none.
        """
        features, param_dtype = (x.shape[-1] // self.side_by_side,), at_least_float32(self.dtype)
        scale = self.param("scale", self.scale_init, features, param_dtype)
        bias = self.param("bias", nn.initializers.zeros, features, param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, param_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, param_dtype)
        if not train or self.frozen:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var, count = self._batch_statistics(x.astype(at_least_float32(x.dtype)), cells)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * unbiased
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return self._per_channel(factor, x), self._per_channel(bias - mean * factor, x)

    def _per_channel(self, values: jax.Array, x: jax.Array) -> jax.Array:
        """``(c,)``, for each of the maps side by side, with as many axes as ``x``."""
        return jnp.tile(values, self.side_by_side).reshape((1,) * (x.ndim - 1) + (-1,))

    def _batch_statistics(self, x: jax.Array, cells: int | None) -> tuple[jax.Array, jax.Array, int]:
        synchronised = self.axis_name is not None and not self.is_initializing()
        present = math.prod(x.shape[:-1]) * self.side_by_side
        cells = present if cells is None else cells
        filled = present / max(cells, 1)

        def average(values: jax.Array) -> jax.Array:
            mean = filled * values.mean(range(values.ndim - 1)).reshape(self.side_by_side, -1).mean(0)
            return jax.lax.pmean(mean, self.axis_name) if synchronised else mean

        count = cells * (jax.lax.axis_size(self.axis_name) if synchronised else 1)
        mean = average(x)
        if self.two_pass:
            centred = jnp.square(x - self._per_channel(mean, x))
            return mean, average(centred) + (1 - filled) * jnp.square(mean), count
        return mean, jnp.maximum(average(jnp.square(x)) - jnp.square(mean), 0), count
