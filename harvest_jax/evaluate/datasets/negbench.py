"""NegBench: which of four captions with and without "not" fits a video of MSR-VTT?

arXiv 2501.09425. The columns are those of the authors' program that writes the file (create_mcq.py of
github.com/m1k2zoo/negbench) and of their reader (training/video_utils/video_dataset.py); the file was not seen, so that
the number of rows is not checked.
"""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import only, read_table

_OPTIONS = tuple(f"caption_{number}" for number in range(4))


def _read(files: Mapping[str, Path]) -> list[Row]:
    rows = []
    columns = ("correct_answer", *_OPTIONS, "correct_answer_template", "image_path")
    for number, record in enumerate(read_table(only(files), columns)):
        extra = {
            "options": [record.text(option) for option in _OPTIONS],
            "answer": record.whole("correct_answer", 0, 3),
            "type": record.text("correct_answer_template"),
        }
        # a path on the disk of whoever made the file: its last part is the video's name
        rows.append(Row(str(number), record.text("image_path").replace("\\", "/"), extra=extra))
    return rows


BENCHMARKS = (
    Benchmark(
        name="negbench_msrvtt_mcq",
        title="NegBench MSR-VTT MCQ",
        version="1",
        task="multiple_choice",
        split="MSR-VTT MCQ, rephrased by Llama 3.1",
        files={"questions": ("msr_vtt_mcq_rephrased_llama.csv",)},
        read=_read,
        expected={},
        captions="none",
        settings={"frame_average": True},
        source="msr_vtt_mcq_rephrased_llama.csv is in the folder of CSV files that datasets.md of "
        "github.com/m1k2zoo/negbench links; the videos are MSR-VTT's",
        licence="not stated for the questions; the videos are YouTube's",
        notes="Four captions, chance 25. The type says what the right caption does: affirm (positive), deny "
        "(negative), or both (hybrid). It asks about negation, not about time.",
    ),
)
