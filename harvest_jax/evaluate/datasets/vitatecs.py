"""VITATECS: captions of MSR-VTT and VATEX beside a caption that differs from it in one aspect of time.

arXiv 2311.17404. The form of the files was read in data/ of github.com/lscpku/VITATECS (lines of Direction.jsonl and
Sequence.jsonl), the number of pairs in the paper's abstract and data card.
"""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import read_json_lines

ASPECTS = ("Direction", "Intensity", "Sequence", "Localization", "Compositionality", "Type")


def _read(files: Mapping[str, Path]) -> list[Row]:
    rows = []
    for aspect in ASPECTS:
        for number, record in enumerate(read_json_lines(files[aspect])):
            if record.text("aspect") != aspect:
                raise record.fault(f"the aspect is {record.text('aspect')!r}, but this is the file of {aspect}")
            options = [record.text("caption"), record.text("counterfactual")]
            video = f"{record.text('src_dataset')}/{record.text('video_name')}"
            rows.append(
                Row(f"{aspect}-{number}", video, extra={"options": options, "answer": 0, "type": aspect.lower()})
            )
    return rows


BENCHMARKS = (
    Benchmark(
        name="vitatecs",
        title="VITATECS",
        version="1",
        task="multiple_choice",
        split="all (there is no other)",
        # the repository has other versions in data_opt/ and at its top
        files={aspect: (f"data/{aspect}.jsonl", f"{aspect}.jsonl") for aspect in ASPECTS},
        read=_read,
        expected={"rows": 13_838},
        captions="none",
        settings={"frame_average": True},
        source="six .jsonl files in the folder data of github.com/lscpku/VITATECS; the videos are those of MSR-VTT and "
        "VATEX, in folders MSRVTT and VATEX",
        licence="CC BY 4.0 (annotations); the videos are YouTube's",
        notes="Two captions a video, chance 50. Published figures are those of each aspect (per_type); `accuracy` is "
        "the mean over all pairs, of which the aspects have very different numbers.",
    ),
)
