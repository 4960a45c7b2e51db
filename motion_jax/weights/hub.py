"""Folders as the Hugging Face hub holds them: weights, a card and a page. No code in them is run."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from motion_jax.places import first_line, is_bucket, local_place
from motion_jax.weights.card import Card, read_card, write_card
from motion_jax.weights.load import load_torch
from motion_jax.weights.model_card import model_card
from motion_jax.weights.save import save_safetensors

WEIGHTS, CARD, LABELS, PAGE, PICTURE = "model.safetensors", "config.json", "labels.json", "README.md", "preview.png"
INSTALL = 'pip install "motion-jax[hub]"'
# Values of a config that are paths of the machine that trained.
_PATHS = ("root", "dir", "init_from")


class Pretrained(NamedTuple):
    """A network with its weights and its card, which ``motion_jax.Predictor`` takes as it stands."""

    model: nn.Module
    variables: dict[str, Any]
    card: Card

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes in the order of the logits."""
        return self.card.labels

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the run that trained it."""
        return self.card.config


def from_pretrained(source: str | os.PathLike, *, revision: str | None = None) -> Pretrained:
    """Load a network that ``tools.export --format=hub`` wrote, from a folder or from the Hugging Face hub.

    The checksums of the weights and of the card are verified, and no code of the folder is run. Files of the hub are
    kept in its cache (``HF_HOME``), which is read without a network too (``HF_HUB_OFFLINE=1``). ``HF_TOKEN`` opens
    private repositories.

    Args:
        source: a folder, or the name of a repository, ``org/name``, which needs the package ``huggingface_hub``.
        revision: branch, tag or commit of the repository; None for its main branch.

    Returns:
        ``(model, variables, card)``, also by these names.

    Raises:
        ValueError: if there is no such folder or repository, it is not ours or of a newer version, or it is damaged.
    """
    text = os.fspath(source)
    if not is_bucket(text) and local_place(text).is_dir():
        if revision is not None:
            raise ValueError(f"{text} is a folder, which has no revision {revision}: leave revision out")
        return read_hub_folder(text)
    if not _is_repository(text):
        raise ValueError(f"there is no folder {text}; give one of this machine, or org/name of the Hugging Face hub")
    if not _can_reach_hub():
        raise ValueError(f"there is no folder {text}; to load it from the Hugging Face hub: {INSTALL}")
    return read_hub_folder(_download(text, revision), name=text)


def is_hub_folder(folder: str | os.PathLike) -> bool:
    """Return whether a folder holds a card and weights by the names of a hub folder."""
    return all(pathlib.Path(folder, name).is_file() for name in (WEIGHTS, CARD))


def read_hub_folder(folder: str | os.PathLike, *, name: str | None = None) -> Pretrained:
    """Read a folder that ``write_hub_folder`` wrote; ``name`` is what messages call it.

    Raises:
        ValueError: if it is not ours or of a newer version, or it is damaged.
    """
    folder = local_place(folder)
    name = name or os.fspath(folder)
    _check_ours(folder / CARD, name)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{name} holds no {WEIGHTS}: copy or export it again")
    card = read_card(folder / WEIGHTS, path=folder / CARD)
    try:
        model = card.build()
    except ValueError as error:
        raise ValueError(
            f"{name}: {error}; it may be of a newer motion-jax: pip install --upgrade motion-jax"
        ) from error
    return Pretrained(model, load_torch(folder / WEIGHTS, model), card)


def write_hub_folder(
    folder: pathlib.Path, variables: Mapping[str, Any], card: Card, *, name: str, license: str | None
) -> None:
    """Write weights, card, labels and page into a folder, which may hold the picture of the page already.

    Paths of this machine in the config are cut to their last part, because the folder is made to be published.

    Args:
        folder: exists.
        variables: {"params", "batch_stats"}.
        card: of format ``hub``.
        name: title of the page and name in its example, a repository or a folder.
        license: identifier of the hub, such as ``apache-2.0``; None if none is stated.
    """
    card = dataclasses.replace(card, config=_without_folders(card.config), metrics=_without_folders(card.metrics))
    save_safetensors(folder / WEIGHTS, variables)
    (folder / LABELS).write_text(json.dumps(card.labels, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    picture = PICTURE if (folder / PICTURE).is_file() else None
    page = model_card(card, name=name, license=license, picture=picture)
    (folder / PAGE).write_text(page, encoding="utf-8")
    write_card(folder / WEIGHTS, card, path=folder / CARD)


def move_hub_folder(source: pathlib.Path, target: pathlib.Path) -> None:
    """Move the files of a hub folder into ``target``, the card last; other files there, such as ``.git``, stay."""
    target.mkdir(exist_ok=True)
    (target / PICTURE).unlink(missing_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == CARD):
        os.replace(path, target / path.name)


def check_target(folder: pathlib.Path) -> None:
    """Raise a ValueError if a folder holds other files than those of a hub folder."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; --output takes a folder")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            _check_ours(folder / CARD, os.fspath(folder))
        except ValueError as error:
            raise ValueError(
                f"{folder} holds other files, which would be mixed with the export: give a new folder"
            ) from error


def check_push(repository: str) -> None:
    """Raise a ValueError if a repository cannot be written to, as far as this is known without the network."""
    if not _is_repository(repository):
        raise ValueError(f"--push takes a repository of the Hugging Face hub, org/name; got {repository}")
    if not _can_reach_hub():
        raise ValueError(f"--push needs the package huggingface_hub: {INSTALL}")
    import huggingface_hub

    if not huggingface_hub.get_token():
        raise ValueError(
            "--push needs a token with write access: make one on the hub (settings/tokens), and set HF_TOKEN"
        )


def push(folder: pathlib.Path, repository: str, *, revision: str | None = None, private: bool = False) -> str:
    """Upload a hub folder in one commit, and return the address of the commit.

    Args:
        folder: a hub folder; its other files are not uploaded.
        repository: ``org/name``; created if it is absent.
        revision: branch; created if it is absent. None for the main one.
        private: whether a new repository is private.

    Raises:
        ValueError: if the hub cannot be reached or refuses.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(library_name="motion-jax")
    with _explained(repository, revision):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        names = [name for name in (WEIGHTS, CARD, LABELS, PAGE, PICTURE) if (folder / name).is_file()]
        message = "Upload with motion-jax"
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, revision=revision, commit_message=message, allow_patterns=names
        )
    return str(commit.commit_url)


def _download(repository: str, revision: str | None) -> pathlib.Path:
    """Return the folder of the hub's cache with the card and the weights of one commit."""
    from huggingface_hub import hf_hub_download

    options = {"library_name": "motion-jax"}
    with _explained(repository, revision):
        card = pathlib.Path(hf_hub_download(repository, CARD, revision=revision, **options))
    # Before a file of gigabytes of another library is fetched.
    _check_ours(card, repository)
    with _explained(repository, revision):
        hf_hub_download(repository, WEIGHTS, revision=card.parent.name, **options)
    return card.parent


def _check_ours(path: pathlib.Path, name: str) -> None:
    ours = "a network that tools.export --format=hub wrote"
    if not path.is_file():
        raise ValueError(f"{name} holds no {CARD}: it is not {ours}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name}: {CARD} is not JSON ({first_line(error)}); copy or export it again") from error
    if not isinstance(content, dict) or content.get("format") != "hub" or "card_sha256" not in content:
        raise ValueError(f"{name} is not {ours}: its {CARD} is of another library")


def _is_repository(text: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text, flags=re.ASCII) is not None


def _can_reach_hub() -> bool:
    return importlib.util.find_spec("huggingface_hub") is not None


@contextlib.contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Return a context that turns the errors of the hub's client into a ValueError of one line with a remedy."""
    from huggingface_hub import constants, errors

    try:
        yield
    except Exception as error:  # also those of whatever HTTP library the client uses
        status = getattr(getattr(error, "response", None), "status_code", None)
        where = f"{constants.ENDPOINT}/{repository}"
        if isinstance(error, errors.GatedRepoError):
            reason = f"{where} is gated: accept its conditions on its page, and set HF_TOKEN"
        elif isinstance(error, errors.RepositoryNotFoundError):
            reason = f"{where} does not exist or is private: check the name, or set HF_TOKEN to a token that reads it"
        elif isinstance(error, errors.RevisionNotFoundError):
            reason = f"{where} has no revision {revision}: give one of its branches, tags or commits"
        elif status in (401, 403):
            reason = f"{where} refuses the token: set HF_TOKEN to one with access, for --push with write access"
        elif status is not None and status != 404:
            reason = f"{where} answers {status} ({first_line(error)}): try again later"
        elif isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            reason = f"{where} holds no network that tools.export --format=hub wrote"
        elif constants.HF_HUB_OFFLINE:
            cache = constants.HF_HUB_CACHE
            reason = f"{where} is not in the cache {cache}, and HF_HUB_OFFLINE is set: unset it, or copy the cache"
        else:
            reason = f"{where} cannot be reached ({first_line(error)}): check the network and HF_ENDPOINT"
        raise ValueError(reason) from error


def _without_folders(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the paths in it cut to their last part."""
    kept = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            value = _without_folders(value)
        elif key in _PATHS and isinstance(value, str):
            value = pathlib.PurePath(value).name or None
        kept[key] = value
    return kept
