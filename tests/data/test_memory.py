"""The loader keeps nothing of what it has handed out."""

import gc
import os
import pathlib

import pytest

from motion_jax.configs.moving_shapes import get_config
from motion_jax.data.pipeline import DataConfig, open_dataset, train_batches

STATUS = pathlib.Path("/proc/self/statm")


def resident_megabytes() -> float:
    gc.collect()
    return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not STATUS.exists(), reason="the resident memory is read from /proc")
def test_resident_memory_stays(tmp_path):
    """From batch 200 to batch 2,000 it grows by less than 50 MB, of which 1,800 batches of 98 KB would take 177."""
    section = {**get_config().data, "size": 32, "clips": (48, 1), "crop": "multi_scale"}
    batches = train_batches(open_dataset(DataConfig(**section), default_dir=str(tmp_path)), batch_size=4, seed=0)
    for _ in range(200):
        next(batches)
    before = resident_megabytes()
    for _ in range(1800):
        next(batches)
    growth = resident_megabytes() - before
    batches.close()
    assert growth < 50
