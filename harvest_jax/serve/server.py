"""uvicorn, ended by the signals that end every command."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from harvest_jax import signals
from harvest_jax.serve.guard import Guard

CONNECTIONS = 512  # at once; more are answered with 503
GRACE = 5  # seconds that requests get when the server ends
IDLE = 10  # seconds that a connection may be silent between two requests


class _Server(uvicorn.Server):
    """Answers what it has begun, then raises the signal again: the command ends with its exit status."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own takes no SIGHUP, and takes what this process was told to ignore."""
        came: list[int] = []

        def end(number: int, frame: FrameType | None) -> None:
            came.append(number)
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, end) for number in signals.taken()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def serve(app: Guard, listening: socket.socket, on_start: Callable[[], None]) -> None:
    """Serve until a signal comes; it is raised again at the end.

    Args:
      app: the application.
      listening: the socket.
      on_start: called when requests are answered.
    """
    server_of(app, on_start).run([listening])


def server_of(app: Guard, on_start: Callable[[], None]) -> uvicorn.Server:
    """A server of the application that is not started yet; `on_start` as of `serve`."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,  # it would print tokens
        lifespan="on",
        ws="none",
        http="h11",
        loop="asyncio",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=GRACE,
    )
    return _Server(config, on_start)
