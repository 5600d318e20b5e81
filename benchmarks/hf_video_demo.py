"""The demo's scores in PyTorch: retrieval among its 40 clips and 200 choices between a motion and its reverse.

    make demo
    .venv/bin/python -m benchmarks.hf_video_demo --workdir runs/demo      # needs the extra `parity`

Exports the trained model with `--format hf_video`, embeds the demo's video files with this package, with transformers
and with sentence-transformers, and prints one row each. The scores in the demo's report come from its shards, whose
frames are JPEG, and can differ from these by a clip.
"""

import argparse
import csv
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Embed = Callable[[list[str]], np.ndarray]
SCORES = ("t2v R@1", "v2t R@1", "motion choice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of a finished demo: its clips and its export")
    args = parser.parse_args()
    with (args.workdir / "clips" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as scratch:
        programs = embedders(args.workdir / "export", Path(scratch) / "hf_video")
        first: dict[str, np.ndarray] = {}
        print(f"| | {' | '.join(SCORES)} | largest difference of an embedding |\n|---|---|---|---|---|")
        for name, (video, text) in programs.items():
            found, embedded = scores(rows, args.workdir / "clips", video, text)
            first = first or embedded
            difference = max(float(np.abs(embedded[key] - first[key]).max()) for key in first)
            print(f"| {name} | {' | '.join(f'{found[score]:.1f} %' for score in SCORES)} | {difference:.1e} |")


def embedders(folder: Path, exported: Path) -> dict[str, tuple[Embed, Embed]]:
    """(of paths, of texts) of each program."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoProcessor

    import harvest_jax
    from harvest_jax.weights.export_model import export_model

    export_model(folder, "hf_video", exported)
    ours = harvest_jax.load(folder)
    model = AutoModel.from_pretrained(exported, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(exported, trust_remote_code=True)
    sentences = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu")

    def transformers_videos(paths: list[str]) -> np.ndarray:
        with torch.inference_mode():
            return model.get_video_features(**processor(videos=paths)).numpy()

    def transformers_texts(texts: list[str]) -> np.ndarray:
        with torch.inference_mode():
            return model.get_text_features(**processor(text=texts)).numpy()

    return {
        "harvest_jax": (ours.encode_video, ours.encode_text),
        "transformers": (transformers_videos, transformers_texts),
        "sentence-transformers": (sentences.encode, sentences.encode),
    }


def scores(
    rows: list[dict[str, str]], clips: Path, video: Embed, text: Embed
) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores in percent, and the embeddings that they are made of."""
    gallery, questions = ([row for row in rows if row["split"] == split] for split in ("retrieval", "choice"))
    videos = video([str(clips / row["video"]) for row in gallery])
    similar = text([row["caption"] for row in gallery]) @ videos.T
    own = np.arange(len(gallery))
    options = [json.loads(row["options"]) for row in questions]
    flat = text([caption for pair in options for caption in pair]).reshape(len(questions), 2, -1)
    asked = video([str(clips / row["video"]) for row in questions])
    chosen = np.einsum("qd,qod->qo", asked, flat).argmax(axis=1)
    found = {
        "t2v R@1": 100 * float((similar.argmax(axis=1) == own).mean()),
        "v2t R@1": 100 * float((similar.argmax(axis=0) == own).mean()),
        "motion choice": 100 * float((chosen == [int(row["answer"]) for row in questions]).mean()),
    }
    return found, {"videos": videos, "questions": asked, "options": flat}


if __name__ == "__main__":
    main()
