"""Stochastic gradient descent exactly as in PyTorch, with the parameter groups of the official recipes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

GROUPS = ("official", "plain")
# torch.nn.utils.clip_grad_norm_ divides by the norm plus this.
_CLIP_EPS = 1e-6


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
    """Make the optimiser equal to ``clip_grad_norm_`` followed by ``torch.optim.SGD``.

    Order: clip the raw gradients by their global norm, add the decay, gather momentum, multiply by the learning rate.
    The rate stays outside the momentum buffer, so a drop acts at once on what was gathered before it.

    Args:
        schedule: learning rate as a function of the number of completed updates.
        momentum: PyTorch's; the buffer starts as the first gradient.
        nesterov: look ahead, as PyTorch writes it.
        weight_decay: added to the gradient, times the parameter.
        clip_norm: largest global norm of the gradients; ``None`` leaves them alone.
        groups: ``"official"``: weights at rate x1 with decay, biases x2 without, BatchNorm scale and bias x1 without,
            the classifier as ``classifier_lr`` says. ``"plain"``: everything decayed, at rate x1.
        classifier_lr: multipliers of the rate for the weight and the bias of ``params["classifier"]`` under
            ``"official"``: (1, 2), or (5, 10) in SELFY's Kinetics runs.

    Raises:
        ValueError: if ``groups`` is unknown, or ``nesterov`` comes without momentum.

    Source: MotionSqueeze and SELFY, main.py and ``TSN.get_optim_policies``.
    """
    if groups not in GROUPS:
        raise ValueError(f"groups is {groups!r}, expected one of {GROUPS}")
    if nesterov and momentum <= 0:
        raise ValueError(f"nesterov needs a momentum above 0, got {momentum}: raise it or set nesterov to False")
    official = groups == "official"
    rates = {
        "weight": 1,
        "bias": 2,
        "norm": 1,
        "classifier weight": classifier_lr[0],
        "classifier bias": classifier_lr[1],
    }

    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda kind: not official or kind.endswith("weight"), parameter_kinds(params))

    def scale_by_group(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda update, kind: update * rates[kind], updates, parameter_kinds(updates))

    return optax.chain(
        _clip(clip_norm) if clip_norm is not None else optax.identity(),
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.trace(momentum, nesterov=nesterov),
        optax.stateless(scale_by_group) if official else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )


def parameter_kinds(params: Mapping[str, Any]) -> dict[str, Any]:
    """Name the kind of every parameter: a tree like ``params`` whose leaves are strings.

    ``"norm"`` is a scale and the bias beside it, ``"bias"`` any other bias, ``"weight"`` all the rest; in
    ``params["classifier"]`` they are ``"classifier weight"`` and ``"classifier bias"``.

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


def _clip(max_norm: float) -> optax.GradientTransformation:
    """``optax.clip_by_global_norm`` with PyTorch's epsilon."""

    def clip(updates: Any, params: Any) -> Any:
        del params
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + _CLIP_EPS))
        return jax.tree.map(lambda update: update * factor.astype(update.dtype), updates)

    return optax.stateless(clip)
