import numpy as np
import pytest

from data.labels import directional, flipped_labels, mirrored

# Something-Something V1 and V2: classes with a direction, and such as a careless rule would take for one.
SOMETHING = {
    "Pulling something from left to right": True,
    "Pulling something from right to left": True,
    "Pushing something from left to right": True,
    "Pushing something from right to left": True,
    "Turning the camera left while filming something": True,
    "Turning the camera right while filming something": True,
    "Pulling [something] from left to right": True,
    "Pushing [something] from right to left": True,
    "Plugging something into something but pulling it right out as you remove your hand": False,
    "Plugging [something] into [something] but pulling it right out as you remove your hand": False,
    "Pulling something out of something": False,
    "Pulling two ends of something so that it gets stretched": False,
    "Pulling two ends of something in opposite directions": False,
    "Putting something upright on the table": False,
    "Putting something that cannot actually stand upright upright on the table, so it falls on its side": False,
    "Turning something upside down": False,
    "Lifting something up completely without letting it drop down": False,
    "Moving something away from the camera": False,
}


@pytest.mark.parametrize(("name", "expected"), SOMETHING.items())
def test_directional_names(name: str, expected: bool):
    assert directional(name) is expected


@pytest.mark.parametrize("name", ["move_left", "LEFT", "left-hand", "turn (right)"])
def test_words_are_bounded_by_letters_alone(name: str):
    assert directional(name)


@pytest.mark.parametrize("name", ["cleft", "lefty", "bright", "copyright", "righteous"])
def test_parts_of_words_have_no_direction(name: str):
    assert not directional(name)


def test_mirrored_exchanges_every_word():
    assert mirrored("left then right", ["left then right", "right then left"]) == "right then left"
    assert mirrored("Left turn", ["Right turn", "Left turn"]) == "Right turn"
    assert mirrored("left, then right out", ["right, then right out"]) == "right, then right out"
    assert mirrored("left", ["left"]) is None
    assert mirrored("upright", ["upright"]) is None


NAMES = ["clap", "move left", "move right", "turn left"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("skip", [0, -1, -1, -1]), ("swap", [0, 2, 1, -1]), ("none", [-1] * 4), ("always", [0, 1, 2, 3])],
)
def test_policies(policy: str, expected: list[int]):
    flipped = flipped_labels(NAMES, policy=policy)
    assert flipped.tolist() == expected
    assert flipped.dtype == np.int32


def test_unknown_policy():
    with pytest.raises(ValueError, match=r"'sometimes'.*skip, swap, none, always"):
        flipped_labels(NAMES, policy="sometimes")
