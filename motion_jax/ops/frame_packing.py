"""Frames of a clip side by side along the channels, for layers of few channels."""

from jaxtyping import Array, Shaped

from motion_jax import kernels


def pack_frames(
    x: Shaped[Array, "b t h w c"], *, implementation: kernels.Implementation | None = None
) -> tuple[Shaped[Array, "n h w m_c"], int]:
    """Fold time into the batch, with several frames side by side along the channels.

    Args:
        x: features of whole clips.
        implementation: None packs as many as 8 frames, a divisor of ``t``; ``reference`` leaves every frame apart.

    Returns:
        the packed frames (n, h, w, maps * c), n = b * t / maps, and ``maps``, the number of frames side by side. It is
        the field ``maps`` of the layers that follow.
    """
    if kernels.is_reference(implementation):
        return x.reshape(-1, *x.shape[2:]), 1
    return kernels.pack_maps(x)


def unpack_frames(x: Shaped[Array, "n h w m_c"], *, maps: int, frames: int) -> Shaped[Array, "b t h w c"]:
    """Undo ``pack_frames`` for clips of ``frames`` frames."""
    return kernels.unpack_maps(x, maps, frames=frames)
