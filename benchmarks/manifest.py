"""Cost of reading a manifest: CPU time per row, and memory that is kept per row.

    python benchmarks/manifest.py --source webvid --rows 1000000

Prints a line of JSON: `us_per_row` (one core; the videos are not read) and `bytes_per_row` (of resident memory,
between the first thousand rows and the last).
"""

import argparse
import io
import itertools
import json
import os
import tarfile
import tempfile
import time
from pathlib import Path

from data_pipeline.manifest.read import iter_manifest

CAPTION = "billiards, a concentrated young woman playing in a club"


def write_own(folder: Path, rows: int) -> Path:
    path = folder / "own.csv"
    with path.open("w") as file:
        file.write("video,caption\n")
        file.writelines(f'part-{number // 1000:05d}/{number:09d}.mp4,"{CAPTION}"\n' for number in range(rows))
    return path


def write_webvid(folder: Path, rows: int) -> Path:
    path = folder / "webvid.csv"
    with path.open("w") as file:
        file.write("videoid,contentUrl,duration,page_dir,name\n")
        for number in range(rows):
            file.write(f"{1066670000 + number},https://x.test/{number}.mp4,PT00H00M17S,{number % 400:06d},")
            file.write(f'"{CAPTION}"\n')
    return path


def write_tar(folder: Path, rows: int) -> Path:
    path = folder / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(rows):
            columns = {"key": f"{number:09d}", "caption": CAPTION, "status": "success", "width": 640}
            for kind, content in (
                ("mp4", bytes(100)),
                ("txt", CAPTION.encode()),
                ("json", json.dumps(columns).encode()),
            ):
                member = tarfile.TarInfo(f"{number:09d}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


WRITERS = {"own": write_own, "webvid": write_webvid, "tar": write_tar}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(path: Path, total: int) -> dict[str, float]:
    rows = iter(iter_manifest([path]))
    before = sum(1 for _ in itertools.islice(rows, 1000))
    memory, began = resident(), time.process_time()
    count = sum(1 for _ in itertools.islice(rows, total - before - 1))  # behind the last row all is forgotten
    return {
        "rows": total,
        "us_per_row": round(1e6 * (time.process_time() - began) / count, 1),
        "bytes_per_row": round((resident() - memory) / count, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=WRITERS, default="own")
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = WRITERS[args.source](Path(folder), args.rows)
        print(json.dumps({"source": args.source} | measure(path, args.rows)), flush=True)


if __name__ == "__main__":
    main()
