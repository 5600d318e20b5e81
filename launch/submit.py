"""One run, started on any kind of cluster: renders the command or the file that the cluster takes, and hands it over.

    python -m launch.submit --backend kubernetes --dry_run --nodes 2 --image IMAGE --volume CLAIM -- \
        --config harvest_b16 --workdir /shared/runs/b16 --config.data.shards=/shared/shards

`--dry_run` prints both instead; the printed file may be changed and handed over by hand. The run's config is checked
first. How often a run is started again, and after which exit codes, is the same everywhere (launch/restarts.py).
"""

import argparse
import dataclasses
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2

from harvest_jax import signals
from harvest_jax.arguments import Parser
from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError, HarvestError

from .restarts import FINAL, RESTARTS, STOPPED

HERE = Path(__file__).resolve().parent
GRACE = 180  # seconds from SIGTERM to SIGKILL
WAIT = 3600  # seconds that a process waits for the others at the start: machines come one after the other
PORT = 8476  # of the coordinator


@dataclasses.dataclass(frozen=True)
class Backend:
    """A kind of cluster.

    Attributes:
      needs: options that it cannot do without.
      command: of (args, the file) -> what hands the run over.
      template: in launch/templates, of the file; "" where the command says everything.
    """

    needs: tuple[str, ...]
    command: Callable[[argparse.Namespace, str], list[str]]
    template: str = ""


def _local(args: argparse.Namespace, file: str) -> list[str]:
    processes = ["--processes", str(args.nodes), "--devices", str(args.devices), "--restarts", str(args.restarts)]
    return [sys.executable, "-m", f"{__package__}.local", *processes, *args.extra, "--", *args.arguments]


def _slurm(args: argparse.Namespace, file: str) -> list[str]:
    each = str(args.devices)
    sizes = [f"--nodes={args.nodes}", f"--ntasks-per-node={each}", f"--gpus-per-node={each}"]
    name = f"--job-name={args.name}"
    restarts = f"--export=ALL,HARVEST_RESTARTS={args.restarts}"
    return ["sbatch", name, *sizes, restarts, *args.extra, str(HERE / "slurm.sbatch"), *args.arguments]


def _tpu_vm(args: argparse.Namespace, file: str) -> list[str]:
    where = ["--name", args.name, "--zone", args.zone, "--type", args.accelerator, "--restarts", str(args.restarts)]
    spot = ["--spot"] if args.spot else []
    return [str(HERE / "tpu_vm.sh"), *where, "--queued", *spot, *args.extra, "--", *args.arguments]


def _kubectl(args: argparse.Namespace, file: str) -> list[str]:
    return ["kubectl", "apply", *args.extra, "-f", file]


def _xpk(args: argparse.Namespace, file: str) -> list[str]:
    words = ["xpk", "workload", "create", "--workload", args.name, "--cluster", args.cluster, "--zone", args.zone]
    words += ["--tpu-type", args.accelerator, "--num-slices", str(args.slices), "--max-restarts", str(args.restarts)]
    words += [*(["--spot"] if args.spot else []), *args.extra, "--docker-image", args.image, "--storage", args.volume]
    return [*words, "--command", shlex.join(on_hosts(args))]


def _sky(args: argparse.Namespace, file: str) -> list[str]:
    return ["sky", "jobs", "launch", "--yes", *args.extra, file]


BACKENDS = {
    "local": Backend((), _local),
    "slurm": Backend((), _slurm),
    "tpu_vm": Backend(("zone", "accelerator"), _tpu_vm),
    "kubernetes": Backend(("image", "volume"), _kubectl, "kubernetes.yaml"),
    "jobset": Backend(("image", "volume", "accelerator", "topology"), _kubectl, "jobset.yaml"),
    "xpk": Backend(("image", "volume", "accelerator", "cluster", "zone"), _xpk),
    "skypilot": Backend(("image", "volume", "accelerator"), _sky, "skypilot.yaml"),
}


def build_parser() -> Parser:
    """The launcher's own arguments; those of `harvest train` follow `--`."""
    parser = Parser(
        prog="python -m launch.submit",
        usage="python -m launch.submit --backend B [--dry_run] [--nodes N] [...] -- --config FILE --workdir DIR [...]",
        description="Start one run on a cluster, or print what would start it.",
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, metavar="B", required=True, help=f"kind of cluster: {', '.join(BACKENDS)}"
    )
    parser.add_argument("--name", default="harvest", help="of the job (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="hosts, of each slice of TPUs (default 1)")
    parser.add_argument("--devices", type=int, default=8, metavar="K", help="GPUs or TPU chips of a host (default 8)")
    parser.add_argument("--slices", type=int, default=1, metavar="S", help="slices of TPUs (default 1)")
    parser.add_argument("--accelerator", metavar="A", help="as the cluster calls it: v5litepod-16, H200:8, ...")
    parser.add_argument("--topology", metavar="T", help="of a slice of TPUs: 4x4")
    parser.add_argument("--zone", help="of Google Cloud")
    parser.add_argument("--cluster", help="of xpk")
    parser.add_argument("--spot", action="store_true", help="machines that may be taken away")
    parser.add_argument("--image", metavar="I", help="container image, made with launch/Dockerfile")
    parser.add_argument("--volume", metavar="V", help="that holds workdir and shards, as the cluster calls it")
    parser.add_argument("--mount", default="/shared", metavar="DIR", help="where it is mounted (default: %(default)s)")
    parser.add_argument(
        "--restarts", type=int, default=RESTARTS, metavar="R", help="after crashes, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--extra",
        default="",
        metavar="WORDS",
        help="more options of the program that takes the run: --extra=--time=4:00:00",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the file and the command, start nothing")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="of harvest train, after --")
    return parser


def train_line(args: argparse.Namespace) -> list[str]:
    """`harvest train` with the run's arguments, as one of several processes."""
    return ["harvest", "train", *args.arguments, "--config.distributed=true"]


def on_hosts(args: argparse.Namespace) -> list[str]:
    """The command of a container: the training, started again by itself after a crash."""
    restarts = ["python", "-m", "harvest_jax.launch.restarts", "--restarts", str(args.restarts), "--"]
    return [*restarts, *train_line(args)]


def render(args: argparse.Namespace) -> str:
    """The file that the cluster takes; "" for a backend without one."""
    backend = BACKENDS[args.backend]
    if not backend.template:
        return ""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    tpu, sky = args.backend == "jobset", args.backend == "skypilot"
    values = {
        **{name: getattr(args, name) for name in ("name", "nodes", "devices", "slices", "accelerator", "topology")},
        **{name: getattr(args, name) for name in ("volume", "mount", "restarts")},
        "image": f"docker:{args.image}" if sky else args.image,
        "resource": "google.com/tpu" if tpu else "nvidia.com/gpu",
        # Kubernetes would replace $(NAME) in a command; $$( stands for itself.
        "command": [word.replace("$(", "$$(") for word in on_hosts(args)],
        "coordinator": f"{args.name}-0.{args.name}:{PORT}",
        "port": PORT,
        "grace": GRACE,
        "wait": WAIT,
        "final": sorted(FINAL),
        "stopped": sorted(STOPPED),
    }
    texts = {name: json.dumps(value) for name, value in values.items()}  # every JSON value is one of YAML's
    texts["line"] = shlex.join(on_hosts(args)).replace("\n", "\n  ")
    conditions = {"tpu": tpu, "spot": args.spot}
    job_spec = environment.get_template("job_spec.yaml").render(texts, **conditions)
    return environment.get_template(backend.template).render(texts, **conditions, job_spec=job_spec)


def check(args: argparse.Namespace) -> None:
    """What would only be noticed when the cluster has the machines.

    Raises:
      ConfigError: an option or `--workdir` is missing, a config that cannot be used, a name that clusters refuse.
    """
    for name in BACKENDS[args.backend].needs:
        if not getattr(args, name):
            raise ConfigError(f"--backend {args.backend} needs --{name}")
    if not args.name.replace("-", "a").isalnum() or not args.name[0].isalpha() or args.name != args.name.lower():
        raise ConfigError(f"--name {args.name}: use small letters, digits and hyphens, a letter first")
    parser = Parser(prog="harvest train")
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True, type=Path)
    words, overrides = parser.take_overrides(args.arguments)
    run = parser.parse_args(words)
    file = Path(run.config.partition(":")[0])
    if "image" in BACKENDS[args.backend].needs:
        for option, path in {"--workdir": run.workdir, **({"--config": file} if file.suffix == ".py" else {})}.items():
            if not path.is_relative_to(args.mount):
                raise ConfigError(f"{option} {path} is not below {args.mount}, where --volume is mounted (--mount)")
        if file.is_relative_to(args.mount) and not file.exists():
            return  # only the machines of the cluster can read it
    run_config.load(run.config, overrides)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status is that of the program that took the run."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, least in {"nodes": 1, "devices": 1, "slices": 1, "restarts": 0}.items():
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}")
    args.extra = shlex.split(args.extra)
    args.arguments = [word for word in args.arguments if not word.startswith("--config.distributed=")]
    try:
        check(args)
        text = render(args)
        backend = BACKENDS[args.backend]
        if args.dry_run:
            print(text, end="")
            print(("# " if text else "") + shlex.join(backend.command(args, f"{args.name}.yaml" if text else "")))
            return 0
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix=args.name) as file:
            file.write(text)
            file.flush()
            return subprocess.call(backend.command(args, file.name))
    except (HarvestError, OSError) as error:
        print(f"[submit] {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code if isinstance(error, HarvestError) else 1


if __name__ == "__main__":
    sys.exit(signals.run_program("launch.submit", main))
