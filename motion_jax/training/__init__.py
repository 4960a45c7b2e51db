"""Training and evaluation of a model on batches of NumPy arrays.

Begin with ``loop``: one visible loop over the updates. It uses ``recipe`` (configuration, learning rate, optimizer),
``step`` (one update, one evaluation batch, for one device), ``parallel`` (devices), ``checkpoints`` and ``evaluation``.
"""
