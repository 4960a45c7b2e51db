"""Train our networks and plain PyTorch twins from the same ImageNet weights on the same batches of real clips.

Examples:
    python -m benchmarks.torch_training --root=DIR
    python -m benchmarks.torch_training --root=DIR --weights=mobilenet_v2.pth --workdir=runs/real_clips

The first part compares the losses of 30 updates, step by step, in float64 and in float32, without dropout. The second
part compares the accuracy of whole runs over five seeds; dropout differs, because each framework draws its own. Clips,
weights, options and recipe are those of benchmarks/real_clips.py. Runs that --workdir holds are not repeated. Requires
PyTorch (benchmarks/requirements.txt).
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.accuracy import over_seeds
from benchmarks.real_clips import (
    COLLECTIONS,
    FRAMES,
    add_arguments,
    config_changes,
    description,
    network_results,
    packaged_weights,
)
from benchmarks.torch_comparison import COMPARED_STEPS, tables
from benchmarks.torch_mobilenetv2 import MobileNetV2, build_network
from benchmarks.torch_networks import MEAN, STD, make_optimizer, predict, train_step
from motion_jax.cli import Parser, print_json, read_config, run
from motion_jax.data.pipeline import Dataset, eval_batches, train_batches
from motion_jax.experiment import Experiment, initial_variables, open_data
from motion_jax.training.parallel import ParallelConfig, place_ahead, replicate
from motion_jax.training.progress import bar
from motion_jax.training.recipe import make_optimizer as make_our_optimizer
from motion_jax.training.recipe import make_schedule
from motion_jax.training.state import create_state
from motion_jax.training.step import make_train_step
from motion_jax.weights.save import torch_state_dict

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "torch_training.json"
LOSSES_OF = ("tsm_mobilenetv2",)
RUNS_OF = ("tsn_mobilenetv2", "tsm_mobilenetv2")
COLLECTION = "fight_surv"
SEEDS = range(5)
# Results of whole runs.
KEPT = ("top1", "train_loss")
Batch = Mapping[str, np.ndarray]


def main() -> None:
    """Run both comparisons, and write and print their results."""
    parser = Parser(__doc__)
    add_arguments(parser, output=RESULTS)
    arguments = parser.parse_args()
    weights = arguments.weights or packaged_weights()
    torch.set_num_threads(1)  # The maps are small: with more threads, a step takes longer.
    folder = arguments.workdir / COLLECTION
    changes = {**config_changes(COLLECTION, arguments.root, weights), "data.dir": str((folder / "data").absolute())}
    ours = network_results(
        COLLECTION, arguments.root, weights, workdir=arguments.workdir, networks=RUNS_OF, seeds=SEEDS
    )
    runs = {}
    for network in RUNS_OF:
        theirs = [
            whole_run(network, changes, seed=seed, file=folder / "pytorch" / network / f"{seed}.json")
            for seed in bar(SEEDS, desc=f"PyTorch, {network}", unit="run")
        ]
        runs[network] = {**ours[network], "pytorch": {key: over_seeds([run[key] for run in theirs]) for key in KEPT}}
    described = description()
    results = {
        **described,
        "setting": {**described["setting"], "torch": torch.__version__},
        "collection": COLLECTIONS[COLLECTION],
        "losses": {
            network: losses(network, changes, file=folder / "losses" / f"{network}.json") for network in LOSSES_OF
        },
        "runs": runs,
    }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(*tables(results).values(), sep="\n\n")
    if arguments.json:
        print_json(results)


@dataclasses.dataclass(frozen=True)
class Start:
    """Data, recipe and initial weights of one run, for both frameworks.

    Attributes:
        experiment: the config.
        dataset: the clips.
        variables: initial weights, float32.
    """

    experiment: Experiment
    dataset: Dataset
    variables: dict[str, Any]

    @classmethod
    def of(cls, network: str, changes: Mapping[str, str], *, seed: int) -> "Start":
        """Read the config of a network with changes, open its data and draw its initial weights."""
        config = read_config(f"configs/video_folder.py:{network},{FRAMES}", {**changes, "seed": str(seed)})
        experiment = Experiment.from_config(config)
        dataset = open_data(experiment.data, pathlib.Path(experiment.data.dir))
        model = experiment.model.build(len(dataset.labels))
        return cls(experiment, dataset, initial_variables(model, experiment.train.init_from, seed=seed))

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate as a function of the number of completed updates."""
        return make_schedule(self.experiment.train, train_size=self.dataset.size("train"))

    def learning_rate(self, step: int) -> float:
        """Return the learning rate after ``step`` updates in double precision, as PyTorch's optimizers keep it."""
        with jax.enable_x64(True):
            return float(self.schedule(step))

    def batches(self) -> Iterator[Batch]:
        """Return the training batches."""
        experiment = self.experiment
        return train_batches(self.dataset, batch_size=experiment.train.batch_size, seed=experiment.seed)

    def torch_network(self, *, dropout: float) -> MobileNetV2:
        """Build the PyTorch version with the initial weights."""
        model, classes = self.experiment.model, len(self.dataset.labels)
        network = build_network(model.name, num_classes=classes, frames=self.experiment.data.frames, dropout=dropout)
        arrays = torch_state_dict(model.build(classes), self.variables)
        network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
        return network


def losses(network: str, changes: Mapping[str, str], *, file: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """Return ``{"ours", "pytorch"}`` -> ``{"float64", "float32"}`` -> loss of each of the first updates.

    Both frameworks get the same normalised clips. There is no dropout. The result is kept in ``file`` and read from
    there if it exists.
    """
    if not file.is_file():
        start = Start.of(network, changes, seed=0)
        batches = [normalised(batch) for batch in itertools.islice(start.batches(), max(COMPARED_STEPS))]
        dtypes = ("float64", "float32")
        found = {
            "ours": {dtype: our_losses(start, batches, dtype=dtype) for dtype in dtypes},
            "pytorch": {dtype: torch_losses(start, batches, dtype=getattr(torch, dtype)) for dtype in dtypes},
        }
        write_json(file, found)
    return json.loads(file.read_text())


def normalised(batch: Batch) -> Batch:
    """Return a batch with its clips normalised in float64."""
    return {"clips": (batch["clips"] / 255.0 - np.array(MEAN)) / np.array(STD), "label": np.array(batch["label"])}


def our_losses(start: Start, batches: Sequence[Batch], *, dtype: str) -> list[float]:
    """Train our network without dropout on normalised batches, and return the loss before each update."""
    experiment, data = start.experiment, start.experiment.data
    parallel = ParallelConfig(backend="pmap", devices=1)
    with jax.enable_x64(dtype == "float64"):
        model = dataclasses.replace(experiment.model, dropout=0.0, dtype=dtype).build(len(start.dataset.labels))
        optimizer = make_our_optimizer(experiment.train, start.schedule)
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), start.variables)
        shape = (data.frames, data.size, data.size, 3)
        state = create_state(model, optimizer, seed=0, clip_shape=shape, variables=variables)
        step = replicate(make_train_step(model, optimizer, schedule=start.schedule, seed=0), parallel)
        cast = ({**batch, "clips": batch["clips"].astype(dtype)} for batch in batches)
        found = []
        for batch in bar(place_ahead(cast, parallel), desc=f"our losses, {dtype}", total=len(batches)):
            state, metrics = step(state, batch)
            found.append(float(metrics["loss"]))
    return found


def torch_losses(start: Start, batches: Sequence[Batch], *, dtype: torch.dtype) -> list[float]:
    """Train the PyTorch version without dropout on normalised batches, and return the loss before each update."""
    network = start.torch_network(dropout=0.0).to(dtype)
    return list(bar(torch_updates(start, network, batches), desc="PyTorch losses", total=len(batches)))


def torch_updates(start: Start, network: MobileNetV2, batches: Iterable[Batch]) -> Iterator[float]:
    """Train the PyTorch version with the recipe, and yield the loss before each update."""
    rate = start.experiment.train.learning_rate
    optimizer = make_optimizer(network, learning_rate=rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: start.learning_rate(step) / rate)
    network.train()
    dtype = network.classifier.weight.dtype
    for batch in batches:
        clips, labels = torch.from_numpy(batch["clips"]), torch.from_numpy(batch["label"].astype(np.int64))
        clips = clips.to(dtype) if clips.is_floating_point() else clips
        loss, _ = train_step(network, optimizer, clips, labels, dtype=torch.float32)
        scheduler.step()
        yield float(loss)


def whole_run(network: str, changes: Mapping[str, str], *, seed: int, file: pathlib.Path) -> dict[str, float]:
    """Train and evaluate the PyTorch version of a network; return top-1 in percent and the last training loss.

    The result is kept in ``file`` and read from there if it exists.
    """
    if not file.is_file():
        start = Start.of(network, changes, seed=seed)
        train = start.experiment.train
        torch.manual_seed(seed)
        twin = start.torch_network(dropout=start.experiment.model.dropout)
        steps = train.total_steps(start.dataset.size("train"))
        found = list(torch_updates(start, twin, itertools.islice(start.batches(), steps)))
        # As in a log line of ours.
        result = {"top1": torch_accuracy(twin, start), "train_loss": float(np.mean(found[-train.log_every :]))}
        write_json(file, result)
    return json.loads(file.read_text())


def write_json(file: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Write a result, into a new folder if needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result) + "\n")


def torch_accuracy(network: MobileNetV2, start: Start) -> float:
    """Return the top-1 of the PyTorch version in percent, with one view per clip."""
    right = []
    for batch in eval_batches(start.dataset, batch_size=start.experiment.eval.batch_size):
        logits = predict(network.eval(), torch.from_numpy(batch["clips"][:, 0]), dtype=torch.float32)
        right.extend((logits.argmax(1).numpy() == batch["label"])[batch["mask"]])
    return 100 * float(np.mean(right))


if __name__ == "__main__":
    run(main)
