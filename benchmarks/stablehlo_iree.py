"""Whether IREE compiles the StableHLO programs of a model folder, and what its numbers are.

    pip install iree-base-compiler iree-base-runtime
    python benchmarks/stablehlo_iree.py --model runs/demo/export

With fixed shapes (`--batch 4`) and with symbolic ones; the largest difference from `harvest_jax.load`.
"""

import argparse
import tempfile
from pathlib import Path

import iree.compiler
import iree.runtime
import numpy as np
from jax import export
from safetensors.numpy import load_file

import harvest_jax
from harvest_jax.weights.stablehlo import PLATFORMS, export_stablehlo

BATCH = 4


def run(programs: Path, name: str, argument: np.ndarray) -> np.ndarray:
    """The program's output; its first argument is the place of the platform in PLATFORMS."""
    text = export.deserialize(bytearray((programs / f"{name}.stablehlo").read_bytes())).mlir_module()
    binary = iree.compiler.compile_str(text, target_backends=["llvm-cpu"], input_type="stablehlo")
    module = iree.runtime.load_vm_flatbuffer(binary, driver="local-task")
    weights = load_file(programs / f"{name}.safetensors")
    place = np.array(PLATFORMS.index("cpu"), np.int32)
    return np.asarray(module.main(place, *(weights[path] for path in sorted(weights)), argument))


def main() -> None:
    """Print one line for each program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    model = harvest_jax.load(args.model)
    video = model.config.video
    shape = (BATCH, model.num_frames, video.image_size, video.image_size, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    texts = ["a red triangle", "a blue heart grows", "a green bar", "a yellow bar moves left"]
    ids = model.tokenizer(texts, model.config.text.context_length)
    wanted = {"encode_video": model.encode_clips(clips), "encode_text": model.encode_text(texts)}
    with tempfile.TemporaryDirectory() as scratch:
        for batch in (BATCH, None):
            programs = Path(scratch) / f"programs_{batch}"
            export_stablehlo(args.model, programs, batch)
            for name, argument in (("encode_video", clips), ("encode_text", ids)):
                kind = "symbolic shapes" if batch is None else "fixed shapes"
                try:
                    difference = np.abs(run(programs, name, argument) - wanted[name]).max()
                    print(f"{name}, {kind}: largest difference {difference:.1e}")
                except iree.compiler.CompilerToolError as error:
                    lines = [line for line in str(error).splitlines() if "error:" in line]
                    print(f"{name}, {kind}: refused: {(lines or [str(error)])[0][:200]}")


if __name__ == "__main__":
    main()
