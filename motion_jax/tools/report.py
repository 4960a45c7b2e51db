"""Compare runs: accuracy, chance, and accuracy within pairs of classes that need motion.

Examples:
    python -m motion_jax.tools.report runs/demo/tsn_r18 runs/demo/msnet_tsm_r18
    python -m motion_jax.tools.report runs/demo/tsn_r18 runs/demo/msnet_tsm_r18 --output=report.html
    python -m motion_jax.tools.report runs/demo/* --json

Evaluate every run first: eval.py writes eval.json and scores.npz into the workdir.
Runs of other videos or classes than the first are refused. "input wait %" is the share of the
training time in which the devices waited for clips.

--output writes a page that needs no network: metrics with confidence intervals, what differs between the configs, the
curves of the training, classes, confusion, calibration, the best and the worst clips with what the network sees in
them, protocol, environment and history. With --output a run may be without an evaluation; the page says what is
missing.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from motion_jax.cli import Parser, add_runs, print_json, run, runs_of, table, this_machine
from motion_jax.data.clips.views import write_views
from motion_jax.data.config import DataConfig
from motion_jax.data.sources.moving_shapes import CLASSES as MOVING_SHAPES
from motion_jax.data.storage.dataset import Dataset
from motion_jax.data.storage.frames import UnreadableError
from motion_jax.experiment import Experiment, load_trained, open_data, workdir_of
from motion_jax.inspection.clip_inspection import make_inspector
from motion_jax.inspection.pages import clip_cards
from motion_jax.inspection.pages.report import Evaluation, Run, report_page
from motion_jax.places import data_folder, write_whole
from motion_jax.text import short_names
from motion_jax.training import history, json_lines
from motion_jax.training.metrics import read_log
from motion_jax.training.progress import log, log_compilation
from motion_jax.training.scores import METRICS, Scores, check_comparable, read_result, read_scores
from motion_jax.training.workdir import read_json


def main() -> None:
    """Print the tables, and write the page."""
    parser = Parser(__doc__)
    add_runs(parser, help="an evaluated run: its workdir or a checkpoint in it")
    parser.add_argument("--output", type=this_machine, metavar="FILE", help="write a page, such as report.html")
    parser.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="right and wrong clips per run on the page; default: 4, or 2 for more than 8 runs",
    )
    arguments = parser.parse_args()
    workdirs = [workdir_of(epath.Path(run), strict=False) for run in runs_of(parser, arguments)]
    configs = [read_json(workdir / "config.json", dict) for workdir in workdirs]
    evaluated = [workdir for workdir in workdirs if not arguments.output or _is_evaluated(workdir)]
    scores = [read_scores(workdir / "scores.npz") for workdir in evaluated]
    if scores:
        check_comparable(scores)
    check_same_data(workdirs, configs)
    runs = [_described(workdir, each) for workdir, each in zip(evaluated, scores, strict=True)]
    if runs:
        print(accuracy_table(runs))
    if pairs := pair_table(runs):
        print(f"\nTop-1 within each pair, without the other classes (chance 50):\n{pairs}")
    if arguments.output:
        known = dict(zip(evaluated, scores, strict=True))
        read = [(workdir, config, known.get(workdir)) for workdir, config in zip(workdirs, configs, strict=True)]
        clips = (4 if len(read) <= 8 else 2) if arguments.clips is None else max(arguments.clips, 0)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.output, make_page(read, clips=clips))
        print(f"-> {arguments.output}")
    if arguments.json:
        print_json({"runs": runs})


def read_run(workdir: epath.Path) -> dict[str, Any]:
    """Read the evaluation of a workdir, with the accuracy within pairs for moving_shapes; ValueError without one."""
    return _described(workdir, read_scores(workdir / "scores.npz"))


def _described(workdir: epath.Path, scores: Scores) -> dict[str, Any]:
    result, names = read_result(workdir), tuple(scores.names.tolist())
    return {
        "workdir": str(workdir),
        "model": result["protocol"]["model"],
        **{name: result[name] for name in METRICS},
        "chance": 100 / len(names),
        "input_wait": input_wait(workdir),
        "pairs": within_pairs(scores.scores, scores.labels, names) if names == MOVING_SHAPES else {},
    }


def _is_evaluated(workdir: epath.Path) -> bool:
    """Return whether a workdir holds a whole evaluation; ValueError if it holds nothing of a run."""
    found = [(workdir / name).exists() for name in ("eval.json", "scores.npz", "config.json", "metrics.jsonl")]
    if not any(found):
        raise ValueError(f"{workdir} is no workdir of a run: it has neither config.json nor eval.json")
    return all(found[:2])


def check_same_data(workdirs: Sequence[epath.Path], configs: Sequence[dict[str, Any]]) -> None:
    """Check that the configs of runs name the same data, as far as they say.

    Raises:
        ValueError: with the first difference in data set, version or fingerprint.
    """
    sections = [config["data"] if isinstance(config.get("data"), dict) else {} for config in configs]
    for workdir, section in zip(workdirs, sections, strict=True):
        for key in ("name", "version", "fingerprint"):
            first, here = str(sections[0].get(key)), str(section.get(key))
            # The data of earlier versions have no fingerprint, or one that does not depend on the videos.
            known = not any(value == "None" or value.startswith("unchecked-") for value in (first, here))
            if known and first != here:
                raise ValueError(
                    f"{workdirs[0]} and {workdir} are of different data: data.{key} is {first} and {here}; compare "
                    "runs on the same data"
                )


def input_wait(workdir: epath.Path) -> float | None:
    """Return the median share of time that the devices waited for input, in percent; None without a log."""
    shares = [
        value
        for line in json_lines.read(workdir / "metrics.jsonl")
        if isinstance(value := line.get("input_wait"), int | float)
    ]
    return 100 * float(np.median(shares)) if shares else None


def within_pairs(scores: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Return top-1 in percent between labels 2k and 2k + 1, the other classes ignored, by ``"name | name"``."""
    accuracy = {}
    for first in range(0, len(names), 2):
        rows = labels // 2 == first // 2
        chosen = first + scores[rows, first : first + 2].argmax(1)
        accuracy[f"{names[first]} | {names[first + 1]}"] = 100 * float(np.mean(chosen == labels[rows]))
    return accuracy


def accuracy_table(runs: list[dict[str, Any]]) -> str:
    """Format one row per run, and one for chance."""
    rows = [
        (
            run["model"],
            *(round(run[name], 2) for name in ("top1", "top5", "mean_class")),
            run["clips"],
            "" if run["input_wait"] is None else round(run["input_wait"], 2),
            run["workdir"],
        )
        for run in runs
    ]
    chance = round(runs[0]["chance"], 2)
    rows.append(("chance", chance, round(min(100.0, 5 * chance), 2), chance, runs[0]["clips"], "", ""))
    return table(("model", "top1", "top5", "mean_class", "clips", "input wait %", "workdir"), rows)


def pair_table(runs: list[dict[str, Any]]) -> str:
    """Format one row per pair of classes and one column per run; empty if the classes have no pairs."""
    runs = [run for run in runs if run["pairs"]]
    if not runs:
        return ""
    rows = [(pair, *(round(run["pairs"][pair], 2) for run in runs)) for pair in runs[0]["pairs"]]
    return table(("pair", *(run["model"] for run in runs)), rows)


def make_page(read: Sequence[tuple[epath.Path, dict[str, Any], Scores | None]], *, clips: int) -> str:
    """Return the page of runs.

    Args:
        read: workdir, config and scores of each run; None for a run that was not evaluated.
        clips: number of right and of wrong clips to show per run.
    """
    results = [scores and read_result(workdir) for workdir, _, scores in read]
    models = [_model_of(config, result, workdir) for (workdir, config, _), result in zip(read, results, strict=True)]
    names = short_names(models, [str(workdir) for workdir, *_ in read])
    runs = []
    for (workdir, config, scores), result, model, name in zip(read, results, models, names, strict=True):
        again = f"python eval.py --workdir={workdir}"
        evaluation, cards, pairs = None, [], {}
        missing = [] if config else [("config.json is absent, so its config is not shown.", "")]
        if scores is None:
            missing.append(
                ("eval.json or scores.npz is absent, so its metrics, classes and clips are not shown.", again)
            )
        else:
            classes = tuple(scores.names.tolist())
            ids = None if scores.ids is None else scores.ids.tolist()
            evaluation = Evaluation(
                {key: result[key] for key in METRICS},
                result["protocol"],
                scores.scores,
                scores.labels,
                classes,
                ids,
                scores.average,
            )
            pairs = within_pairs(scores.scores, scores.labels, classes) if classes == MOVING_SHAPES else {}
            if abs(result["top1"] - 100 * evaluation.right.mean()) > 0.5:
                missing.append(("eval.json and scores.npz are of different evaluations.", again))
            if scores.average is None:
                missing.append(("scores.npz does not say whether it holds probabilities: no calibration.", again))
            try:
                cards = clip_cards_of(workdir, config, evaluation, name=name, most=clips) if clips else []
            except (ValueError, OSError) as error:
                missing.append((f"its clips are not shown: {' '.join(str(error).split())}.", ""))
        lines = history.read_lines(workdir)
        runs.append(Run(name, str(workdir), model, config, read_log(workdir), lines, evaluation, pairs, cards, missing))
    return report_page(runs)


def _model_of(config: dict[str, Any], result: dict[str, Any] | None, workdir: epath.Path) -> str:
    """Return the name of a run's network, from its evaluation, its config, or its folder."""
    if result:
        return result["protocol"]["model"]
    section = config.get("model")
    return str(section["name"]) if isinstance(section, dict) and "name" in section else workdir.name


def clip_cards_of(
    workdir: epath.Path, config: dict[str, Any], evaluation: Evaluation, *, name: str, most: int
) -> list[dict[str, Any]]:
    """Return the clips of which a run is most certain, right and wrong, with what its network sees in them.

    Raises:
        ValueError: if its data or its checkpoint are gone, or its scores do not name the clips.
    """
    probabilities, protocol = evaluation.probabilities, evaluation.protocol
    if probabilities is None or evaluation.ids is None:
        raise ValueError("scores.npz is of an earlier version and lacks their names; evaluate the run again")
    if protocol.get("corruption"):
        raise ValueError("they were evaluated with corrupted frames")
    section = Experiment.from_config(config).data
    folder = pathlib.Path(section.dir or data_folder(workdir)) / section.name
    if not any(folder.glob("**/dataset_info.json")):
        raise ValueError(f"the data are gone: there are no prepared records in {folder}")
    log(f"reading clips of {name} ...")
    dataset = open_data(section, workdir)
    split, predicted, right = str(protocol.get("split", "val")), evaluation.predicted, evaluation.right
    by_confidence = np.argsort(-probabilities.max(axis=1), kind="stable")
    chosen = [*by_confidence[right[by_confidence]][:most], *by_confidence[~right[by_confidence]][:most]]
    views = [read_clip(dataset, section, split=split, index=index, id=evaluation.ids[index]) for index in chosen]
    log(f"drawing {len(chosen)} clips of {name} ...")
    step = str(protocol.get("step"))
    folders = [workdir / "checkpoints" / kind / step for kind in ("best", "latest")]
    trained = load_trained(next((each for each in folders if each.is_dir()), workdir))
    inspect = log_compilation(make_inspector(trained.model, trained.restored.variables), trained.experiment.model.name)
    pictures = clip_cards.overlays([inspect(clip) for clip in views], [int(predicted[index]) for index in chosen])
    cards = []
    for index, clip, picture in zip(chosen, views, pictures, strict=True):
        best = np.argsort(-probabilities[index], kind="stable")[:3]
        cards.append(
            {
                "id": evaluation.ids[index],
                "right": bool(right[index]),
                "label": evaluation.classes[evaluation.labels[index]],
                "predicted": evaluation.classes[predicted[index]],
                "best": [(evaluation.classes[at], round(float(probabilities[index, at]), 5)) for at in best],
                **clip_cards.frames_picture(clip),
                **picture,
            }
        )
    return cards


def read_clip(dataset: Dataset, section: DataConfig, *, split: str, index: int, id: str) -> np.ndarray:
    """Return the central view of an example, uint8 (t, size, size, 3).

    Raises:
        ValueError: if it cannot be read, or has another id than ``id``.
    """
    clip = np.empty((1, section.frames, section.size, section.size, 3), np.uint8)
    try:
        record = dataset.record(split, int(index))
        if (found := record["id"].decode()) != id:
            raise ValueError(f"the data changed since the evaluation: clip {index} was {id} and is {found}")
        write_views(clip, record["frames"], section, clips=1, crops=1)
    except UnreadableError as error:
        raise ValueError(f"clip {id} of split {split} cannot be read: {error}") from error
    return clip[0]


if __name__ == "__main__":
    run(main)
