"""Files that describe the run in a workdir, and its compilation cache."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from motion_jax.places import write_whole


def check_workdir(workdir: epath.Path, config: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Raise an error if a workdir belongs to a run of another model or of other classes.

    Raises:
        ValueError: naming both models, or both numbers of labels.
    """

    def name_of(config: Mapping[str, Any]) -> Any:
        return config.get("model", {}).get("name")

    cure = "choose another workdir, or delete this one"
    path = workdir / "config.json"
    if path.exists() and (kept := name_of(json.loads(path.read_text(encoding="utf-8")))) != name_of(config):
        raise ValueError(f"{workdir} holds a run of {kept}, this one is of {name_of(config)}: {cure}")
    path = workdir / "labels.json"
    if path.exists() and (kept := json.loads(path.read_text(encoding="utf-8"))) != list(labels):
        raise ValueError(f"{workdir} holds a run with {len(kept)} other labels than these {len(labels)}: {cure}")


def describe_workdir(workdir: epath.Path, config: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Write ``config.json`` and ``labels.json``, on the first process only."""
    if jax.process_index() == 0:
        write_whole(workdir / "config.json", json.dumps(config, indent=1))
        write_whole(workdir / "labels.json", json.dumps(list(labels), indent=1, ensure_ascii=False))


def use_compile_cache(workdir: epath.Path) -> None:
    """Store compiled programs in the workdir, so that a restart need not compile; keep a cache that is already set."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compile_cache"))
