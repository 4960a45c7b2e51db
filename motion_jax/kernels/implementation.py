"""Choice between the fast form of an operation and its reference."""

from contextlib import AbstractContextManager
from typing import Literal

import jax

Implementation = Literal["reference"]

# Part of the key of JAX's caches: a function that was traced outside the context is traced again inside it.
_forced = jax.make_user_context(default_value=None)


def reference() -> AbstractContextManager:
    """Trace every operation in its reference form within a ``with`` block.

    Exports use it, because converters know few primitives.

    >>> is_reference(None)
    False
    >>> with reference():
    ...     is_reference(None)
    True
    """
    return _forced("reference")


def is_reference(implementation: str | None) -> bool:
    """Return whether an operation takes its reference form; None is the fast form for the platform.

    Raises:
        ValueError: for a string other than ``reference``.
    """
    if implementation not in (None, "reference"):
        raise ValueError(
            f"implementation must be None (the fast form for the platform) or 'reference'; got {implementation!r}"
        )
    return "reference" in (implementation, _forced.value)
