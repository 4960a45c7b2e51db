"""The TFDS builders of data sets made of videos, one per file, by the name they have in ``data.name``."""

from data.builders.diving48 import Diving48
from data.builders.finegym import FineGym
from data.builders.hmdb51 import HMDB51
from data.builders.kinetics400 import Kinetics400
from data.builders.list_files import ListFiles
from data.builders.something_v1 import SomethingV1
from data.builders.something_v2 import SomethingV2
from data.builders.ucf101 import UCF101
from data.builders.video_folder import VideoFolder
from data.builders.videos import Videos

BUILDERS: dict[str, type[Videos]] = {
    builder.name: builder
    for builder in (
        SomethingV1,
        SomethingV2,
        Kinetics400,
        Diving48,
        FineGym,
        UCF101,
        HMDB51,
        ListFiles,
        VideoFolder,
    )
}
