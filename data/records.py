"""Prepared records, read without decoding their frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds


class _RawFrames(tfds.decode.Decoder):
    """Leaves frames as JPEG bytes, of which a reader decodes the few it shows; SkipDecoding fails on sequences."""

    def decode_example(self, serialized: Any) -> Any:
        return serialized

    decode_example_np = decode_example
    decode_batch_example_np = decode_example


def open_sources(folder: str) -> Mapping[str, Sequence[dict[str, Any]]]:
    """Split -> its records in a prepared folder, with random access; ``frames`` is a sequence of JPEG bytes."""
    builder = tfds.builder_from_directory(folder)
    return {split: builder.as_data_source(split, decoders={"frames": _RawFrames()}) for split in builder.info.splits}
