"""Prepared records, read without decoding their frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from motion_jax.data.storage.fingerprint import damaged


class _RawFrames(tfds.decode.Decoder):
    """Decoder that keeps frames as JPEG bytes; TFDS's SkipDecoding fails on sequences."""

    def decode_example(self, serialized: Any) -> Any:
        return serialized

    decode_example_np = decode_example
    decode_batch_example_np = decode_example


class Records:
    """The records of a split, serialized tf.train.Example messages, with random access."""

    def __init__(self, source: Sequence[bytes], features: tfds.features.FeaturesDict) -> None:
        self._source = source
        self._features = features

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return what clips need: id (UTF-8 bytes), frames (a sequence of JPEG bytes) and label (int).

        A frame is copied out of the record when it is accessed: clips use a few of many.
        """
        stored = tf_example_pb2.Example.FromString(self._source[index]).features.feature
        return {
            "id": stored["id"].bytes_list.value[0],
            "frames": stored["frames"].bytes_list.value,
            "label": stored["label"].int64_list.value[0],
        }

    def whole(self, index: int) -> dict[str, Any]:
        """Return all features of a record by name; frames as JPEG bytes."""
        return self._features.deserialize_example_np(self._source[index], decoders={"frames": _RawFrames()})


def open_sources(folder: str) -> Mapping[str, Records]:
    """Return the records of each split in a prepared folder.

    Raises:
        ValueError: if a file that describes them, or the index of a shard, cannot be read.
    """
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        builder = tfds.builder_from_directory(folder)
        return {
            split: Records(builder.as_data_source(split, deserialize_method=raw), builder.info.features)
            for split in builder.info.splits
        }
    # The readers raise errors of many types.
    except Exception as error:
        raise damaged(folder, f"they cannot be opened ({' '.join(str(error).split())[:100]})") from error
