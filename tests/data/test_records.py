"""Stored frames: what is read of a record, and the pixels they decode to."""

import cv2
import numpy as np
import pytest

from motion_jax.configs.moving_shapes import get_config
from motion_jax.data.pipeline import DataConfig, open_dataset
from motion_jax.data.storage.frames import decode_jpeg
from motion_jax.data.storage.records import open_sources


def test_a_record_read_in_part_agrees_with_the_whole(tmp_path):
    section = DataConfig(**{**get_config().data, "size": 32, "clips": (5, 3)})
    dataset = open_dataset(section, default_dir=str(tmp_path))
    sources = open_sources(dataset._folder)
    assert set(sources) == {"train", "val"}
    for split, records in sources.items():
        for index in range(dataset.size(split)):
            part, whole = records[index], records.whole(index)
            assert set(part) == {"id", "frames", "label"}
            assert (part["id"], part["label"]) == (whole["id"], whole["label"])
            assert part["id"].decode() == f"{split}_{index:06d}"
            assert list(part["frames"]) == list(whole["frames"])
            assert len(part["frames"]) == 8


def by_opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def picture(rng: np.random.Generator, height: int = 61, width: int = 83) -> np.ndarray:
    coarse = cv2.resize(rng.integers(0, 256, (5, 7, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.add(coarse, rng.integers(0, 20, coarse.shape, np.uint8))


@pytest.mark.parametrize(
    "options",
    [
        [cv2.IMWRITE_JPEG_QUALITY, 90],
        [cv2.IMWRITE_JPEG_QUALITY, 30],
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 3],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411],
    ],
)
@pytest.mark.parametrize("shape", [(61, 83), (1, 1), (17, 8)])
def test_jpegs_decode_to_the_pixels_of_opencv(rng, options, shape):
    data = cv2.imencode(".jpg", picture(rng, *shape), options)[1].tobytes()
    np.testing.assert_array_equal(decode_jpeg(data), by_opencv(data))
    gray = cv2.imencode(".jpg", picture(rng, *shape)[..., 0], options)[1].tobytes()
    np.testing.assert_array_equal(decode_jpeg(gray), by_opencv(gray))


def test_an_orientation_is_honoured(rng):
    """A quarter turn, as cameras write it: an Exif segment before the picture."""
    plain = cv2.imencode(".jpg", picture(rng))[1].tobytes()
    entry = (0x0112).to_bytes(2, "big") + b"\x00\x03" + (1).to_bytes(4, "big") + b"\x00\x06\x00\x00"
    tiff = b"MM\x00\x2a" + (8).to_bytes(4, "big") + (1).to_bytes(2, "big") + entry + bytes(4)
    segment = b"Exif\x00\x00" + tiff
    turned = plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + plain[2:]
    np.testing.assert_array_equal(decode_jpeg(turned), np.rot90(decode_jpeg(plain), -1))


def test_what_opencv_accepts_is_accepted(rng, capfd):
    """Bytes that are damaged inside and frames of another format, though libjpeg-turbo refuses them."""
    jpeg = bytearray(cv2.imencode(".jpg", picture(rng), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    middle = len(jpeg) // 2
    jpeg[middle : middle + 40] = bytes(40)
    png = cv2.imencode(".png", picture(rng))[1].tobytes()
    for data in (bytes(jpeg), png):
        np.testing.assert_array_equal(decode_jpeg(data), by_opencv(data))
    capfd.readouterr()  # What libjpeg says of the damage.
    with pytest.raises(ValueError, match=r"do not decode as an image: the record is damaged"):
        decode_jpeg(bytes(jpeg[:middle]))
