"""Where measurements go besides `metrics.jsonl`, if the config asks for it: `log.sinks`.

Each needs a package that is no dependency of this one (an extra of the same name) and is imported only if it is asked
for. Services are spoken to in a thread of their own: a network that does not answer delays nothing.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

from harvest_jax.checkpoint.workdir import Workdir

PROJECT = "harvest_jax"  # of the services, unless their own variables name another
BEHIND = 1000  # measurements that a service may be behind
CLOSE_SECONDS = 15.0  # that a service gets for the last measurements
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


@runtime_checkable
class Sink(Protocol):
    """Where measurements go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the measurements of one step."""

    def close(self) -> None:
        """Write what is buffered."""


Makers = Mapping[str, Callable[[], Sink | None]]  # title -> what opens it


def sink_makers(names: str, workdir: Workdir, restored_step: int, config: Mapping[str, Any], run_id: str) -> Makers:
    """What opens the sinks of `log.sinks`.

    Args:
      names: "auto" (TensorBoard, where it is installed), or names of `SERVICES` and "tensorboard" with commas.
      workdir: of the run; files go into it.
      restored_step: 0 at a fresh start.
      config: of the run, for the services; credentials in addresses are left out.
      run_id: by which a service knows the run again when it goes on.
    """
    makers: dict[str, Callable[[], Sink | None]] = {}
    fields = _flat(config)
    for name in names_of(names):
        if name in ("auto", "tensorboard"):
            makers["TensorBoard"] = partial(tensorboard, workdir, restored_step, name != "auto")
        else:
            title, service = SERVICES[name]
            makers[title] = partial(InBackground, partial(service, workdir, fields, run_id))
    return makers


def names_of(text: str) -> list[str]:
    """The names in `log.sinks`, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


class InBackground:
    """A sink that is opened and used by a thread; its error is raised by the next call."""

    def __init__(self, make: Callable[[], Sink]) -> None:
        """Open it, without waiting for that."""
        self._waiting: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(BEHIND)
        self._error: Exception | None = None
        self._make = make
        self._thread = threading.Thread(target=self._work, name="measurements", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Hand the measurements to the thread."""
        if self._error is not None:
            raise self._error
        try:
            self._waiting.put_nowait((step, dict(values)))
        except queue.Full:
            raise RuntimeError(f"it is {BEHIND} measurements behind") from None

    def close(self) -> None:
        """Wait for the last measurements, not longer than `CLOSE_SECONDS`."""
        try:
            self._waiting.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)
        except queue.Full:
            pass
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            raise TimeoutError(f"it did not take the last measurements within {CLOSE_SECONDS:.0f} s")

    def _work(self) -> None:
        try:
            sink = self._make()
            while (item := self._waiting.get()) is not None:
                sink.write(*item)
            sink.close()
        except Exception as error:  # raised again where the next measurement is written
            self._error = error


def tensorboard(workdir: Workdir, restored_step: int, asked: bool = False) -> Sink | None:
    """Event files for TensorBoard, by tensorboardX (the extra `tensorboard`).

    Args:
      workdir: gets a folder `tensorboard`.
      restored_step: 0 at a fresh start.
      asked: whether it was asked for; else None is returned without the package.

    Raises:
      ImportError: it was asked for, and the package is missing.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        if asked:
            raise
        return None
    folder = workdir.tensorboard

    class EventFiles:
        def __init__(self) -> None:
            # Events of the steps from purge_step on, left by an interrupted run, are hidden.
            self._writer = SummaryWriter(str(folder), purge_step=restored_step + 1 if folder.exists() else None)

        def write(self, step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

        def close(self) -> None:
            self._writer.close()

    return EventFiles()


class WandB:
    """Weights & Biases, with the account or the offline mode of its own variables (`WANDB_MODE=offline`)."""

    def __init__(self, workdir: Workdir, config: Mapping[str, Any], run_id: str) -> None:
        """Begin a run, or go on with it.

        Raises:
          RuntimeError: it would ask for an account on the terminal.
        """
        import wandb

        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no account: run `wandb login`, or set WANDB_MODE=offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=workdir.root.name,
            id=run_id or None,
            resume="allow",
            dir=str(workdir.root),
            config=dict(config),
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, silent=True),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the measurements; steps that it has already are ignored by it."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MLflow:
    """MLflow: the server of `MLFLOW_TRACKING_URI`, or a database in the workdir."""

    def __init__(self, workdir: Workdir, config: Mapping[str, Any], run_id: str) -> None:
        """Begin a run, or go on with the one that has the tag `harvest_jax.run`."""
        from mlflow import MlflowClient

        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workdir.root.absolute() / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=address)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        tag = "harvest_jax.run"
        found = self._client.search_runs([number], f"tags.`{tag}` = '{run_id}'", max_results=1) if run_id else []
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, "RUNNING")
            return
        run = self._client.create_run(number, run_name=workdir.root.name, tags={tag: run_id})
        self._run = run.info.run_id
        for field, value in config.items():
            self._client.log_param(self._run, field, str(value)[:500])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the measurements; MLflow allows fewer characters in names."""
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        names = {name: re.sub(r"[^\w\-. /]", "_", name) for name in values}
        self._client.log_batch(self._run, [Metric(names[name], value, now, step) for name, value in values.items()])

    def close(self) -> None:
        """Say that the attempt has ended."""
        self._client.set_terminated(self._run)


class Trackio:
    """trackio: a database of the user (`TRACKIO_DIR`), which `trackio show` displays."""

    def __init__(self, workdir: Workdir, config: Mapping[str, Any], run_id: str) -> None:
        """Begin a run, or go on with it: it is known by its name."""
        import trackio

        self._trackio = trackio
        trackio.init(
            project=PROJECT, name=f"{workdir.root.name}-{run_id}", config=dict(config), resume="allow", embed=False
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the measurements."""
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._trackio.finish()


# name in `log.sinks` -> (title, what opens it from workdir, config and id of the run)
SERVICES: dict[str, tuple[str, Callable[[Workdir, Mapping[str, Any], str], Sink]]] = {
    "wandb": ("Weights & Biases", WandB),
    "mlflow": ("MLflow", MLflow),
    "trackio": ("trackio", Trackio),
}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 5}} -> {"train.steps": 5}; lists become texts, and credentials in addresses are left out."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, bool | int | float)
            found[f"{prefix}{name}"] = value if plain else _CREDENTIALS.sub("", str(value))
    return found
