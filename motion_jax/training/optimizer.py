"""Stochastic gradient descent as in PyTorch, with the parameter groups of the official recipes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

GROUPS = ("official", "plain")


def sgd(
    schedule: optax.Schedule,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    clip_norm: float | None,
    groups: str,
    classifier_lr: tuple[float, float],
) -> optax.GradientTransformation:
    """Make the optimizer equal to ``clip_grad_norm_`` followed by ``torch.optim.SGD``.

    Order: clip the gradients by their global norm, add the weight decay, apply momentum, multiply by the learning rate.
    The momentum buffer does not contain the rate, so a lower rate acts at once on all of the buffer.

    Args:
        schedule: learning rate as a function of the number of completed updates.
        momentum, nesterov, weight_decay, clip_norm: as in ``TrainConfig``. The momentum buffer starts as the first
            gradient.
        groups: ``"official"``: weights at rate x1 with decay, biases at x2 without decay, BatchNorm scale and bias at
            x1 without decay, the classifier at ``classifier_lr``. ``"plain"``: all parameters at x1 with decay.
        classifier_lr: factors on the rate for the weight and the bias of ``params["classifier"]`` with ``"official"``
            groups: (1, 2), or (5, 10) in SELFY's Kinetics runs.

    Raises:
        ValueError: if ``groups`` is unknown, or ``nesterov`` comes without momentum.

    Source: MotionSqueeze and SELFY, main.py and ``TSN.get_optim_policies``.
    """
    if groups not in GROUPS:
        raise ValueError(f"groups is {groups!r}, expected one of {GROUPS}")
    if nesterov and momentum <= 0:
        raise ValueError(f"nesterov needs a momentum above 0, got {momentum}: raise it or set nesterov to False")
    official = groups == "official"
    rates = {"weight": 1, "bias": 2, "norm": 1}
    rates |= {"classifier weight": classifier_lr[0], "classifier bias": classifier_lr[1]}

    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda kind: not official or kind.endswith("weight"), parameter_kinds(params))

    def scale_by_group(updates: Any, _: Any) -> Any:
        return jax.tree.map(lambda update, kind: update * rates[kind], updates, parameter_kinds(updates))

    return optax.chain(
        clip_by_global_norm(clip_norm) if clip_norm is not None else optax.identity(),
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.trace(momentum, nesterov=nesterov),
        optax.stateless(scale_by_group) if official else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )


def clip_by_global_norm(clip_norm: float) -> optax.GradientTransformation:
    """Make a transformation that multiplies the gradients by ``min(1, clip_norm / (norm + 1e-6))``.

    optax's transformation of this name does not add 1e-6, which changes a clipped gradient in the eighth digit. Runs
    in PyTorch and here would differ by that from the first update.

    Source: PyTorch, ``torch.nn.utils.clip_grad_norm_``.
    """

    def clip(gradients: Any, _: Any) -> Any:
        scale = jnp.minimum(1, clip_norm / (optax.tree.norm(gradients) + 1e-6))
        return jax.tree.map(lambda gradient: gradient * scale, gradients)

    return optax.stateless(clip)


def parameter_kinds(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kind of every parameter, as a tree of strings with the structure of ``params``.

    ``"norm"`` is a scale and the bias beside it, ``"bias"`` any other bias, ``"weight"`` every other parameter; in
    ``params["classifier"]`` the kinds are ``"classifier weight"`` and ``"classifier bias"``.

    >>> parameter_kinds({"bn": {"scale": 1, "bias": 2}, "classifier": {"kernel": 3, "bias": 4}})
    {'bn': {'scale': 'norm', 'bias': 'norm'}, 'classifier': {'kernel': 'classifier weight', 'bias': 'classifier bias'}}
    """

    def kinds(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        named = {}
        for name, value in tree.items():
            if isinstance(value, Mapping):
                named[name] = kinds(value, "classifier " if name == "classifier" and tree is params else prefix)
            elif name == "scale" or (name == "bias" and "scale" in tree):
                named[name] = "norm"
            else:
                named[name] = prefix + ("bias" if name == "bias" else "weight")
        return named

    return kinds(params, "")
