"""Base class of the builders of videos: from a layout to records with random access."""

import abc
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from motion_jax.data.config import MAX_PIXELS
from motion_jax.data.sources.layout import Layout
from motion_jax.data.storage import parts as storage
from motion_jax.data.storage.fingerprint import Fingerprint, describe_shard, naming_folder, record_checksum
from motion_jax.text import printable

_log = logging.getLogger(__name__)


class Videos(tfds.core.dataset_builder.FileReaderBuilder, skip_registration=True):
    """TFDS builder of the videos of a folder and their annotations.

    Videos without a readable frame are left out and named in the log. ``info.metadata`` holds ``"unreadable"``, their
    (path, reason); ``"remarks"``, (path, remark) of unusual videos that are kept; ``"missing"``, the names of annotated
    videos that are absent, where that is usual; ``"frames"``, the number of frames per split; and ``"resize"`` and
    ``"quality"``. The name of the configuration is the version and a digest of the files and options, so a changed
    folder is prepared again. A killed preparation continues where it stopped.

    A subclass describes one data set and reads its annotations. Subclasses are not registered with TFDS, because some
    have the names of TFDS's own data sets.

    Args:
        root, version, resize, quality, max_pixels: as in ``DataConfig``.
        data_dir: parent folder of the prepared data set.
    """

    # Raise this when the same videos give other records.
    VERSION = tfds.core.Version("2.0.0")

    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(skip_registration=True, **options)

    def __init__(
        self,
        *,
        root: str | Path,
        version: str | None = None,
        resize: tuple[int, int] | int | None,
        quality: int = 95,
        max_pixels: int = MAX_PIXELS,
        data_dir: str | Path,
    ) -> None:
        self.layout = self.read_layout(Path(root), version)
        self._labels_version, self._resize, self._quality = version, resize, quality
        self._max_pixels = max_pixels
        # The default leaves the digest of data prepared before this option as it was.
        digest = self.layout.digest(resize, quality, *([max_pixels] if max_pixels != MAX_PIXELS else []))
        config = tfds.core.BuilderConfig(name=f"{version}-{digest}" if version else digest)
        with naming_folder(lambda: getattr(self, "_data_dir", "")):
            super().__init__(data_dir=str(data_dir), file_format="array_record", config=config)

    @staticmethod
    @abc.abstractmethod
    def read_layout(root: Path, version: str | None) -> Layout:
        """Find the videos of a folder and their classes and splits.

        Raises:
            ValueError: if the folder is not laid out as in data/README.md, or a list is missing or wrong.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=storage.video_features(self.layout.classes),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            metadata=tfds.core.MetadataDict(),
            # Records are in the order of the layout.
            disable_shuffling=True,
        )

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig | None = None
    ) -> None:
        layout = self.layout
        for remark in layout.remarks:
            _log.warning("%s: %s", printable(layout.root), remark)
        if layout.missing:
            names = [entry.id for entry in layout.missing[:5]] + ["..."] * (len(layout.missing) > 5)
            _log.warning("%d videos of the annotations are absent: %s", len(layout.missing), ", ".join(names))
        self._parts_folder.mkdir(parents=True, exist_ok=True)
        parts = {split: storage.make_parts(layout.entries, split) for split in layout.splits()}
        every = [part for of_split in parts.values() for part in of_split]
        encode = storage.Encoder(layout.root.absolute(), layout.classes, self._resize, self._quality, self._max_pixels)
        if download_config and download_config.beam_runner:
            runner, options = download_config.beam_runner, download_config.beam_options
            storage.write_parts_with_beam(every, self._parts_folder, encode, runner=runner, options=options)
        else:
            storage.write_parts(every, self._parts_folder, encode)
        summaries = {
            split: [(part, storage.read_summary(part, self._parts_folder)) for part in of_split]
            for split, of_split in parts.items()
        }
        every = [summary for of_split in summaries.values() for _, summary in of_split]
        unreadable = [pair for summary in every for pair in summary.unreadable]
        remarks = [pair for summary in every for pair in summary.remarks]
        infos = [self._store(split, of_split, unreadable) for split, of_split in summaries.items()]
        kept = {
            split: [kept for _, summary in of_split for kept in summary.kept] for split, of_split in summaries.items()
        }
        checksums = {
            split: np.array(
                [record_checksum(record.id.encode(), record.label, record.frames) for record in records], "<u4"
            )
            for split, records in kept.items()
        }
        shards = {
            info.name: tuple(map(describe_shard, map(Path, info.filepaths), info.shard_lengths)) for info in infos
        }
        Fingerprint(layout.classes, checksums, shards).write(Path(self.data_path))
        # Warn after the progress bar has ended.
        for path, reason in unreadable:
            _log.warning("%s is left out: %s", printable(path), reason)
        for path, remark in remarks:
            _log.warning("%s is kept: %s", printable(path), remark)
        _warn_of_classes(layout.classes, kept["train"])
        remarks += _seen_in_training(kept)
        frames = {split: sum(record.frames for record in records) for split, records in kept.items()}
        self.info.set_splits(tfds.core.SplitDict(infos))
        missing = [[entry.split, entry.id] for entry in layout.missing]
        self.info.metadata.update(version=self._labels_version, class_order=layout.class_order, frames=frames)
        self.info.metadata.update(unreadable=unreadable, remarks=remarks, missing=missing)
        self.info.metadata.update(resize=self._resize, quality=self._quality)

    def _store(
        self,
        split: str,
        summaries: Sequence[tuple[storage.Part, storage.Summary]],
        unreadable: Sequence[tuple[str, str]],
    ) -> tfds.core.SplitInfo:
        """Give the record files of a split their final names, and describe the split."""
        kept = [(part, summary.kept) for part, summary in summaries if summary.kept]
        if not kept:
            reasons = "; ".join(f"{path} is left out: {reason}" for path, reason in unreadable)
            raise ValueError(f"data.root: no video of split {split} of {self.layout.root} can be read: {reasons}")
        template = tfds.core.ShardedFileTemplate(
            data_dir=self.data_path, dataset_name=self.name, split=split, filetype_suffix="array_record"
        )
        for shard, (part, _) in enumerate(kept):
            path = template.sharded_filepath(shard_index=shard, num_shards=len(kept))
            _link(storage.record_file(part, self._parts_folder), Path(path))
        lengths = [len(records) for _, records in kept]
        size = sum(record.bytes for _, records in kept for record in records)
        return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)

    def _post_download_and_prepare_hook(self) -> None:
        shutil.rmtree(self._parts_folder)

    @property
    def _parts_folder(self) -> Path:
        """Folder of the parts, beside the folder of the version, which TFDS replaces while it prepares."""
        return Path(self.data_path).parent / f"parts-{self.version}"


def _warn_of_classes(classes: Sequence[str], kept: Sequence[storage.Kept]) -> None:
    """Warn if all training videos are of one class, or some classes have none: a list may be of another data set."""
    trained = {record.label for record in kept}
    if len(trained) == 1:
        _log.warning("all training videos are of the class %r: there is nothing to tell apart", classes[kept[0].label])
    absent = [name for label, name in enumerate(classes) if label not in trained]
    if absent and len(trained) > 1:
        named = ", ".join(absent[:5]) + ", ..." * (len(absent) > 5)
        _log.warning(
            "%d of %d classes have no training video, are the class names of these data? %s",
            *(len(absent), len(classes), named),
        )


def _seen_in_training(kept: Mapping[str, Sequence[storage.Kept]]) -> list[tuple[str, str]]:
    """Return the (id, remark) of videos of other splits with the frames of a training video, and warn of them."""
    trained = {record.content: record.id for record in kept["train"]}
    found = []
    for split in kept.keys() - {"train"}:
        seen = [(record.id, trained[record.content]) for record in kept[split] if record.content in trained]
        if seen:
            _log.warning(
                "%d of %d videos of split %s are also training videos, so that its accuracy means little: %s",
                *(
                    len(seen),
                    len(kept[split]),
                    split,
                    ", ".join(name for name, _ in seen[:5]) + ", ..." * (len(seen) > 5),
                ),
            )
        found += [(name, f"its frames are those of the training video {other}") for name, other in seen]
    return found


def _link(source: Path, target: Path) -> None:
    """Link a file, so that it also stays where the next run of a killed preparation finds it."""
    try:
        os.link(source, target)
    except OSError:  # Some file systems have no hard links.
        shutil.copyfile(source, target)
