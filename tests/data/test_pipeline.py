import logging
import subprocess
import sys
import threading

import numpy as np
import pytest
from bench import data_config, data_section, write_video

from motion_jax.data.clips import augmentation, sampling, transforms
from motion_jax.data.clips.corruption import Corruption
from motion_jax.data.pipeline import eval_batches, open_dataset, train_batches
from motion_jax.data.storage.frames import encode_jpeg


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def dataset(folder):
    return open_dataset(data_config(threads=2), default_dir=folder)


@pytest.fixture
def opened(folder):
    return lambda **changes: open_dataset(data_config(**{"threads": 2, **changes}), default_dir=folder)


def take(batches, count: int) -> list[dict]:
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def assert_same(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert set(left) == set(right)
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_shapes_and_types(dataset):
    (batch,) = take(train_batches(dataset, batch_size=4, seed=0), 1)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "clips": ((4, 8, 32, 32, 3), np.uint8),
        "label": ((4,), np.int32),
        "index": ((4,), np.int64),
    }
    batch = next(iter(eval_batches(dataset, batch_size=4, clips=2, crops=3)))
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "clips": ((4, 6, 8, 32, 32, 3), np.uint8),
        "label": ((4,), np.int32),
        "mask": ((4,), np.bool_),
        "index": ((4,), np.int64),
        "id": ((4,), np.dtype("S10")),
    }


def test_same_seed_same_clips(dataset, opened):
    one = take(train_batches(dataset, batch_size=5, seed=3), 6)
    assert_same(one, take(train_batches(dataset, batch_size=5, seed=3), 6))
    assert_same(one, take(train_batches(opened(threads=0), batch_size=5, seed=3), 6))
    other = take(train_batches(dataset, batch_size=5, seed=4), 6)
    assert any(not np.array_equal(a["index"], b["index"]) for a, b in zip(one, other, strict=True))


def test_worker_processes_give_the_same_clips(dataset, opened):
    batches = train_batches(opened(processes=2, threads=1), batch_size=5, seed=3)
    assert_same(take(train_batches(dataset, batch_size=5, seed=3), 4), take(batches, 4))


@pytest.mark.parametrize("start", [1, 4, 5, 9])
def test_resuming_gives_exactly_the_rest(dataset, start):
    """Before, at and after the end of an epoch (24 clips in batches of 5)."""
    whole = take(train_batches(dataset, batch_size=5, seed=1), 12)
    assert_same(whole[start:], take(train_batches(dataset, batch_size=5, seed=1, start_step=start), 12 - start))


def test_every_epoch_holds_every_example_once(dataset):
    """Batches of 10 run across the ends of epochs of 24."""
    order = np.concatenate([batch["index"] for batch in take(train_batches(dataset, batch_size=10, seed=0), 12)])
    epochs = order.reshape(5, 24)
    for epoch in epochs:
        assert sorted(epoch) == list(range(24))
    assert len({tuple(epoch) for epoch in epochs}) == 5


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_global_batch(dataset, count):
    whole = take(train_batches(dataset, batch_size=8, seed=2), 4)
    parts = [
        take(train_batches(dataset, batch_size=8, seed=2, process_index=k, process_count=count), 4)
        for k in range(count)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_same(whole, joined)


def test_augmentation_depends_on_seed_example_and_epoch_alone(dataset):
    """Another batch size puts the same clips elsewhere; another epoch crops otherwise."""

    def clips(batch_size: int, steps: int) -> dict:
        found: dict = {}
        for batch in take(train_batches(dataset, batch_size=batch_size, seed=2), steps):
            for index, clip in zip(batch["index"].tolist(), batch["clips"], strict=True):
                found.setdefault(index, []).append(clip)
        return found

    one, other = clips(8, 6), clips(6, 8)
    assert all(len(epochs) == 2 for epochs in one.values())
    for index, (first, second) in one.items():
        np.testing.assert_array_equal(first, other[index][0])
        np.testing.assert_array_equal(second, other[index][1])
    assert sum(not np.array_equal(first, second) for first, second in one.values()) > 20


def flips_of(dataset) -> dict[str, set[bool]]:
    """Class name -> whether its clips came mirrored, over many epochs. Squeezing keeps frames as stored."""
    seen: dict[str, set[bool]] = {name: set() for name in dataset.labels}
    for batch in take(train_batches(dataset, batch_size=24, seed=0), 8):
        for index, clip, label in zip(batch["index"], batch["clips"], batch["label"], strict=True):
            example = dataset.example("train", int(index))
            mirror = np.array_equal(clip, example["frames"][:, :, ::-1])
            assert mirror or np.array_equal(clip, example["frames"])
            name = dataset.labels[example["label"]]
            expected = name
            if mirror and dataset.section.flip == "swap":
                expected = name.translate({}).replace("left", "L").replace("right", "left").replace("L", "right")
            assert dataset.labels[label] == expected
            seen[name].add(mirror)
    return seen


@pytest.mark.parametrize("flip", ["skip", "swap", "none", "always"])
def test_flips_and_labels(opened, flip):
    both, never = {True, False}, {False}
    for name, seen in flips_of(opened(flip=flip, crop="none")).items():
        sided = "left" in name or "right" in name
        expected = {"skip": never if sided else both, "none": never}.get(flip, both)
        assert seen == expected, name


def test_training_clips_follow_the_official_transforms(opened):
    dataset = opened(flip="none")
    (batch,) = take(train_batches(dataset, batch_size=6, seed=7), 1)
    for index, clip in zip(batch["index"].tolist(), batch["clips"], strict=True):
        draw = np.random.default_rng([7, index, 0]).integers
        frames = dataset.example("train", index)["frames"]
        chosen = frames[sampling.segment_train(8, 8, draw=draw)]
        box = transforms.multi_scale_crop(32, 32, size=32, draw=draw)
        expected = [transforms.crop_and_resize(frame, box, size=32) for frame in chosen]
        np.testing.assert_array_equal(clip, np.stack(expected))


def test_random_resized_crops_reach_the_batches(opened):
    dataset = opened(flip="none", crop="random_resized")
    (batch,) = take(train_batches(dataset, batch_size=6, seed=7), 1)
    for index, clip in zip(batch["index"].tolist(), batch["clips"], strict=True):
        rng = np.random.default_rng([7, index, 0])
        chosen = dataset.example("train", index)["frames"][sampling.segment_train(8, 8, draw=rng.integers)]
        box = transforms.random_resized_crop(32, 32, rng=rng)
        expected = [transforms.crop_and_resize(frame, box, size=32) for frame in chosen]
        np.testing.assert_array_equal(clip, np.stack(expected))


def test_colors_and_shapes_are_drawn_after_all_else(opened):
    """So a run without them keeps its crops and flips; what is drawn depends on (seed, example, epoch) alone."""
    plain = opened(flip="always")
    changed = opened(flip="always", color_jitter=(0.4, 0.4, 0.4, 0.1), rand_augment=(2, 9))
    (clean,) = take(train_batches(plain, batch_size=6, seed=3), 1)
    (batch,) = take(train_batches(changed, batch_size=6, seed=3), 1)
    (late,) = take(train_batches(changed, batch_size=3, seed=3, start_step=1), 1)
    np.testing.assert_array_equal(late["clips"], batch["clips"][3:])
    for index, before, after in zip(batch["index"].tolist(), clean["clips"], batch["clips"], strict=True):
        rng = np.random.default_rng([3, index, 0])
        sampling.segment_train(8, 8, draw=rng.integers)
        transforms.multi_scale_crop(32, 32, size=32, draw=rng.integers)
        rng.integers(2)
        expected = augmentation.color_jitter(before, strengths=(0.4, 0.4, 0.4, 0.1), rng=rng)
        expected = augmentation.rand_augment(expected, operations=2, magnitude=9, rng=rng)
        np.testing.assert_array_equal(after, expected)
        assert not np.array_equal(after, before)


def test_evaluation_is_not_augmented(opened):
    changed = opened(color_jitter=(0.4, 0.4, 0.4, 0.1), rand_augment=(2, 9), crop="random_resized")
    assert_same(list(eval_batches(opened(), batch_size=7)), list(eval_batches(changed, batch_size=7)))


def test_every_view_is_corrupted_and_nothing_else(dataset):
    options = {"batch_size": 4, "clips": 2, "crops": 3}
    spoil = Corruption("motion_blur", 4)
    clean = list(eval_batches(dataset, **options))
    corrupted = list(eval_batches(dataset, **options, corruption=spoil))
    for before, after in zip(clean, corrupted, strict=True):
        for name in ("label", "mask", "index", "id"):
            np.testing.assert_array_equal(before[name], after[name])
        for row, index in enumerate(before["index"].tolist()):
            if index >= 0:
                expected = [spoil(view, index=index) for view in before["clips"][row]]
                np.testing.assert_array_equal(after["clips"][row], np.stack(expected))
                assert not np.array_equal(after["clips"][row], before["clips"][row])


@pytest.mark.parametrize(("batch_size", "processes"), [(7, 1), (4, 1), (4, 2), (8, 4), (16, 4), (1, 1)])
def test_evaluation_counts_every_example_once(dataset, batch_size, processes):
    parts = [
        list(eval_batches(dataset, batch_size=batch_size, process_index=k, process_count=processes))
        for k in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    rows = [row for part in parts for batch in part for row in zip(*batch.values(), strict=True)]
    kept = {int(index): (clip, int(label), video) for clip, label, mask, index, video in rows if mask}
    assert sorted(kept) == list(range(7))
    assert sum(bool(mask) for _, _, mask, _, _ in rows) == 7
    for index, (clip, label, video) in kept.items():
        example = dataset.example("val", index)
        assert (label, video.decode()) == (example["label"], example["id"])
        np.testing.assert_array_equal(clip[0], example["frames"])
    for clip, _, mask, index, video in rows:
        if not mask:
            assert (index, video) == (-1, b"")
            assert not clip.any()


def test_evaluation_views(opened):
    """Two clips of three crops: the crops of a clip lie beside each other."""
    dataset = opened(size=32, frames=8)
    batch = next(iter(eval_batches(dataset, batch_size=1, clips=2, crops=3)))
    frames = dataset.example("val", 0)["frames"]
    chosen = sampling.segment_test(8, 8, clips=2)
    for clip in range(2):
        for crop in range(3):  # Square frames: the three crops are the frame.
            np.testing.assert_array_equal(batch["clips"][0, 3 * clip + crop], frames[chosen[clip]])


def test_dense_sampling_reaches_the_batches(opened):
    dataset = opened(sampling="dense", frames=8)
    batch = next(iter(eval_batches(dataset, batch_size=1)))
    frames = dataset.example("val", 0)["frames"]
    np.testing.assert_array_equal(batch["clips"][0, 0], frames[[0] * 8])  # Stride 8 in a video of 8 frames.


class _Damaged:
    """A split with damaged records."""

    def __init__(self, source, bad: set[int], damage=lambda record: {**record, "frames": [b"damaged"]}) -> None:
        self.source, self.bad, self.damage = source, bad, damage

    def __getitem__(self, index: int) -> dict:
        record = self.source[index]
        record = {**record, "frames": list(record["frames"])}
        return self.damage(record) if index in self.bad else record


def test_an_unreadable_record_is_replaced_and_named_once(opened, caplog):
    dataset = opened(crop="none", flip="none", max_bad_fraction=0.2)
    dataset._sources["val"] = _Damaged(dataset._sources["val"], {6})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            batches = list(eval_batches(dataset, batch_size=7))
    assert caplog.text.count("record 6 of split val is unreadable") == 1
    assert dataset.broken == 1
    np.testing.assert_array_equal(batches[0]["clips"][6], batches[0]["clips"][0])  # The next, round the end.
    assert batches[0]["mask"].all()
    assert batches[0]["label"][6] == batches[0]["label"][0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: {**record, "frames": [*record["frames"][:-1], encode_jpeg(np.zeros((16, 16, 3), np.uint8))]},
        lambda record: {**record, "frames": []},
        lambda record: 1 / 0,
    ],
    ids=["another size", "no frames", "an error of the reader"],
)
def test_a_damaged_record_is_replaced_in_training(opened, damage):
    """By the next one, with the draws of the record that it replaces: the stream stays a function of (seed, step)."""
    dataset = opened(crop="none", flip="none", max_bad_fraction=0.2)
    source = dataset._sources["train"]
    dataset._sources["train"] = _Damaged(source, {5}, damage)
    batches = take(train_batches(dataset, batch_size=12, seed=0), 2)
    assert_same(batches, take(train_batches(dataset, batch_size=12, seed=0), 2))
    clips = {int(i): clip for batch in batches for i, clip in zip(batch["index"], batch["clips"], strict=True)}
    assert sorted(clips) == list(range(24))
    np.testing.assert_array_equal(clips[5], clips[6])
    assert dataset.broken == 1


def test_worker_processes_replace_damaged_records(tmp_path):
    """The file itself is damaged, because workers open it again."""
    opened = [
        open_dataset(data_config(max_bad_fraction=0.2, **workers), default_dir=str(tmp_path))
        for workers in ({}, {"processes": 2, "threads": 1})
    ]
    (path,) = tmp_path.rglob("*-train.array_record*")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    path.write_bytes(content)
    one, other = (take(train_batches(dataset, batch_size=8, seed=1), 3) for dataset in opened)
    assert_same(one, other)
    assert 1 <= opened[0].broken <= 4


def test_a_narrow_view_is_named(tmp_path, caplog):
    """Evaluation shows 21x21 of 24x32 stored pixels, 57 % of the frame; 22x22 are 63 %."""
    for number, split in enumerate(("train", "val")):
        write_video(tmp_path / f"videos/{split}/a/{number}.avi", [0, 50])
    for size, crop, warned in ((21, "center", 1), (22, "center", 0), (21, "none", 0)):
        caplog.clear()
        section = data_config(name="video_folder", root=str(tmp_path / "videos"), size=size, crop=crop)
        for _ in range(2):  # The second time it is known.
            open_dataset(section, default_dir=str(tmp_path / "prepared"))
        assert caplog.text.count("the centre 21x21 of the stored 24x32 pixels, 57 % of the frame") == warned


def test_too_many_unreadable_records(opened):
    dataset = opened(max_bad_fraction=0.2)
    dataset._sources["val"] = _Damaged(dataset._sources["val"], {3, 5})
    with pytest.raises(ValueError, match=r"2 of 7 records of split val .*\[3, 5\].*prepare it again"):
        list(eval_batches(dataset, batch_size=1))


def test_example_of_moving_shapes(dataset):
    example = dataset.example("val", 1)
    assert example["id"] == "val_000001"
    assert example["displacement"].shape == (7, 4, 4, 2)
    assert example["displacement"].dtype == np.float32
    assert example["moving"].shape == (7, 4, 4)
    assert example["moving"].dtype == np.bool_
    assert example["frames"].shape == (8, 32, 32, 3)
    assert (example["label"], example["num_frames"], example["fps"]) == (1, 8, 8.0)
    with pytest.raises(ValueError, match=r"index 7 does not exist"):
        dataset.example("val", 7)


def test_closing_ends_the_threads(dataset):
    batches = train_batches(dataset, batch_size=2, seed=0)
    next(batches)
    assert any("grain" in thread.name for thread in threading.enumerate())
    batches.close()
    for thread in threading.enumerate():
        if "grain" in thread.name:
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.mark.parametrize("processes", [0, 2])
def test_an_open_iterator_leaves_no_noise_at_exit(folder, dataset, pytestconfig, processes, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from motion_jax.data.pipeline import *\n"
        "if __name__ == '__main__':\n"
        f"    section = DataConfig(**{data_section(processes=processes, threads=1)})\n"
        f"    batches = train_batches(open_dataset(section, default_dir={folder!r}), batch_size=2, seed=0)\n"
        "    next(batches)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        cwd=pytestconfig.rootpath,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_importing_is_light(pytestconfig):
    script = "import sys, motion_jax.data.pipeline; print({'grain', 'tensorflow_datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=pytestconfig.rootpath, check=True)
    assert done.stdout.strip() == b"set()"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: train_batches(d, batch_size=5, seed=0, process_count=2), "batch_size 5 .* multiple of 2"),
        (lambda d: train_batches(d, batch_size=4, seed=-1), "seed is -1"),
        (lambda d: train_batches(d, batch_size=4, seed=0, start_step=-1), "start_step is -1"),
        (lambda d: train_batches(d, batch_size=4, seed=0, process_index=2, process_count=2), "process_index is 2"),
        (lambda d: eval_batches(d, batch_size=4, crops=2), "crops is 2"),
        (lambda d: eval_batches(d, batch_size=4, clips=0), "clips is 0"),
        (lambda d: eval_batches(d, batch_size=4, corruption=Corruption("drop", 1, 8)), "frames 0 to 7"),
        (lambda d: eval_batches(d, batch_size=4, split="test"), "no split 'test'"),
    ],
)
def test_wrong_arguments_fail_at_once(dataset, call, message):
    with pytest.raises(ValueError, match=message):
        call(dataset)
