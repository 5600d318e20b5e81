"""The page and the API over a folder of colour films, within the test's process and on a socket of their own."""

import contextlib
import os
import socket
import threading
import types

import numpy as np

from data_pipeline.decode.window_rule import WindowRule
from harvest_jax.serve.app import App
from harvest_jax.serve.library import Library
from harvest_jax.serve.model_worker import ModelWorker
from harvest_jax.serve.server import server_of
from tests.helpers.colour_films import COLOURS, ColourModel
from tests.helpers.processes import wait_until

MAX_BODY = 2_000_000
RULE = WindowRule()


class ColourServerModel(ColourModel):
    """Embeds several texts; a word that is no colour is grey."""

    def __init__(self, folder="colours"):
        super().__init__(folder)
        self.calls = []

    def encode_text(self, texts):
        texts = [texts] if isinstance(texts, str) else texts
        self.calls.append(len(texts))
        return self._unit(np.array([COLOURS.get(text.split()[0], COLOURS["grey"]) for text in texts], np.float32))


@contextlib.contextmanager
def app_of(folder, index, token="", max_body=MAX_BODY, names=(), loopback=True, model=None, rule=RULE):
    """The guarded application once the folder is embedded; `library`, `worker` and `model` beside it."""
    model = model or ColourServerModel()
    library = Library(model, folder, index, rule, 1)
    worker = ModelWorker(model)
    unguarded = App(library, worker, token, "films")
    app = unguarded.guarded({"localhost", *names}, loopback, max_body)
    library.start(watched=False)
    try:
        wait_until(lambda: library.progress.state != "indexing", 90)
        yield types.SimpleNamespace(
            app=app, routes=unguarded.starlette().routes, library=library, worker=worker, model=model, folder=folder
        )
    finally:
        library.close()
        worker.close()


@contextlib.contextmanager
def on_a_socket(app):
    """(host, port) of the application on uvicorn, in a thread."""
    started = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        server = server_of(app, started.set)
        server.capture_signals = contextlib.nullcontext  # only a main thread can
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert started.wait(60)
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def open_files():
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))
