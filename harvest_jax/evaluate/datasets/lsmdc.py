"""LSMDC: clips of films with the sentences of audio description; retrieval on the 1,000 clips of the 2016 challenge."""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import check_no_header, only, read_table

# The times are in the film, and clips are files of their own.
COLUMNS = ("clip", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")


def _read(files: Mapping[str, Path]) -> list[Row]:
    records = read_table(only(files), COLUMNS, "\t", header=False, quotes=False)
    check_no_header(records, "start_aligned")
    return [
        Row(clip, clip, captions=(record.text("sentence"),), where=record.where)
        for record, clip in ((record, record.text("clip")) for record in records)
    ]


BENCHMARKS = (
    Benchmark(
        name="lsmdc",
        title="LSMDC",
        version="1",
        task="retrieval",
        split="test (1,000 clips of the 2016 retrieval challenge)",
        files={"sentences": ("LSMDC16_challenge_1000_publictect.csv",)},
        read=_read,
        expected={"rows": 1000, "videos": 1000, "captions": 1000},
        captions="one",
        settings={},
        source="sentences and clips are at sites.google.com/site/describingmovies/download, with a password of the "
        "Max Planck Institute for Informatics",
        licence="by agreement with the Max Planck Institute for Informatics, for research",
        notes="The file has no header, is separated by tabs, and quotes in it are letters (format from CLIP4Clip's "
        "reader; the file was not seen). Names are replaced by SOMEONE. Conventions: CLIP4Clip 12 frames at 1 a second "
        "and 32 tokens, UMT zero-shot 4 frames and 32 tokens.",
    ),
)
