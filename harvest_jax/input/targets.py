"""What an example holds besides its pixels: a caption with masked words, a label, or a question with its answer.

Of several captions or questions of a clip one is drawn for each example.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.shards import shard_format
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import DataError
from harvest_jax.input.answers import normal, read_answers
from harvest_jax.input.class_names import class_finder, class_text, read_classes
from harvest_jax.input.file_tokenizer import TextTokenizer
from harvest_jax.input.question_lists import each_question
from harvest_jax.input.question_prompt import prompt_ids
from harvest_jax.input.text_masking import mask_slots, num_slots

Texts = dict[str, Any]  # NumPy arrays and numbers
MakeTexts = Callable[[shard_format.Record, np.random.Generator], Texts]


def texts_maker(run: RunConfig, tokenizer: TextTokenizer, classes: Sequence[str]) -> MakeTexts:
    """The function from a record to the arrays that the run's objective reads besides patches and positions.

    It raises ValueError for a record without what is needed: the reason. (Captions are there: `MakeExample` looks.)

    Args:
      run: the checked config.
      tokenizer: the model's.
      classes: of the model's head, in their order; () without a head.
    """
    if run.objective.name == "classification":
        return _labels(run, classes)
    if run.objective.name == "videoqa":
        return _questions(run, tokenizer, classes)
    return _captions(run, tokenizer)


def _captions(run: RunConfig, tokenizer: TextTokenizer) -> MakeTexts:
    text = run.text

    def make(record: shard_format.Record, rng: np.random.Generator) -> Texts:
        caption = record.captions[rng.integers(len(record.captions))]
        ids = tokenizer([caption], text.length)[0]
        most = num_slots(text.length, text.mask_ratio)
        slots, weights = mask_slots(rng, ids, tokenizer.eot, text.mask_ratio, most, tokenizer.sot)
        return {"ids": ids, "slots": slots, "slot_weights": weights}

    return make


def _labels(run: RunConfig, classes: Sequence[str]) -> MakeTexts:
    column, number = run.objective.label_column, class_finder(classes)

    def make(record: shard_format.Record, _: np.random.Generator) -> Texts:
        label = _cell(record.extra, column)
        found = number(label)
        if found is None:
            raise ValueError(f"the label {label!r} is none of the {len(classes)} classes (objective.classes)")
        return {"labels": np.int32(found)}

    return make


def _questions(run: RunConfig, tokenizer: TextTokenizer, classes: Sequence[str]) -> MakeTexts:
    objective, number = run.objective, {answer: i for i, answer in enumerate(classes)}

    def make(record: shard_format.Record, rng: np.random.Generator) -> Texts:
        questions = each_question(record.extra)
        cells = questions[rng.integers(len(questions))]
        answer = normal(_cell(cells, "answer"))
        ids, slot, _ = prompt_ids(tokenizer, objective.prompt, _cell(cells, "question"), run.text.length)
        tokens = tokenizer.encode(answer)
        if not tokens:
            raise ValueError(f"the answer {answer!r} has no words")
        ids[slot] = tokens[0]  # evaluation scores a candidate by its first token, too
        label = number.get(answer, -1) if objective.answer_from == "head" else 0
        return {
            "ids": ids,
            "slots": np.array([slot], np.int32),
            "labels": np.int32(label),
            "noise": np.int32(rng.integers(2**31)),
        }

    return make


def _cell(cells: Mapping[str, Any], column: str) -> str:
    value: Any = cells.get(column)
    text = "" if value is None else str(value).strip()
    if not text:
        raise ValueError(f"no `{column}`")
    return text


def training_classes(run: RunConfig) -> tuple[str, ...]:
    """The classes or answers that a run's head chooses from: of the file `objective.classes`, or of the training split.

    Without the file all records are read once. Labels are sorted, answers in falling frequency, equal ones in
    alphabetical order.

    Raises:
      DataError: the file or the shards cannot be used, or hold none.
    """
    objective, most = run.objective, run.objective.max_classes
    if objective.classes and objective.name == "classification":
        return tuple(read_classes(Path(objective.classes)))
    if objective.classes:
        return tuple(dict.fromkeys(map(normal, read_answers(Path(objective.classes), most))))
    counts: Counter[str] = Counter()
    column, form = ("answer", normal) if objective.name == "videoqa" else (objective.label_column, class_text)
    for folder in run.data.folders:
        shards = shard_format.open_shards(folder, run.data.split)
        for number in range(len(shards)):
            value = shard_format.parse_record(shards[number], frames=False).extra.get(column)
            several = value if isinstance(value, list) and objective.name == "videoqa" else [value]
            counts.update(form(str(one)) for one in several if one is not None)
    counts.pop("", None)
    if not counts:
        raise DataError(f"no record of split {run.data.split!r} of {run.data.shards} has a column `{column}`")
    if objective.name == "classification":
        return tuple(sorted(counts))
    return tuple(sorted(counts, key=lambda name: (-counts[name], name))[: most or None])
