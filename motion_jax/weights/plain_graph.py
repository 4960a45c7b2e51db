"""Rewriting of a function into few primitives, for converters that do not know the others or get them wrong.

The result is numerically the same. The operations of this library are traced in their reference form, which has no
loops, checkpoints or choices by platform. Calls are inlined, and what does not depend on the input is computed while
tracing. A gather or a dynamic slice at a known place becomes a slice, padding a concatenation, a max pool the maximum
of slices. (jax2onnx 0.17.1 silently drops the explicit padding of a max pool, pools over all axes at once, which
onnxruntime refuses, and has no padding for a symbolic batch.)
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from motion_jax import kernels

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
# Primitives of loops, checkpoints and branches, which the reference forms do not have.
_WITHOUT_EQUIVALENT = ("scan", "while", "cond", "remat2", "checkpoint", "platform_index")
_IDENTITIES = ("stop_gradient", "copy", "copy_p")


class _Unknown:
    """A number that depends on the size of the batch, which no result may depend on."""


def plain(function: Callable[..., Any], *specs: jax.ShapeDtypeStruct) -> Callable[..., Any]:
    """Rewrite a function of arrays of shapes and dtypes ``specs``, whose dimensions may be symbolic.

    Raises:
        ValueError: if the function has an operation that cannot be rewritten.
    """
    with kernels.reference():
        closed, results = jax.make_jaxpr(function, return_shape=True)(*specs)
    tree = jax.tree.structure(results)
    return lambda *arrays: tree.unflatten(_evaluate(closed.jaxpr, closed.consts, list(arrays)))


def _evaluate(jaxpr: core.Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Evaluate the equations one by one; NumPy arrays are known values."""
    known = [each if isinstance(each, jax.core.Tracer) else np.asarray(each) for each in constants]
    values: dict[core.Var, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*known, *arguments], strict=True))

    def read(atom: core.Var | core.Literal) -> Any:
        return np.asarray(atom.val) if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = _apply(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: core.JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    """Return the results of one equation."""
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        inner = params[_CALLS[name]]
        return _evaluate(inner.jaxpr, inner.consts, inputs)
    if name in _WITHOUT_EQUIVALENT:
        raise ValueError(f"the operation {name} cannot be written plainly")
    if name in _IDENTITIES:
        return inputs
    if name == "dim_as_value":
        return [_Unknown()]
    if name == "select_n" and isinstance(inputs[0], np.ndarray) and (inputs[0] == inputs[0].flat[0]).all():
        return [inputs[1 + int(inputs[0].flat[0])]]
    if any(isinstance(value, _Unknown) for value in inputs):
        return [_Unknown()] * len(equation.outvars)
    if all(isinstance(value, np.ndarray) for value in inputs) and _is_static(equation):
        with jax.ensure_compile_time_eval():
            results = equation.primitive.bind(*inputs, **params)
        return [np.asarray(each) for each in (results if equation.primitive.multiple_results else [results])]
    if name in _REWRITES:
        return [_REWRITES[name](*inputs, params=params)]
    results = equation.primitive.bind(*inputs, **params)
    return results if equation.primitive.multiple_results else [results]


def _is_static(equation: core.JaxprEqn) -> bool:
    return all(isinstance(size, int) for variable in equation.outvars for size in variable.aval.shape)


def _pad(x: Any, value: Any, *, params: dict[str, Any]) -> Any:
    """Concatenate with constants, axis by axis; padding between cells along a new axis, then flattened."""
    value = jnp.asarray(value, x.dtype)
    for axis, (low, high, between) in enumerate(params["padding_config"]):

        def fill(count: int, axis: int = axis, like: Any = None) -> Any:
            shape = like.shape
            return lax.broadcast_in_dim(value, (*shape[:axis], count, *shape[axis + 1 :]), ())

        if between:
            size = x.shape[axis]
            apart = lax.expand_dims(x, [axis + 1])
            apart = lax.concatenate([apart, fill(between, axis + 1, apart)], axis + 1)
            x = lax.reshape(apart, (*x.shape[:axis], size * (between + 1), *x.shape[axis + 1 :]))
            high -= between
        if low < 0 or high < 0:
            x = lax.slice_in_dim(x, max(-low, 0), x.shape[axis] - max(-high, 0), axis=axis)
        parts = [fill(low, like=x)] if low > 0 else []
        parts += [x, fill(high, like=x)] if high > 0 else [x]
        x = lax.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _max_pool(x: Any, *, params: dict[str, Any]) -> Any:
    """Take the maximum of strided slices of the padded array, axis by axis."""
    config = tuple((low, high, 0) for low, high in params["padding"])
    if any(size != 1 for size in (*params["base_dilation"], *params["window_dilation"])):
        raise ValueError("a dilated max pool cannot be written out")
    x = _pad(x, -np.inf, params={"padding_config": config})
    for axis, (side, stride) in enumerate(zip(params["window_dimensions"], params["window_strides"], strict=True)):
        if side == 1 and stride == 1:
            continue
        last = (x.shape[axis] - side) // stride * stride + 1
        cells = [lax.slice_in_dim(x, cell, cell + last, stride, axis=axis) for cell in range(side)]
        x = functools.reduce(lax.max, cells)
    return x


def _dynamic_slice(x: Any, *starts: Any, params: dict[str, Any]) -> Any:
    for axis, (start, size) in enumerate(zip(starts, params["slice_sizes"], strict=True)):
        x = _part(x, axis, int(_expect_known(start)), size)
    return x


def _gather(x: Any, indices: Any, *, params: dict[str, Any]) -> Any:
    """Slice, where every index is known and each axis is indexed by itself."""
    indices, numbers = _expect_known(indices), params["dimension_numbers"]
    if numbers.operand_batching_dims:
        raise ValueError("a gather with batching dimensions cannot be written plainly")
    lead, columns = indices.shape[:-1], np.moveaxis(indices, -1, 0)
    indexed = dict(zip(numbers.start_index_map, columns, strict=True))
    dropped: list[int] = []
    if len(indexed) == 1 and lead and not set(indexed) - set(numbers.collapsed_slice_dims):
        ((axis, places),) = indexed.items()
        x = _take(x, axis, places.reshape(-1))
        x = lax.reshape(x, (*x.shape[:axis], *lead, *x.shape[axis + 1 :]))
        walked = list(range(axis, axis + len(lead)))
    elif not lead:
        for axis, place in indexed.items():
            x = _part(x, axis, int(place), params["slice_sizes"][axis])
        walked, dropped = [], list(numbers.collapsed_slice_dims)
    else:
        walked = []
        for dimension, (axis, places) in enumerate(indexed.items()):
            along = np.moveaxis(places, dimension, 0).reshape(lead[dimension], -1)
            if axis not in numbers.collapsed_slice_dims or (along != along[:, :1]).any() or len(indexed) != len(lead):
                raise ValueError("a gather of scattered cells cannot be written plainly")
            x = _take(x, axis, along[:, 0])
            walked.append(axis)
    x = lax.squeeze(x, dropped) if dropped else x
    others, walking = iter(axis for axis in range(x.ndim) if axis not in walked), iter(walked)
    order = [next(others) if axis in numbers.offset_dims else next(walking) for axis in range(x.ndim)]
    return x if order == list(range(x.ndim)) else lax.transpose(x, order)


def _expect_known(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ValueError("an index that depends on the input cannot be written plainly")
    return value


def _part(x: Any, axis: int, start: int, size: Any) -> Any:
    """Return ``size`` cells of an axis from ``start``, clamped as XLA does."""
    if size == x.shape[axis]:
        return x
    start = min(max(start, 0), x.shape[axis] - size)
    return lax.slice_in_dim(x, start, start + size, axis=axis)


def _take(x: Any, axis: int, places: np.ndarray) -> Any:
    """Return cells of an axis by their places, in one slice where these are evenly spaced."""
    first, *others = (int(place) for place in places)
    steps = set(np.diff(places).tolist())
    if not others or (len(steps) == 1 and min(steps) > 0):
        return lax.slice_in_dim(x, first, int(places[-1]) + 1, steps.pop() if others else 1, axis=axis)
    cells = [lax.slice_in_dim(x, place, place + 1, axis=axis) for place in (first, *others)]
    return lax.concatenate(cells, axis)


_REWRITES = {"pad": _pad, "reduce_window_max": _max_pool, "dynamic_slice": _dynamic_slice, "gather": _gather}
