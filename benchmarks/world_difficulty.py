"""How hard the generated world's questions are: chance, a reader without the order of time, and perfect eyes.

    python benchmarks/world_difficulty.py --out benchmarks/results/world_difficulty.json

For each factor of the split `choice`, in percent: `chance`; `words`, what a reader gets who does not look at the clip
but knows which combinations training has, and guesses among the sentences whose combinations it lacks; `order_blind`,
what a reader gets who judges every sentence rightly but cannot tell a clip from its reverse, and guesses among the
sentences that are true of either; `ceiling`, the share of clips of which exactly the right sentence is true, judged
from the positions in 8 frames. For each kind of the split `questions`: `commonest`, the share of its commonest answer,
which is what can be said without looking. One line of JSON.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from harvest_jax.synthetic import WORLD_VERSION
from harvest_jax.synthetic.choices import FACTORS
from harvest_jax.synthetic.rows import choice_at, columns
from harvest_jax.synthetic.scene import STANDS, Scene, held_out
from harvest_jax.synthetic.truth import is_true, seen

FRAMES = 8


def difficulty(clips: int, seed: int) -> dict[str, dict[str, float]]:
    """The four figures of each factor over the first `clips` of the split, in percent; n is the number of clips."""
    sums = {factor: {"chance": 0.0, "words": 0.0, "order_blind": 0.0, "ceiling": 0.0, "n": 0.0} for factor in FACTORS}
    for number in range(clips):
        choice = choice_at(seed, number)
        clip, reverse = seen(choice.scene, FRAMES), seen(choice.scene.twin, FRAMES)
        true = [is_true(option, clip) for option in choice.options]
        either = [here or is_true(option, reverse) for here, option in zip(true, choice.options, strict=True)]
        found = sums[choice.factor]
        found["n"] += 1
        found["chance"] += 1 / len(choice.options)
        found["words"] += 1 / sum(map(never_trained, choice.options))  # the right sentence is one of them
        found["order_blind"] += either[choice.answer] / max(1, sum(either))
        found["ceiling"] += true[choice.answer] and sum(true) == 1
    return {
        factor: {"n": int(found["n"])}
        | {name: round(100 * found[name] / found["n"], 1) for name in found if name != "n"}
        for factor, found in sums.items()
        if found["n"]
    }


def never_trained(scene: Scene) -> bool:
    """Whether all that acts in a scene is of combinations of look and action that no training clip has."""
    acts = [
        (scene.things[who].look, event.action)
        for event in scene.events
        for who in (event.actor, event.other)
        if who is not None and event.action != STANDS
    ]
    return all(held_out(*look, action) for look, action in acts)


def commonest_answers(questions: int, seed: int) -> dict[str, dict[str, float]]:
    """The share of the commonest answer of each kind over the first `questions` of the split, in percent, and n."""
    answers: dict[str, Counter[str]] = {}
    for number in range(questions):
        row = columns(seed, "questions", number)
        answers.setdefault(row["type"], Counter())[row["answer"]] += 1
    return {
        kind: {"n": found.total(), "commonest": round(100 * found.most_common(1)[0][1] / found.total(), 1)}
        for kind, found in answers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--questions", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    facts = {"world": WORLD_VERSION, "clips": args.clips, "seed": args.seed, "frames": FRAMES}
    answers = {"questions": args.questions, "answers": commonest_answers(args.questions, args.seed)}
    line = json.dumps(facts | {"factors": difficulty(args.clips, args.seed)} | answers)
    print(line)
    if args.out:
        args.out.write_text(line + "\n")


if __name__ == "__main__":
    main()
