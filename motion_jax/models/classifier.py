"""From a clip to logits: normalisation, backbone, dropout, classifier, consensus."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from motion_jax.layers import at_least_float32

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


LARGEST = 20.0
"""The largest absolute value of a normalised clip: those of ImageNet's mean and deviation stay below 3."""


class VideoClassifier(nn.Module):
    """Video classifier: backbone, classifier per frame, and the mean over frames (TSN's consensus).

    uint8 clips are scaled to [0, 1] and normalised here, on the device; float clips must be normalised already.

    Attributes:
        backbone: module from clips to named stages; the last stage is classified.
        num_classes: number of logits.
        dropout: rate per frame before the classifier, in training; needs the rng "dropout".
        mean: mean per colour channel for the normalisation, on the scale [0, 1].
        std: standard deviation per colour channel, on the same scale.
        dtype: compute dtype of normalisation; the classifier is float32 at least.

    Source: Wang et al., TSN (ECCV 2016); the official code's models.py, ``TSN``.
    """

    backbone: nn.Module
    num_classes: int
    dropout: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.classifier = nn.Dense(
            self.num_classes,
            dtype=at_least_float32(self.dtype),
            param_dtype=at_least_float32(self.dtype),
            kernel_init=nn.initializers.xavier_uniform(),
        )
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, clips: Num[Array, "b t h w c"], *, train: bool) -> jax.Array:
        """Return logits (b, num_classes), float32 at least.

        Args:
            clips: uint8 in 0..255 or normalised floats.
            train: use and store batch statistics (pass ``mutable=["batch_stats"]``) and apply dropout (pass an rng).

        Raises:
            ValueError: unless the clips are (b, t, h, w, 3); if they have one frame and the backbone holds a motion
                block that is not causal; or if they are floats beyond ``LARGEST`` or not finite. Values are checked
                where they are known: not within ``jax.jit``, which this check costs nothing.
        """
        return self.classify(_last(self.backbone(self._normalise(clips), train=train)), train=train).mean(axis=1)

    def features(self, clips: Num[Array, "b t h w c"], *, train: bool) -> tuple[jax.Array, dict]:
        """Return the logits and the intermediate results.

        Returns:
            logits as from a call, and a dict with ``frame_logits`` (b, t', num_classes), where t' is the number of
            frames that the backbone keeps (all in 2-D networks, a quarter in I3D), ``stages`` name -> (b, t', h, w, c),
            and all that the motion block sows: ``displacement`` (b, t-1, h, w, 2) as (dx, dy) in units of the radius,
            ``confidence`` (b, t-1, h, w, 1), ``stss`` (b, t, h, w, l, u, v). With motion blocks at several sites, these
            come from the first one, and ``motion`` holds the results of each by site.
        """
        stages, motion = self._run_backbone(self._normalise(clips), train=train)
        frame_logits = self.classify(_last(stages), train=train)
        first = next(iter(motion.values()), {})
        aux = {**first, "frame_logits": frame_logits, "stages": stages}
        if len(motion) > 1:
            aux["motion"] = motion
        return frame_logits.mean(axis=1), aux

    def _normalise(self, clips: jax.Array) -> jax.Array:
        if clips.ndim != 5 or clips.shape[-1] != len(self.mean):
            raise ValueError(
                f"clips must be (batch, frames, height, width, {len(self.mean)}), channels last; got {clips.shape}"
            )
        blocks = getattr(self.backbone, "blocks", None) or {}
        causal = getattr(self.backbone, "causal", False)
        if blocks and clips.shape[1] == 1 and not causal and not self.is_initializing():
            block = type(next(iter(blocks.values()))).__name__
            raise ValueError(f"{block} compares frames, but the clips have one; give clips of two frames or more")
        if clips.dtype == jnp.uint8:
            wide = at_least_float32(self.dtype)
            mean, std = (jnp.asarray(values, wide).reshape(1, 1, 1, 1, -1) for values in (self.mean, self.std))
            clips = (jnp.asarray(clips, wide) / 255 - mean) / std
        elif not jnp.issubdtype(clips.dtype, jnp.floating):
            raise ValueError(f"clips must be uint8 (0..255) or normalised floats; got {clips.dtype}")
        else:
            _check_values(clips)
        return jnp.asarray(clips, self.dtype)

    def classify(self, features: Num[Array, "b t h w c"], *, train: bool) -> jax.Array:
        """Return the logits of each frame (b, t, num_classes) from the features of the last stage."""
        x = features.mean(axis=(2, 3), dtype=at_least_float32(self.dtype))
        return self.classifier(self.drop(x, deterministic=not train))

    def _run_backbone(self, x: jax.Array, *, train: bool) -> tuple[dict, dict]:
        """Return the stages, and by site what the motion blocks sow.

        Only a call of its own can open "intermediates" where the caller did not. The batch statistics it changes are
        put back into this module.
        """
        if self.is_initializing():
            return self.backbone(x, train=train), {}
        backbone, variables = self.backbone.unbind()
        mutable = [name for name in variables if self.is_mutable_collection(name)]
        rngs = {"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else None
        stages, changed = backbone.apply(variables, x, train=train, mutable=[*mutable, "intermediates"], rngs=rngs)
        sown = changed.pop("intermediates", {})
        for collection, values in changed.items():
            for name, value in values.items():
                self.backbone.put_variable(collection, name, value)
        sites = [stage.removesuffix("_motion") for stage in stages if stage.endswith("_motion")]
        return stages, {site: dict(sown[f"blocks_{site}"]) for site in sites if f"blocks_{site}" in sown}


def block_variables(variables: Mapping[str, Any], site: str) -> dict[str, Any]:
    """Return the variables of the motion block at a site, by collection."""
    return {name: values["backbone"].get(f"blocks_{site}", {}) for name, values in variables.items()}


def _last(stages: Mapping[str, jax.Array]) -> jax.Array:
    *_, last = stages.values()
    return last


def _check_values(clips: jax.Array | np.ndarray) -> None:
    """Raise an error if known values of float clips are not normalised. Traced values are not known."""
    if isinstance(clips, jax.core.Tracer) or not getattr(clips, "is_fully_addressable", True):
        return
    largest = float(np.abs(np.asarray(clips, np.float32)).max(initial=0))
    if not largest <= LARGEST:
        raise ValueError(
            f"float clips must be normalised to mean 0 and deviation 1, but one value is {largest:.6g}; give uint8 "
            "clips, which the model normalises, or subtract the mean and divide by the deviation"
        )
