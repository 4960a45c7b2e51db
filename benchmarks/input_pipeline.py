"""Compare the input pipeline with a PyTorch loader and with JPEG decoding alone, in one run on the same clips.

Every loader turns generated clips of 48 frames (320x240, JPEG quality 90) into training clips of 8 frames (multi-scale
crop, 224x224, flip). The loaders are ours, a PyTorch DataLoader with the official transforms in Pillow, and
libjpeg-turbo, which only decodes the frames (a lower bound on the time). Rounds are interleaved. CPU time per clip
includes all threads and processes and is the more reliable figure on a busy machine. Requires
benchmarks/requirements.txt.

Examples:
    python -m benchmarks.input_pipeline --folder=runs/input_pipeline
    python -m benchmarks.input_pipeline --folder=runs/input_pipeline --output=benchmarks/results/input_pipeline.json
    python -m benchmarks.input_pipeline --folder=runs/input_pipeline --memory
"""

import gc
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from benchmarks.markdown import markdown_table
from motion_jax.cli import Parser, print_json, run, table, this_machine
from motion_jax.configs.video_folder import get_config
from motion_jax.data.clips import sampling, transforms
from motion_jax.data.config import DataConfig
from motion_jax.data.pipeline import train_batches
from motion_jax.data.sources.preparation import prepared
from motion_jax.data.storage.dataset import Dataset
from motion_jax.data.storage.records import open_sources
from motion_jax.data.storage.work import progress_bar

HEIGHT, WIDTH, FRAMES = 240, 320, 48
SHOWN, SIZE = 8, 224
CLASSES = ("walking", "running")
MEGABYTE = 2**20
# ImageNet statistics, as in the official loaders.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Measure the loaders or the memory, and print the result."""
    parser = Parser(__doc__)
    parser.add_argument("--folder", required=True, type=this_machine, help="folder for the generated clips")
    parser.add_argument("--clips", type=int, default=640, help="generated clips, each once per round; default: 640")
    parser.add_argument("--batch_size", type=int, default=16, help="clips per batch; default: 16")
    parser.add_argument(
        "--workers", type=int, default=2, help="threads of our loader, processes of PyTorch; default: 2"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each loader; default: 5")
    parser.add_argument("--memory", action="store_true", help="measure resident memory from batch 200 to 2,000")
    parser.add_argument("--output", type=this_machine, help="file for the result, as JSON")
    arguments = parser.parse_args()
    if not arguments.memory and not importlib.util.find_spec("torch"):
        raise ValueError("PyTorch is not installed: pip install -r benchmarks/requirements.txt, or choose --memory")
    ahead = batches_ahead(arguments.workers)
    if arguments.clips < 2 * ahead * arguments.batch_size:
        raise ValueError(
            f"--clips is {arguments.clips}: expected at least {2 * ahead} batches of {arguments.batch_size}"
        )
    dataset = make_dataset(arguments.folder, clips=arguments.clips, threads=arguments.workers)
    if arguments.memory:
        measured: dict[str, Any] = {"memory": memory_growth(dataset, batch_size=arguments.batch_size)}
        print("resident memory grows by {growth_mb:.1f} MB from batch {first} to {last}".format(**measured["memory"]))
    else:
        variants = compare(
            make_variants(dataset, arguments.folder, batch_size=arguments.batch_size, workers=arguments.workers),
            rounds=arguments.rounds,
            ahead=ahead,
        )
        measured = {"variants": variants, "ratios": ratios(variants)}
        print(comparison_table(variants))
        for name, value in measured["ratios"].items():
            print(f"{name}: {value:.2f}")
    options = {name: getattr(arguments, name) for name in ("clips", "batch_size", "workers", "rounds")}
    result = {**measured, "options": options, "environment": environment()}
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.json:
        print_json(result)


class MadeClips(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of generated clips with about 12 KB per frame, as in Something-Something."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, clips: int, *, data_dir: pathlib.Path) -> None:
        self._clips = clips
        config = tfds.core.BuilderConfig(name=f"clips_{clips}")
        super().__init__(data_dir=str(data_dir), file_format="array_record", config=config)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        features = {
            "id": tfds.features.Text(),
            "frames": tfds.features.Sequence(image),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
            "num_frames": np.int32,
            "fps": np.float32,
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with progress_bar(self._clips, label="clips") as bar:
            for index in range(self._clips):
                example = {"frames": make_clip(index), "label": index % len(CLASSES), "num_frames": FRAMES, "fps": 12.0}
                yield index, {"id": f"{index:06d}", **example}
                bar.update()


def make_clip(seed: int) -> list[bytes]:
    """Draw 48 JPEG frames (240, 320, 3): a camera pans over a textured scene, in which a rectangle moves."""
    rng = np.random.default_rng(seed)
    shape = (HEIGHT + FRAMES, WIDTH + 2 * FRAMES)
    colours = rng.integers(0, 256, (9, 12, 3), np.uint8)
    scene = cv2.resize(colours, shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = rng.normal(0, 1, (shape[0] // 2, shape[1] // 2)).astype(np.float32)
    scene = np.clip(scene + cv2.resize(grain, shape[::-1])[..., None], 0, 255).astype(np.uint8)
    frames = []
    for time_step in range(FRAMES):
        frame = scene[time_step : time_step + HEIGHT, 2 * time_step : 2 * time_step + WIDTH].copy()
        left = 40 + 3 * time_step
        frame[60:140, left : left + 60] = scene[:80, :60]
        frames.append(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return frames


def make_dataset(folder: pathlib.Path, *, clips: int, threads: int) -> Dataset:
    """Open the generated clips, and write a folder of frames per clip for the PyTorch loader."""
    builder = prepared(partial(MadeClips, clips, data_dir=folder))
    section = {
        **get_config().data,
        "root": "made",
        "frames": SHOWN,
        "size": SIZE,
        "resize": (HEIGHT, WIDTH),
        "threads": threads,
    }
    dataset = Dataset(DataConfig(**section), builder)
    records = open_sources(str(builder.data_path))["train"]
    for index in range(clips):
        target = frame_folder(folder, index)
        if not (target / f"{FRAMES - 1:02d}.jpg").is_file():
            target.mkdir(parents=True, exist_ok=True)
            for number, frame in enumerate(records[index]["frames"]):
                (target / f"{number:02d}.jpg").write_bytes(frame)
    return dataset


def frame_folder(folder: pathlib.Path, index: int) -> pathlib.Path:
    """Return the folder with the frames of a clip."""
    return folder / "frames" / f"{index:06d}"


# One call is one round; it yields the number of clips of each batch.
Variant = Callable[[], Iterator[int]]


def make_variants(dataset: Dataset, folder: pathlib.Path, *, batch_size: int, workers: int) -> dict[str, Variant]:
    """Return the loaders by name. A round covers all whole batches of the clips."""
    batches = dataset.size("train") // batch_size
    options = {"batches": batches, "batch_size": batch_size, "workers": workers}
    folders = [frame_folder(folder, index) for index in range(dataset.size("train"))]
    return {
        "ours": our_variant(dataset, batches=batches, batch_size=batch_size),
        "pytorch": peer_variant(folders, normalise=False, **options),
        "pytorch_normalised": peer_variant(folders, normalise=True, **options),
        "decode_only": partial(decode_round, sampled_frames(folders), workers=workers, batch_size=batch_size),
    }


def our_variant(dataset: Dataset, *, batches: int, batch_size: int) -> Variant:
    """Return our loader as train.py uses it. The stream continues from round to round."""
    stream = train_batches(dataset, batch_size=batch_size, seed=0)

    def one_round() -> Iterator[int]:
        for _ in range(batches):
            yield len(next(stream)["clips"])

    return one_round


def peer_variant(
    folders: Sequence[pathlib.Path], *, normalise: bool, batches: int, batch_size: int, workers: int
) -> Variant:
    """Return a PyTorch DataLoader over frame files with the official transforms in Pillow.

    Its workers persist between rounds, so a round does not include their start.
    """
    import torch
    from PIL import Image

    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    class Clips(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return batches * batch_size

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            draw = np.random.default_rng().integers
            indices = sampling.segment_train(FRAMES, SHOWN, draw=draw)
            images = [Image.open(folders[index] / f"{number:02d}.jpg").convert("RGB") for number in indices]
            box = transforms.multi_scale_crop(HEIGHT, WIDTH, size=SIZE, draw=draw)
            area = (box.x, box.y, box.x + box.width, box.y + box.height)
            images = [image.crop(area).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in images]
            if draw(2):
                images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
            clip = torch.from_numpy(np.stack(images))
            if normalise:
                clip = (clip.permute(0, 3, 1, 2).contiguous().float().div(255) - mean) / std
            return clip, index % len(CLASSES)

    loader = torch.utils.data.DataLoader(
        Clips(),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        # Fork has the lowest cost for PyTorch's workers; our loader uses threads.
        multiprocessing_context="fork",
    )

    def one_round() -> Iterator[int]:
        for clips, _ in loader:
            yield len(clips)

    return one_round


def sampled_frames(folders: Sequence[pathlib.Path]) -> list[list[bytes]]:
    """Read the 8 frames of each clip that one draw of the training sampling selects."""
    draw = np.random.default_rng(0).integers
    chosen = [sampling.segment_train(FRAMES, SHOWN, draw=draw) for _ in folders]
    return [
        [(folder / f"{number:02d}.jpg").read_bytes() for number in indices]
        for folder, indices in zip(folders, chosen, strict=True)
    ]


def decode_round(clips: Sequence[Sequence[bytes]], *, workers: int, batch_size: int) -> Iterator[int]:
    """Decode frames in memory with libjpeg-turbo (simplejpeg), each into the same buffer."""
    import simplejpeg

    def decode(batch: Sequence[Sequence[bytes]]) -> int:
        frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        for clip in batch:
            for data in clip:
                simplejpeg.decode_jpeg(data, buffer=frame)
        return len(batch)

    with ThreadPoolExecutor(workers) as pool:
        starts = range(0, len(clips) - batch_size + 1, batch_size)
        yield from pool.map(decode, [clips[start : start + batch_size] for start in starts])


def batches_ahead(workers: int) -> int:
    """Return a number of batches larger than what either loader prefetches."""
    return 2 * workers + 1


def compare(variants: dict[str, Variant], *, rounds: int, ahead: int) -> dict[str, dict[str, Any]]:
    """Measure clips per second and CPU milliseconds per clip of each variant, as lists over the rounds.

    Every second round runs in reverse order. A warm-up round, which is not counted, starts workers and fills caches.
    """
    rows: dict[str, dict[str, Any]] = {name: {"clips_per_second": [], "cpu_ms_per_clip": []} for name in variants}
    with progress_bar((rounds + 1) * len(variants), label="rounds") as bar:
        for number in range(-1, rounds):
            for name in list(variants)[:: -1 if number % 2 else 1]:
                gc.collect()
                clips_per_second, cpu_ms = one_measurement(variants[name], ahead=ahead)
                if number >= 0:
                    rows[name]["clips_per_second"].append(round(clips_per_second, 1))
                    rows[name]["cpu_ms_per_clip"].append(round(cpu_ms, 3))
                bar.update()
    return rows


def one_measurement(variant: Variant, *, ahead: int) -> tuple[float, float]:
    """Measure clips per second after the first ``ahead`` batches, and CPU milliseconds per clip over the round.

    A loader may hold prefetched batches at the start and prefetch others at the end. The CPU time is therefore read
    while the loader is idle, before and after the round, and the wall time starts after the prefetched batches.
    """
    cpu = cpu_seconds_at_rest()
    counts, start = [], 0.0
    for count in variant():
        counts.append(count)
        if len(counts) == ahead:
            start = time.perf_counter()
    wall = time.perf_counter() - start
    return sum(counts[ahead:]) / wall, 1e3 * (cpu_seconds_at_rest() - cpu) / sum(counts)


def cpu_seconds_at_rest() -> float:
    """Wait until ``cpu_seconds`` stops growing, and return it."""
    cpu = cpu_seconds()
    while True:
        time.sleep(0.3)
        before, cpu = cpu, cpu_seconds()
        if cpu - before < 0.005:
            return cpu


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its running workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        # The program name, in parentheses, may contain spaces.
        fields = pathlib.Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def ratios(variants: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the ratios of our medians to those of the other loaders, for clips per second and CPU time."""

    def median(name: str, of: str) -> float:
        return statistics.median(variants[name][of])

    found = {}
    for other in (name for name in variants if name != "ours"):
        speed, cpu = "clips_per_second", "cpu_ms_per_clip"
        found[f"clips per second, ours over {other}"] = round(median("ours", speed) / median(other, speed), 3)
        found[f"CPU time, {other} over ours"] = round(median(other, cpu) / median("ours", cpu), 3)
    return found


def comparison_table(variants: dict[str, dict[str, Any]]) -> str:
    """Format one line per variant: median [smallest-largest] of the rounds."""

    def median_and_range(values: Sequence[float], digits: int) -> str:
        return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"

    return table(
        ("variant", "clips/s", "CPU ms/clip"),
        [
            (name, median_and_range(row["clips_per_second"], 0), median_and_range(row["cpu_ms_per_clip"], 2))
            for name, row in variants.items()
        ],
    )


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the Markdown of the region ``input_pipeline`` for the content of ``input_pipeline.json``."""
    labels = {
        "ours": "ours",
        "pytorch": "PyTorch DataLoader, Pillow, uint8 out",
        "pytorch_normalised": "the same, with floats and normalisation as in the official code",
        "decode_only": "only decoding the frames with libjpeg-turbo",
    }
    rows = [
        (
            labels[name],
            f"{statistics.median(row['clips_per_second']):.0f}",
            f"{statistics.median(row['cpu_ms_per_clip']):.2f}",
        )
        for name, row in results["variants"].items()
    ]
    speed = {name: results["ratios"][f"clips per second, ours over {name}"] for name in labels if name != "ours"}
    options, setting = results["options"], dict(results["environment"])
    del setting["load"]
    return {
        "input_pipeline": f"""\
{markdown_table(("loader", "clips/s", "CPU ms per clip"), rows)}

Our loader delivers {speed["pytorch"]:.1f} times as many clips as the PyTorch loader with uint8 output, and \
{speed["pytorch_normalised"]:.1f} times as many as with normalisation on the host. It reaches \
{speed["decode_only"]:.2f} of the speed of decoding alone.

{options["workers"]} workers, medians of {options["rounds"]} interleaved rounds of {options["clips"]} clips, \
{", ".join(f"{name} {value}" for name, value in setting.items())}."""
    }


def memory_growth(dataset: Dataset, *, batch_size: int, first: int = 200, last: int = 2000) -> dict[str, float]:
    """Measure the resident memory of this process after batches ``first`` and ``last`` of our loader, in MB."""
    stream = train_batches(dataset, batch_size=batch_size, seed=0)
    resident = {}
    with progress_bar(last, label="batches") as bar:
        for number in range(1, last + 1):
            next(stream)
            bar.update()
            if number in (first, last):
                gc.collect()
                resident[number] = resident_megabytes()
    stream.close()
    return {
        "first": first,
        "last": last,
        "first_mb": round(resident[first], 1),
        "last_mb": round(resident[last], 1),
        "growth_mb": round(resident[last] - resident[first], 1),
    }


def resident_megabytes() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def environment() -> dict[str, Any]:
    """Describe versions, processor, cores and load."""
    names = ("grain", "tensorflow-datasets", "array_record", "opencv-python-headless", "numpy", "torch", "pillow")
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in (*names, "simplejpeg")},
        "processor": processor or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lines(path: str) -> list[str]:
    file = pathlib.Path(path)
    return file.read_text().splitlines() if file.is_file() else []


if __name__ == "__main__":
    run(main)
