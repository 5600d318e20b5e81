"""The demo's model through onnxruntime, float32 and int8, beside this package: cosines, and the demo's own scores.

    harvest demo --workdir runs/demo
    python benchmarks/onnx_demo.py --demo runs/demo --out benchmarks/results/onnx_demo.json

The same 40 clips of retrieval and 200 of the motion choice, read, prepared and ranked as by `harvest eval`; only the
two towers run elsewhere. Needs the extra `onnx`, and onnxruntime.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from harvest_jax.api import Model, load
from harvest_jax.demo.scoring import figures, score
from harvest_jax.weights.export_model import export_model


class OnnxModel(Model):
    """A model whose towers are the files of `--format onnx`; preparation and tokens are this package's."""

    def __init__(self, model: Model, folder: Path) -> None:
        super().__init__(model.config, model.params, f"{model.name} ({folder.name})")
        self._sessions = {
            name: onnxruntime.InferenceSession(folder / f"encode_{name}.onnx", providers=["CPUExecutionProvider"])
            for name in ("video", "text")
        }

    def _run(self, name: str, array: np.ndarray) -> np.ndarray:
        session = self._sessions[name]
        return session.run(None, {session.get_inputs()[0].name: array})[0]

    def encode_clips(self, clips: Any) -> Any:
        """As `Model.encode_clips`, through onnxruntime."""
        return self._run("video", np.asarray(clips))

    def encode_video(self, videos: Any) -> Any:
        """As `Model.encode_video`, through onnxruntime."""
        return self.encode_clips(self.prepare(videos))

    def encode_text(self, texts: Any) -> Any:
        """As `Model.encode_text`, through onnxruntime."""
        return self._run("text", self.tokenizer(texts, self.config.text.context_length))


def main() -> None:
    """Print the figures and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="the folder of harvest demo")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    ours = load(args.demo / "export")
    video = ours.config.video
    shape = (16, video.num_frames, video.image_size, video.image_size, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    texts = ["a red triangle moves left", "a blue heart grows", "a green bar blinks on"]
    found: dict[str, Any] = {"onnxruntime": onnxruntime.__version__}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("ours", "onnx", "onnx_int8"):
            model = ours
            if name != "ours":
                export_model(args.demo / "export", "onnx", Path(scratch) / name, int8=name.endswith("int8"))
                model = OnnxModel(ours, Path(scratch) / name)
            scores = figures(score(model, args.demo / "shards", Path(scratch), name))
            pairs = [(ours.encode_clips(clips), model.encode_clips(clips))]
            pairs += [(ours.encode_text(texts), model.encode_text(texts))]
            found[name] = {
                "t2v R@1": scores["retrieval"]["t2v"]["R@1"],
                "v2t R@1": scores["retrieval"]["v2t"]["R@1"],
                "motion choice": scores["motion_choice"]["accuracy"],
                "smallest cosine with ours, clips and texts": [float((a * b).sum(axis=1).min()) for a, b in pairs],
                "largest difference of a number": max(float(np.abs(a - b).max()) for a, b in pairs),
            }
            if name != "ours":
                found[name]["bytes"] = sum(file.stat().st_size for file in (Path(scratch) / name).glob("*.onnx*"))
            print(name, json.dumps(found[name]))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
