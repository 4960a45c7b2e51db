"""Training and evaluation: a model and iterators of batches in, checkpoints and metrics out.

One concept per file: ``state``, ``schedules``, ``optimizer``, ``step``, ``parallel``, ``metrics``, ``checkpoints``,
``evaluation``, ``loop``, ``progress``. Batches are dicts of NumPy arrays; nothing here knows where they come from.
"""
