"""The page of a network on the Hugging Face hub: README.md with the metadata that the hub reads."""

from collections.abc import Mapping
from typing import Any

from motion_jax.text import printable
from motion_jax.weights.card import Card

TASK = "video-classification"
METRICS = {"top1": "top-1 accuracy", "top5": "top-5 accuracy", "mean_class": "mean-class accuracy"}
# The values of a protocol that the page states.
PROTOCOL = ("split", "clips", "crops", "average", "frames", "size", "full_resolution", "corruption")
MOST_LABELS = 12


def model_card(card: Card, *, name: str, license: str | None, picture: str | None) -> str:
    """Return the page: metadata in YAML, a picture, the use, the input, the results and the classes.

    Args:
        card: of the export.
        name: repository, ``org/name``, or folder.
        license: identifier of the hub; None if none is stated.
        picture: file name of a picture in the folder, or None.
    """
    import yaml

    metadata = yaml.safe_dump(_metadata(card, name=name, license=license), sort_keys=False, allow_unicode=True)
    wanted, labels = card.preprocessing, card.labels
    listed = ", ".join(printable(label) for label in labels[:MOST_LABELS])
    more = f" and {len(labels) - MOST_LABELS} more, see `labels.json`" if len(labels) > MOST_LABELS else ""
    stated = (
        f"`{license}`."
        if license
        else "None is stated (`tools.export --license=ID` states one). Ask the author before use."
    )
    parts = [
        f"---\n{metadata}---",
        f"# {name.rpartition('/')[2]}",
        f"`{card.model['name']}`, a video classifier for {len(labels)} classes, trained on "
        f"`{card.config['data']['name']}` with motion-jax (JAX and Flax).",
        *([f"![What the network sees in a clip]({picture})"] if picture else []),
        "## Use",
        f"""```bash
pip install "motion-jax[hub]"
```

```python
import motion_jax

predictor = motion_jax.Predictor(motion_jax.from_pretrained("{name}"))
print(predictor("clip.mp4"))
```""",
        f"The network takes {wanted.frames} frames of {wanted.size}x{wanted.size} pixels, sampled over the video "
        f"(`{wanted.sampling}`, crop `{wanted.crop}`, frames resized to {_size(wanted.resize)}). "
        "`config.json` holds the whole config, the versions and the checksum of the weights.",
        "## Results",
        _results(card.metrics),
        "## Classes",
        f"{listed}{more}.",
        "## License",
        stated,
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(card: Card, *, name: str, license: str | None) -> dict[str, Any]:
    dataset, protocol = card.config["data"]["name"], _protocol(card.metrics)
    metadata: dict[str, Any] = {"pipeline_tag": TASK, "library_name": "motion-jax"}
    if license:
        metadata["license"] = license
    metadata |= {"tags": ["jax", "flax", "action-recognition", card.model["name"]], "datasets": [dataset]}
    if not card.metrics:
        return metadata
    # The hub takes fractions of one as accuracies.
    found = [
        {"type": "accuracy", "name": title, "value": round(card.metrics[key] / 100, 6), "args": protocol}
        for key, title in METRICS.items()
    ]
    result = {
        "task": {"type": TASK},
        "dataset": {"type": dataset, "name": dataset, "split": protocol["split"]},
        "metrics": found,
    }
    metadata["metrics"] = ["accuracy"]
    metadata["model-index"] = [{"name": name.rpartition("/")[2], "results": [result]}]
    return metadata


def _results(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "No evaluation of this checkpoint is recorded."
    rows = "\n".join(f"| {title} | {metrics[key]:.2f} % |" for key, title in METRICS.items())
    protocol = ", ".join(f"{key} {value}" for key, value in _protocol(metrics).items())
    return f"| metric | value |\n| --- | ---: |\n{rows}\n\nOn {metrics['clips']} videos. Protocol: {protocol}."


def _protocol(metrics: Mapping[str, Any]) -> dict[str, Any]:
    protocol = metrics.get("protocol", {})
    return {key: protocol[key] for key in PROTOCOL if protocol.get(key) is not None}


def _size(resize: tuple[int, int] | int | None) -> str:
    if resize is None:
        return "nothing, they keep their size"
    return f"a short side of {resize}" if isinstance(resize, int) else f"{resize[0]}x{resize[1]} (height x width)"
