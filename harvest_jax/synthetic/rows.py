"""The clips of a world's splits as rows of a manifest.

| split | each clip has |
|---|---|
| `train...`, `val...` | two captions; of combinations of look and action that training may have |
| `stills...` | one picture with marks that tell what happens (`marks.py`), and two captions; of the same combinations |
| `unmarked...` | the things and captions of `stills...` with the same number and name, at rest and without marks |
| `retrieval` | one caption, different from all others |
| `choice` | `options`, `answer` and `type` (the factor); two clips after each other are each other's reverse |
| `questions` | `question`, `answer` and `type` |
| `actions` | `label` |

The other splits show combinations that no training clip has. Every fourth still has no marks, and captions that tell
only what is seen: so that a model of pictures also knows things that do nothing.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from harvest_jax.errors import DataError
from harvest_jax.synthetic import WORLD_VERSION
from harvest_jax.synthetic.choices import FACTORS, Choice, choice_of
from harvest_jax.synthetic.draw import SIZE, render_clip, render_still
from harvest_jax.synthetic.questions import QUESTIONS, action_scene, question_of
from harvest_jax.synthetic.real import Part, in_words, need_pictures
from harvest_jax.synthetic.sample import any_scene, dice_of
from harvest_jax.synthetic.scene import ACTIONS, Scene
from harvest_jax.synthetic.sentences import caption, looks, wording_of

SUFFIX = ".world.json"
TRAINING = ("train", "val", "stills", "unmarked")  # begins of the names of splits
TEST_SPLITS = ("retrieval", "choice", "questions", "actions")
SIZES = (32, 512)  # pixels
LOOKS = ("drawn", "real")
MOST = 100_000_000  # clips of a split
SECONDS = 2.0  # of a clip


@dataclasses.dataclass(frozen=True)
class World:
    """A generated set of clips: what `NAME.world.json` holds.

    Attributes:
      seed: another seed gives other clips.
      clips: how many each split has.
      size: of the pictures, pixels.
      look: "drawn": shapes; "real": handwritten digits, and photographs (`real.py`).
    """

    seed: int
    clips: Mapping[str, int]
    size: int = SIZE
    look: str = LOOKS[0]

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
          DataError: a number out of its range, or an unknown split or look.
          ConfigError: the look needs scikit-learn, which is not installed.
        """
        if self.look not in LOOKS:
            raise DataError(f"a world has no look {self.look[:40]!r}: it has {', '.join(LOOKS)}")
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise DataError(f"a world's pictures have {SIZES[0]} to {SIZES[1]} pixels a side, not {self.size}")
        if not self.clips:
            raise DataError("a world needs at least one split with clips")
        for split, count in self.clips.items():
            if split not in TEST_SPLITS and not re.fullmatch(f"({'|'.join(TRAINING)})[a-z0-9_]{{0,60}}", split):
                raise DataError(
                    f"a world has no split {split[:40]!r}: it has {', '.join(TEST_SPLITS)}, and names of a-z, 0-9 "
                    f"and _ that begin with {', '.join(TRAINING)}"
                )
            if not 1 <= count <= MOST:
                raise DataError(f"split {split[:40]}: {count} clips; 1 to {MOST:,} are possible")
        if self.look == "real":
            need_pictures()

    def text(self) -> str:
        """The content of its file."""
        facts = {"harvest_world": WORLD_VERSION, "seed": self.seed, "size": self.size, "look": self.look}
        return json.dumps(facts | {"clips": dict(self.clips)}, indent=1) + "\n"

    def part(self, split: str) -> Part | None:
        """Which digits and photographs the clips of a split show; None: none, they are drawn."""
        if self.look == "drawn":
            return None
        return "test" if split in TEST_SPLITS else "training"


def is_world(path: str | Path) -> bool:
    """Whether a file describes a world, judged by its name."""
    return str(path).endswith(SUFFIX)


def read_world(path: str | Path) -> World:
    """A world from its file.

    Raises:
      DataError: it cannot be read, is not such a file, or is of another version.
      ConfigError: its look needs scikit-learn, which is not installed.
    """
    try:
        facts = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})") from error
    kinds = {"harvest_world": str, "seed": int, "size": int, "look": str, "clips": dict}
    if isinstance(facts, dict):
        facts.setdefault("look", LOOKS[0])  # files of before there was another
    if not isinstance(facts, dict) or {name: type(value) for name, value in facts.items()} != kinds:
        raise DataError(f"{path} does not describe a generated world: `harvest world` writes such files")
    if facts["harvest_world"] != WORLD_VERSION:
        raise DataError(
            f"{path} describes version {facts['harvest_world'][:20]} of the generated world, and this program makes "
            f"version {WORLD_VERSION}: write the file again with `harvest world`"
        )
    if not all(type(count) is int for count in facts["clips"].values()):
        raise DataError(f"{path}: the number of clips of each split must be a whole number")
    try:
        return World(facts["seed"], facts["clips"], facts["size"], facts["look"])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def scene_of(seed: int, split: str, number: int) -> Scene:
    """What a clip shows."""
    if split == "choice":
        return choice_at(seed, number).scene
    dice = dice_of(seed, _stills_of(split), number)
    if split == "questions":
        return question_of(dice, list(QUESTIONS)[number % len(QUESTIONS)]).scene
    if split == "actions":
        return action_scene(dice, ACTIONS[number % len(ACTIONS)])
    return any_scene(dice, held=split in TEST_SPLITS)


def _stills_of(split: str) -> str:
    """The split of marked stills that has the same scenes as one of unmarked stills; every other split itself."""
    return "stills" + split.removeprefix("unmarked") if split.startswith("unmarked") else split


def is_still(split: str) -> bool:
    """Whether the clips of a split are single pictures."""
    return split.startswith(("stills", "unmarked"))


def frames_of(world: World, split: str, number: int, num_frames: int) -> UInt8[np.ndarray, "t s s 3"]:
    """The frames of a clip: uint8 RGB, `num_frames` of them; a still has one."""
    scene = scene_of(world.seed, split, number)
    if not is_still(split):
        return render_clip(scene, num_frames, world.size, world.part(split))
    time = dice_of(world.seed, _stills_of(split), number, "time").between(0.0, 1.0)
    marks = not _only_looks(number)
    if split.startswith("unmarked"):  # at rest: where a thing is, and how big, would tell what it does
        scene, marks = dataclasses.replace(scene, events=(), camera=0), False
    return render_still(scene, time, marks, world.size, world.part(split))[None]


def _only_looks(number: int) -> bool:
    return number % 4 == 3


def choice_at(seed: int, number: int) -> Choice:
    """A question of the split `choice`; of an odd number it is about the reverse of the clip before."""
    pair = number // 2
    choice = choice_of(dice_of(seed, "choice", pair), list(FACTORS)[pair % len(FACTORS)])
    if number % 2 == 0:
        return choice
    options = tuple(option.twin for option in choice.options)
    return dataclasses.replace(choice, scene=choice.scene.twin, options=options)


def columns(seed: int, split: str, number: int) -> dict[str, Any]:
    """What a manifest says about a clip besides its name."""
    dice = dice_of(seed, _stills_of(split), number, "words")
    if split == "choice":
        choice = choice_at(seed, number)
        told = {"options": choice.sentences, "answer": choice.answer, "type": choice.factor}
        return {"captions": [choice.sentences[choice.answer]], **told}
    if split == "questions":
        question = question_of(dice_of(seed, split, number), list(QUESTIONS)[number % len(QUESTIONS)])
        return {"question": question.text, "answer": question.answer, "type": question.kind}
    scene = scene_of(seed, split, number)
    if split == "actions":
        return {"label": ACTIONS[number % len(ACTIONS)]}
    if split == "retrieval":  # tell all, so that a caption fits one clip
        return {
            "captions": [caption(scene, dataclasses.replace(wording_of(dice), sizes=True, textures=True, ground=True))]
        }
    tell = looks if is_still(split) and _only_looks(number) else caption
    return {"captions": list(dict.fromkeys(tell(scene, wording_of(dice)) for _ in range(2)))}


def numbers_of(world: World, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbers of a split's clips, and their columns; of `retrieval` those whose caption no clip before has.

    The columns are in the words of the world's look.
    """
    count = world.clips[split]
    words = in_words if world.look == "real" else dict
    every = ((number, words(columns(world.seed, split, number))) for number in itertools.count())
    if split != "retrieval":
        yield from itertools.islice(every, count)
        return
    taken: set[str] = set()
    for number, found in every:
        if found["captions"][0] not in taken:
            taken.add(found["captions"][0])
            yield number, found
            if len(taken) == count:
                return
