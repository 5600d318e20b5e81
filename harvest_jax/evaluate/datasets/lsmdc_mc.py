"""LSMDC-MC: 10,053 film clips with five sentences each, one of them its own (movie multiple-choice test of 2016)."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.question_rows import choice
from harvest_jax.input.annotation_files import only, read_table

# From the readme of the test; the times are in the film, and clips are files of their own.
SENTENCES = tuple(f"sentence{number}" for number in range(1, 6))
COLUMNS = ("clip", "start_aligned", "end_aligned", "start_extracted", "end_extracted", *SENTENCES, "answer")


def _read(files: Mapping[str, Path]) -> list[Row]:
    records = read_table(only(files), COLUMNS, "\t", header=False, quotes=False)
    seen: Counter[str] = Counter()
    rows = []
    for record in records:
        clip = record.text("clip")
        seen[clip] += 1
        name = clip if seen[clip] == 1 else f"{clip}#{seen[clip]}"  # several questions may be about one clip
        extra = choice(record, [record.text(s) for s in SENTENCES], first=1)
        rows.append(Row(name, clip, extra=extra, where=record.where))
    return rows


BENCHMARKS = (
    Benchmark(
        name="lsmdc_mc",
        title="LSMDC-MC",
        version="1",
        task="multiple_choice",
        split="public test (10,053 questions of the 2016 challenge)",
        files={"questions": ("LSMDC16_multiple_choice_test_randomized.csv",)},
        read=_read,
        expected={"rows": 10_053},
        captions="none",
        settings={},
        source="questions and clips are at sites.google.com/site/describingmovies/download, with a password of the Max "
        "Planck Institute for Informatics",
        licence="by agreement with the Max Planck Institute for Informatics, for research",
        notes="Tabs, no header, quotes are letters, answers 1 to 5: from the test's readme; the file was not seen. All "
        "rows count: InternVideo1 leaves out three clips by name and lines that its reader cannot split, All-in-one "
        "loses the first row as a header. The files for training and validation have the right sentence first and no "
        "answer: they are another format and are refused.",
    ),
)
