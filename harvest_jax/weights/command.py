"""`harvest weights`: import and export checkpoints, and mix two models."""

import argparse
from pathlib import Path
from typing import Any

from harvest_jax.arguments import HelpFormatter, Parser
from harvest_jax.model.config import ACTIVATIONS, RESIZES

FORMATS = (
    "hf",
    "hf_video",
    "open_clip",
    "viclip",
    "scenic",
    "safetensors",
    "stablehlo",
    "onnx",
)  # of export_model.py, whose imports are slow
HUB = "hf://"  # how an address on the Hugging Face Hub begins
DTYPES = ("keep", "float32", "float16", "bfloat16")

_IMPORT = """What SRC may be (recognised by its content; the table is in docs/weights.md):
  OpenAI's .pt files (TorchScript archives)        ViT-B-32.pt, ViT-B-16.pt, ViT-L-14.pt, ViT-L-14-336px.pt
  OpenCLIP: a folder, or a .bin, .pt, .safetensors  laion/CLIP-ViT-H-14-laion2B-s32B-b79K
  Hugging Face CLIP folders (also of Flax)         openai/clip-vit-base-patch16
  Long-CLIP .pt                                    BeichenZhang/LongCLIP-B
  ViCLIP .pth                                      OpenGVLab/ViCLIP
  SigLIP and SigLIP 2 of a fixed size (folders, npz)  google/siglip-base-patch16-224, google/siglip2-base-patch16-224
  EVA-02-CLIP (OpenCLIP folders, .pt)              timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k
  Perception Encoder PE-Core .pt                   facebook/PE-Core-B16-224
  Scenic's CLIP (msgpack, npz); harvest_jax's own folders and files
  a training folder: WORKDIR (its newest good checkpoint), WORKDIR@STEP or WORKDIR@best, also of a run that did not end
  hf://REPO[@REVISION] of the Hugging Face Hub, with /FILE after REPO where it holds several checkpoints
No pickle is executed. The architecture is read from the checkpoint.

  harvest weights import ViT-B-16.pt --out weights/clip_b16
  harvest train --config harvest_b16 --workdir runs/b16 --config.model.init_from=weights/clip_b16 ..."""

_EXPORT = """Formats, and what is written to E:
  hf           a folder for CLIPModel.from_pretrained and CLIPProcessor.from_pretrained of transformers 4 and 5
  hf_video     a folder for AutoModel and AutoProcessor of transformers 5 and for SentenceTransformer, each with
               trust_remote_code=True: the whole video model
  open_clip    a folder: open_clip_model.safetensors and open_clip_config.json
  viclip       a .safetensors file with the names of InternVideo's ViCLIP: the whole video model
  scenic       a .msgpack file: the parameter tree of Scenic's CLIP
  safetensors  a .safetensors file with the names of this package: everything, decoder included
  stablehlo    a folder of StableHLO programs, which run without this package
  onnx         a folder of two ONNX files for onnxruntime, with the tokenizer's files
hf, open_clip and scenic are image models: a video model is exported as what it computes for one frame, if it has
learnt nothing about time or if --drop_time is given.
A folder gets a model card, README.md, from what the model folder says and from results of `harvest eval` that have the
digest of this model: those of --results, by default of the folder `results` in D or beside it."""


def add_arguments(parser: argparse.ArgumentParser) -> Any:
    """Arguments of `harvest weights`, but for the hub's (`harvest_jax/hub/command.py`); gives its actions."""
    commands = parser.add_subparsers(dest="action", metavar="import|export|mix|push", required=True)

    bring = add_action(commands, "import", "make a model folder from a checkpoint", _IMPORT)
    bring.add_argument("source", metavar="SRC", help="file or folder of a checkpoint, or hf://REPO[/FILE][@REVISION]")
    bring.addresses = (HUB,)
    bring.set_defaults(hub=None)
    bring.add_argument("--out", type=Path, required=True, metavar="D", help="model folder to write")
    bring.add_argument("--num_frames", type=int, metavar="N", help="frames of a clip; the table of frames is resized")
    bring.add_argument(
        "--image_size", type=int, metavar="S", help="pixels of a side; the table of patch positions is resized"
    )
    bring.add_argument(
        "--dtype", choices=DTYPES, default="keep", help="dtype of the stored numbers (default: keep the checkpoint's)"
    )
    bring.add_argument(
        "--activation", choices=ACTIVATIONS, help="of both towers; needed if the checkpoint does not say it"
    )
    bring.add_argument(
        "--resize",
        choices=RESIZES,
        help="how pictures were made square in training: centre crop, or both sides resized",
    )
    bring.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json of a model that is not read with CLIP's (SigLIP); default: the one in SRC",
    )
    for name, what in (("mean", "mean"), ("std", "standard deviation")):
        bring.add_argument(
            f"--{name}",
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"{what} of the training pictures, of values in 0..1",
        )

    take = add_action(commands, "export", "write a model folder in another program's format", _EXPORT)
    take.add_argument("folder", type=Path, metavar="D", help="model folder, from harvest train, weights import or demo")
    take.add_argument("--format", required=True, choices=FORMATS, help="see below")
    take.add_argument("--out", type=Path, required=True, metavar="E", help="folder or file to write")
    take.add_argument(
        "--drop_time", action="store_true", help="write hf, open_clip or scenic although the model's time is lost in it"
    )
    take.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="of stablehlo: programs of fixed shapes for N rows (default: any number)",
    )
    take.add_argument(
        "--int8", action="store_true", help="of onnx: matrices are stored in 8 bits (docs/onnx.md says what it costs)"
    )

    mix = add_action(
        commands,
        "mix",
        "interpolate two models (WiSE-FT)",
        "The result is (1 - alpha) A + alpha B for the parameters that both have. The others are B's: the decoder,\n"
        "and the table of frames if A has another number of frames. An image model has no such table: import it with\n"
        "--num_frames to mix with a table of zeros.",
    )
    mix.add_argument("first", type=Path, metavar="A", help="model folder, usually the one that training started from")
    mix.add_argument("second", type=Path, metavar="B", help="model folder, usually the one that training wrote")
    mix.add_argument("--alpha", type=float, required=True, metavar="X", help="0 is A, 1 is B")
    mix.add_argument("--out", type=Path, required=True, metavar="D", help="model folder to write")
    return commands


def add_action(commands: Any, name: str, summary: str, more: str) -> Parser:
    """The parser of one action of `harvest weights`."""
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=more,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    # also accepted after the action; without it there, --debug before the action still holds
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the action and print in a few lines what was done.

    Args:
      args: of `add_arguments`; `hub` is what is known of a source that came from the hub, `card` a model card or None.
    """
    lines = {"import": _import, "export": _export, "mix": _mix}[args.action](args)
    print("\n".join(lines))
    return 0


def _import(args: argparse.Namespace) -> list[str]:
    from harvest_jax.weights.families.family import Overrides
    from harvest_jax.weights.import_checkpoint import import_checkpoint

    mean, std = (tuple(values) if values else None for values in (args.mean, args.std))
    source = Path(args.source)
    done = import_checkpoint(
        source,
        args.out,
        Overrides(args.activation, args.resize, mean, std),
        num_frames=args.num_frames,
        image_size=args.image_size,
        dtype=args.dtype,
        hub=args.hub,
        tokenizer=args.tokenizer,
    )
    name = f"{HUB}{args.hub['repo']}@{args.hub['commit']}" if args.hub else source
    return [
        f"{name}: {done['family']} ({done['kind']})",
        f"{args.out}: {done['model']}, {done['parameters']:,} numbers, {', '.join(done['dtypes'])}",
        *(f"note: {note}" for note in done["notes"]),
    ]


def _export(args: argparse.Namespace) -> list[str]:
    from harvest_jax.weights.export_model import export_model

    done = export_model(
        args.folder,
        args.format,
        args.out,
        drop_time=args.drop_time,
        batch=args.batch,
        int8=args.int8,
        card=args.card,
    )
    lines = [f"{args.out}: {done['format']}, {done['parameters']:,} numbers, {', '.join(done['dtypes'])}"]
    if done["left_out"]:
        lines.append(f"left out, because the format has no place for it: {', '.join(done['left_out'])}")
    return lines + [f"note: {note}" for note in done["notes"]]


def _mix(args: argparse.Namespace) -> list[str]:
    from harvest_jax.weights.mix import mix_models

    done = mix_models(args.first, args.second, args.alpha, args.out)
    mixture = f"{1 - args.alpha:g} x {args.first} + {args.alpha:g} x {args.second}"
    lines = [f"{args.out}: {mixture}, {done['mixed']:,} numbers"]
    if done["kept"]:
        parts = sorted({name if name.startswith("video/") else name.split("/")[0] for name in done["kept"]})
        lines.append(f"from {args.second} alone: {', '.join(parts)}")
    return lines
