"""The one thread that calls the model for requests: texts and clips that wait together are embedded together.

The update of an index calls the model in its own thread, so that a question does not wait for a batch of videos: JAX
computes what several threads ask for at once.
"""

import itertools
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

TEXTS = 64  # of waiting requests in one call
CLIPS = 16  # the model's largest batch
_End = ("end", (), Future[Any]())


class ModelWorker:
    """Calls a model for requests, one call after the other.

    Args:
      model: as `harvest_jax.load` returns it.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._waiting: queue.SimpleQueue[tuple[str, Any, Future[Any]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def texts(self, texts: Sequence[str]) -> "Future[Float32[np.ndarray, 'b d']]":
        """The embeddings of texts, later; a future that is cancelled before is not computed."""
        return self._put("texts", list(texts))

    def clips(self, clips: UInt8[np.ndarray, "b t s s 3"]) -> "Future[Float32[np.ndarray, 'b d']]":
        """The embeddings of prepared clips, later."""
        return self._put("clips", clips)

    def close(self) -> None:
        """End after what waits."""
        self._waiting.put(_End)
        self._thread.join()

    def _put(self, kind: str, rows: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        self._waiting.put((kind, rows, future))
        return future

    def _work(self) -> None:
        following: tuple[str, Any, Future[Any]] | None = None
        while True:
            first = following or self._waiting.get()
            following = None
            kind, together = first[0], [first]
            if kind == "end":
                return
            while sum(len(rows) for _, rows, _ in together) < (TEXTS if kind == "texts" else CLIPS):
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following[0] != kind:
                    break
                together.append(following)
                following = None
            wanted = [(rows, future) for _, rows, future in together if future.set_running_or_notify_cancel()]
            if wanted:
                self._embed(kind, wanted)

    def _embed(self, kind: str, wanted: "list[tuple[Any, Future[Any]]]") -> None:
        try:
            if kind == "texts":
                embedded = self.model.encode_text(list(itertools.chain.from_iterable(rows for rows, _ in wanted)))
            else:
                embedded = self.model.encode_clips(np.concatenate([rows for rows, _ in wanted]))
        except Exception as error:
            for _, future in wanted:
                future.set_exception(error)
            return
        at = 0
        for rows, future in wanted:
            future.set_result(np.asarray(embedded[at : at + len(rows)], np.float32))
            at += len(rows)
