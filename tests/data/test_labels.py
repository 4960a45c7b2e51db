import re

import numpy as np
import pytest

from motion_jax.data.clips.labels import directional, flipped_labels, mirrored

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


# By hand from the 174 names: label in alphabetical order, name, name of the mirrored class.
SIDED = {
    86: ("Pulling something from left to right", 87),
    87: ("Pulling something from right to left", 86),
    93: ("Pushing something from left to right", 94),
    94: ("Pushing something from right to left", 93),
    166: ("Turning the camera left while filming something", 167),
    167: ("Turning the camera right while filming something", 166),
}
RIGHT_OUT = 50  # Plugging something into something but pulling it right out as you remove your hand


@pytest.fixture
def something(goldens) -> list[str]:
    """The class names of Something-Something V1 as released; those of V2 are the same, in alphabetical order."""
    return (goldens / "something_v1_labels.txt").read_text().splitlines()


def test_directions_of_something_something(something):
    """The ids are those the official code lists, MotionSqueeze's transforms.py; V2 orders its classes so too."""
    names = sorted(something)
    assert len(names) == len(set(names)) == 174
    assert {label: name for label, name in enumerate(names) if directional(name)} == {
        label: name for label, (name, _) in SIDED.items()
    }
    everything = list(range(174))
    expected = {
        "skip": [-1 if label in SIDED else label for label in everything],
        "swap": [SIDED[label][1] if label in SIDED else label for label in everything],
        "none": [-1] * 174,
        "always": everything,
    }
    for policy, labels in expected.items():
        assert flipped_labels(names, policy=policy).tolist() == labels
    assert names[RIGHT_OUT].endswith("pulling it right out as you remove your hand")


def test_directions_do_not_depend_on_the_order(something):
    """In the released order of V1 the same six classes have other ids."""
    assert [label for label, name in enumerate(something) if directional(name)] == [2, 4, 30, 41, 52, 66]
    swapped = flipped_labels(something, policy="swap")
    for name, other in SIDED.values():
        assert something[swapped[something.index(name)]] == SIDED[other][0]


def test_directions_of_templates_with_brackets(something):
    templates = [re.sub("something", "[something]", name) for name in something]
    assert [directional(template) for template in templates] == [directional(name) for name in something]


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
