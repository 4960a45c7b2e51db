"""The training step and the evaluation step, each written for one device of the mesh axis ``data``."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from motion_jax.training.mixing import mix, soft_labels
from motion_jax.training.parallel import AXIS
from motion_jax.training.state import TrainState

AVERAGES = ("softmax", "logits")
Batch = Mapping[str, jax.Array]

# Flax folds hashes of module names into the key of the dropout; mixing folds in this number.
_MIX_STREAM = 1


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    schedule: optax.Schedule,
    seed: int,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    label_smoothing: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Make ``step(state, batch) -> (state, metrics)`` for ``parallel.replicate``.

    ``batch`` holds this device's rows: ``clips`` (b, t, h, w, c) and ``label`` (b,) int32. The loss is the cross
    entropy in float32 or wider. Gradients are averaged over the devices. BatchNorm normalises with the statistics of
    its own device, as in the official PyTorch code; the running statistics are averaged over the devices.

    ``metrics`` describe the whole batch before the update: ``loss``, ``top1`` (percent; a mixed clip counts as right if
    the prediction is the label with the larger share), ``grad_norm`` (before clipping) and ``lr``.

    Args:
        model: called with ``train=True`` and an rng ``dropout`` that depends only on (seed, step, device).
        optimizer: applied to the averaged gradients.
        schedule: the learning rate to report.
        seed: seed of dropout and of mixing.
        mixup, cutmix, label_smoothing: as in ``TrainConfig``. The draws depend only on (seed, step, device).
    """
    mixes_clips = mixup > 0 or cutmix > 0

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        # Without this cast, shard_map returns the gradient of replicated parameters already summed over the devices.
        # The mean below would then change nothing, and the gradient would silently be N times too large.
        params, batch_stats = jax.lax.pcast((state.params, state.batch_stats), AXIS, to="varying")
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), jax.lax.axis_index(AXIS))
        clips = batch["clips"]
        label = other = batch["label"]
        share: jax.Array | float = 1.0
        if mixes_clips:
            mix_key = jax.random.fold_in(key, _MIX_STREAM)
            clips, other, share = mix(mix_key, clips, label, mixup=mixup, cutmix=cutmix)

        def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            variables = {"params": params, "batch_stats": batch_stats}
            options = {"mutable": ["batch_stats"], "rngs": {"dropout": key}}
            logits, updated = model.apply(variables, clips, train=True, **options)
            logits = _at_least_float32(logits)
            if mixes_clips or label_smoothing:
                soft = soft_labels(label, other, share, classes=logits.shape[-1], smoothing=label_smoothing)
                losses = optax.softmax_cross_entropy(logits, soft)
            else:
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return losses.mean(), (logits, updated.get("batch_stats", {}))

        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        dominant = jnp.where(share < 0.5, other, label) if mixes_clips else label
        top1 = 100 * jnp.mean(logits.argmax(-1) == dominant)
        grads, batch_stats, loss, top1 = jax.lax.pmean((grads, batch_stats, loss, top1), AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {"loss": loss, "top1": top1, "grad_norm": optax.tree.norm(grads), "lr": schedule(state.step)}
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return step


def make_eval_step(
    model: nn.Module, *, average: str
) -> Callable[[Mapping[str, Any], Batch], tuple[dict[str, jax.Array], jax.Array]]:
    """Make ``step(variables, batch) -> (sums, scores)`` for ``parallel.replicate``.

    ``batch`` holds this device's rows: ``clips`` (b, v, t, h, w, c) with ``v`` views of each clip, ``label`` (b,) int32
    and ``mask`` (b,) bool, False for rows that only pad the batch. Each device returns the ``scores`` (b, k) of its
    rows.

    ``sums`` are over the unmasked rows of all devices: ``loss``, ``top1``, ``top5`` (label among the best
    ``min(5, k)``) and ``count`` are scalars; ``class_correct`` and ``class_count`` have shape (k,). Counts are int32.

    Args:
        model: called with ``train=False``.
        average: as in ``EvalConfig``; ``scores`` are that average, in float32 or wider.

    Raises:
        ValueError: if ``average`` is unknown.
    """
    if average not in AVERAGES:
        raise ValueError(f"average is {average!r}, expected one of {AVERAGES}")

    def step(variables: Mapping[str, Any], batch: Batch) -> tuple[dict[str, jax.Array], jax.Array]:
        clips, label, mask = batch["clips"], batch["label"], batch["mask"]
        b, v = clips.shape[:2]
        logits = _at_least_float32(model.apply(variables, clips.reshape(b * v, *clips.shape[2:]), train=False))
        logits = logits.reshape(b, v, -1)
        if average == "softmax":
            # Logarithms keep the loss finite where a probability underflows.
            ranked = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(v)
            scores, losses = jnp.exp(ranked), -jnp.take_along_axis(ranked, label[:, None], axis=1)[:, 0]
        else:
            ranked = scores = logits.mean(axis=1)
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, label)
        k = ranked.shape[-1]
        _, best = jax.lax.top_k(ranked, min(5, k))
        hits = best == label[:, None]
        first, any_hit = hits[:, 0] & mask, hits.any(axis=1) & mask
        classes = jax.nn.one_hot(label, k, dtype=jnp.int32)
        sums = {
            "loss": jnp.where(mask, losses, 0).sum(),
            "top1": first.sum(dtype=jnp.int32),
            "top5": any_hit.sum(dtype=jnp.int32),
            "count": mask.sum(dtype=jnp.int32),
            "class_correct": jnp.where(first[:, None], classes, 0).sum(axis=0),
            "class_count": jnp.where(mask[:, None], classes, 0).sum(axis=0),
        }
        return jax.lax.psum(sums, AXIS), scores

    return step


def _at_least_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
