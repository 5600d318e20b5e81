"""The page and the JSON API of `harvest serve`; what each path takes and gives is in openapi.py."""

import asyncio
import dataclasses
import datetime
import functools
import hashlib
import json
import math
import mimetypes
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from io import BufferedIOBase
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import jinja2
import numpy as np
from jaxtyping import Float32
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from data_pipeline.media_paths import VideoRejected, open_regular
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.pages.environment import page_environment
from harvest_jax.search.find import Filters
from harvest_jax.search.query import parsed
from harvest_jax.serve import openapi, pictures
from harvest_jax.serve.guard import COOKIE, Guard, cookie_of, same
from harvest_jax.serve.library import Library, Moment
from harvest_jax.serve.model_worker import ModelWorker
from harvest_jax.terminal import printable
from harvest_jax.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
TOP = 24  # results if a request does not say how many
MOST_RESULTS = 200
MOST_TEXTS = 256  # of one request to /api/embed
MOST_FILES = 16
MOST_LETTERS = 10_000  # of one text
UPLOADS = 4  # requests with a file that are read at once
SEARCHES = 2  # threads that compare a query with the index
_LARGEST_FILE = 1 << 62  # bytes; a file of the folder is sent whatever its size
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Question:
    """What is looked for; empty or None: nothing of this kind.

    Attributes:
      words: as of `search.query`, without files.
      without: words for what should not be in it.
      like: `Moment.id` of a moment that was found.
      folder: only below it.
      min_score: least z.
      group: "moment", or "file" for the best moment of each file.
      shortest, longest: duration of the file in seconds.
      after, before: when the file was changed, seconds since 1970.
      top: number of results at most.
    """

    words: str = ""
    without: str = ""
    like: str = ""
    folder: str = ""
    min_score: float | None = None
    group: str = "moment"
    shortest: float | None = None
    longest: float | None = None
    after: float | None = None
    before: float | None = None
    top: int = TOP

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Question":
        """From the fields of a request.

        Raises:
          HTTPException: a field has a value that it cannot have.
        """
        texts = {name: " ".join(_text(values, field).split()) for field, name in _TEXT_FIELDS.items()}
        group = _text(values, "group") or "moment"
        if group not in ("moment", "file"):
            raise HTTPException(400, "group must be moment or file")
        return cls(
            **texts,
            group=group,
            min_score=_number(values, "min_score", -1000.0, 1000.0),
            shortest=_number(values, "min_duration", 0.0, 1e9),
            longest=_number(values, "max_duration", 0.0, 1e9),
            after=_date(values, "after"),
            before=_date(values, "before"),
            top=int(_number(values, "top", 1.0, float(MOST_RESULTS)) or TOP),
        )

    def filters(self) -> Filters | None:
        """The files to search; None: all."""
        below = os.path.normpath(self.folder.strip("/")) if self.folder.strip("/") else None
        found = Filters(below, self.after, self.before, self.shortest, self.longest)
        return None if found == Filters() else found

    @property
    def is_filtered(self) -> bool:
        """Whether more than words and a moment was given."""
        return replace(self, words="", like="", top=TOP) != Question()


_TEXT_FIELDS = {"q": "words", "minus": "without", "like": "like", "folder": "folder"}


def _text(values: Mapping[str, Any], field: str) -> str:
    value = values.get(field, "")
    if not isinstance(value, str):
        raise HTTPException(400, f"{field} must be a text")
    if len(value) > MOST_LETTERS:
        raise HTTPException(400, f"{field} has {len(value):,} letters; at most {MOST_LETTERS:,}")
    return value


def _number(values: Mapping[str, Any], field: str, least: float, most: float) -> float | None:
    text = values.get(field, "")
    if text == "":
        return None
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not least <= value <= most:
        raise HTTPException(400, f"{field} must be a number from {least:g} to {most:g}")
    return value


def _date(values: Mapping[str, Any], field: str) -> float | None:
    text = _text(values, field)
    try:
        return datetime.datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):
        raise HTTPException(400, f"{field} must be a date such as 2024-05-31") from None


class App:
    """The application.

    Args:
      library: the folder and its index.
      worker: calls the library's model.
      token: that requests must have; empty: none.
      title: of the page.
    """

    def __init__(self, library: Library, worker: ModelWorker, token: str, title: str) -> None:
        self._library, self._worker, self._model, self._token = library, worker, worker.model, token
        self._posters, self._uploads = pictures.poster_decoders(), pictures.upload_decoders(worker.model)
        self._cache = pictures.PosterCache()
        self._poster_turn = asyncio.Semaphore(2)
        self._upload_turn = asyncio.Semaphore(UPLOADS)
        self._threads = anyio.CapacityLimiter(SEARCHES)
        self._pages = page_environment(TEMPLATES)
        self._pages.globals |= {
            "title": title,
            "version": __version__,
            "seconds": clock,
            "day": day,
            "shown": printable,
        }
        self._style = _joined(self._pages, "style.css", "serve.css")
        self._script = _joined(self._pages, "page.js")

    def starlette(self) -> Starlette:
        """The routes."""
        pages = {"/": self.page, "/results": self.results}
        routes = [Route(path, page, methods=["GET", "POST"]) for path, page in pages.items()]
        routes += [
            Route("/api/search", self.search, methods=["GET", "POST"]),
            Route("/api/embed", self.embed, methods=["POST"]),
            Route("/api/progress", self.progress),
            Route("/api/refresh", self.refresh, methods=["POST"]),
            Route("/api/openapi.json", self.description),
            Route("/api", self.api_page),
            Route("/video/{file}", self.video),
            Route("/poster/{file}", self.poster),
            Route("/healthz", self.healthz),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/static/style.css", lambda request: _static(request, self._style, "text/css")),
            Route("/static/page.js", lambda request: _static(request, self._script, "text/javascript")),
        ]
        handlers: dict[Any, Any] = {HTTPException: _on_http_error, VideoRejected: _on_video_rejected}
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    def guarded(self, names: set[str], loopback: bool, max_body: int) -> Guard:
        """The application behind the checks of `Guard`."""
        return Guard(self.starlette(), names, loopback, self._token, max_body)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._posters.close()
        self._uploads.close()

    # The page

    async def page(self, request: Request) -> Response:
        """The page, with the results of what its address asks for: it works without the script, too."""
        return await self._page(request, "page.html.j2")

    async def results(self, request: Request) -> Response:
        """The results alone, for the script."""
        return await self._page(request, "results.html.j2")

    async def _page(self, request: Request, template: str) -> Response:
        question, status = Question(), 200
        moments: list[Moment] | None = None
        notes: list[str] = []
        try:
            question, moments, notes = await self._answer(request)
        except HTTPException as error:
            notes, status = [error.detail], error.status_code
        except VideoRejected as error:
            notes, status = [_reason(error)], 422
        html = self._pages.get_template(template).render(
            question=question,
            moments=None if moments is None else [_tile(moment) for moment in moments],
            notes=notes,
            progress=self._library.progress,
            folders=[(folder, printable(folder)) for folder in self._library.folders() if _is_utf8(folder)],
            has_token=bool(self._token),
        )
        return HTMLResponse(html, status)

    async def login(self, request: Request) -> Response:
        """The form for the token; the token becomes a cookie."""
        given = request.query_params.get("token")
        if request.method == "POST":
            async with request.form(max_files=0, max_fields=2) as form:
                given = str(form.get("token", ""))
        if self._token and (given is None or not same(given.strip(), self._token)):
            html = self._pages.get_template("login.html.j2").render(wrong=given is not None)
            return HTMLResponse(html, 200 if given is None else 401)
        response = RedirectResponse("/", 303)
        if self._token:
            response.set_cookie(COOKIE, cookie_of(self._token), httponly=True, samesite="strict")
        return response

    # The API

    async def search(self, request: Request) -> Response:
        """Moments as JSON."""
        _, moments, notes = await self._answer(request)
        if moments is None:
            raise HTTPException(400, "nothing to look for: give q, like or a file")
        results = [{"rank": rank, **_as_json(moment)} for rank, moment in enumerate(moments, start=1)]
        return _json({"results": results, "notes": notes, "progress": dataclasses.asdict(self._library.progress)})

    async def embed(self, request: Request) -> Response:
        """Embeddings of texts, or of files."""
        if request.headers.get("content-type", "").partition(";")[0].strip() == "multipart/form-data":
            async with self._upload_turn, request.form(max_files=MOST_FILES, max_fields=0) as form:
                files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
                if not files:
                    raise HTTPException(400, "no file in the form")
                rows = np.concatenate([await self._embedded(file) for file in files])
        else:
            try:
                body = json.loads(await request.body())
                texts = body["texts"]
            except (ValueError, TypeError, KeyError, RecursionError):
                raise HTTPException(400, 'the body must be JSON, {"texts": ["..."]}, or a form with files') from None
            if not isinstance(texts, list) or not 0 < len(texts) <= MOST_TEXTS:
                raise HTTPException(400, f"texts must be a list of 1 to {MOST_TEXTS} texts")
            rows = await self._embed_texts([_text({"each of texts": text}, "each of texts") for text in texts])
        answer = {"model": self._model.digest, "width": rows.shape[1]}
        return await self._in_thread(lambda: _json(answer | {"embeddings": rows.tolist()}))

    async def progress(self, request: Request) -> Response:
        """How far the index is."""
        return _json(dataclasses.asdict(self._library.progress))

    async def refresh(self, request: Request) -> Response:
        """Look for new files."""
        self._library.refresh()
        return _json(dataclasses.asdict(self._library.progress), 202)

    async def healthz(self, request: Request) -> Response:
        """Whether the server lives."""
        return _json({"status": "ok"})

    async def description(self, request: Request) -> Response:
        """OpenAPI."""
        return _json(openapi.DESCRIPTION)

    async def api_page(self, request: Request) -> Response:
        """The description as a page."""
        return HTMLResponse(self._pages.get_template("api.html.j2").render(api=openapi.DESCRIPTION))

    # Files

    async def video(self, request: Request) -> Response:
        """A file of the folder, or the part of it that the browser asks for."""
        path, file, status = await self._opened(request)
        kind = mimetypes.guess_type(path)[0] or ""
        if not kind.startswith(("video/", "image/")):
            kind = "application/octet-stream"
        return _OpenFile(file, status, kind)

    async def poster(self, request: Request) -> Response:
        """The middle frame of a moment, as JPEG."""
        start = _number(request.query_params, "start", 0.0, 1e9)
        end = _number(request.query_params, "end", 0.0, 1e9)
        path, file, status = await self._opened(request)
        file.close()
        key = (path, *pictures.state_of(status), start, end)
        tag = f'"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}"'
        headers = {"etag": tag, "cache-control": "private, no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        content = self._cache.get(key)
        if content is None:
            async with self._poster_turn:
                if await request.is_disconnected():  # the person typed on
                    return Response(status_code=499)
                content = self._cache.get(key)
                if content is None:
                    real = os.path.join(self._library.root, path)
                    work = functools.partial(pictures.poster, path=real, start=start, end=end)
                    content = await asyncio.wrap_future(self._posters.submit(work))
                    self._cache.put(key, content)
        return Response(content, media_type="image/jpeg", headers=headers)

    async def _opened(self, request: Request) -> tuple[str, BufferedIOBase, os.stat_result]:
        path = self._library.path(request.path_params["file"])
        if path is None:
            raise HTTPException(404, "no such file in the index")
        try:
            return path, *await anyio.to_thread.run_sync(open_below, self._library.root, path)
        except VideoRejected as error:
            raise HTTPException(404, _reason(error)) from None

    # Questions

    async def _answer(self, request: Request) -> tuple[Question, list[Moment] | None, list[str]]:
        """(the question, the moments found, notes for who asked); no moments if nothing was asked for."""
        if request.method == "GET":
            question = Question.of(request.query_params)
            return question, *await self._found(question, None)
        async with self._upload_turn, request.form(max_files=1, max_fields=16, max_part_size=4 * MOST_LETTERS) as form:
            given = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            question = Question.of({**request.query_params, **given})
            file = form.get("file")
            file = file if isinstance(file, UploadFile) and file.filename else None
            return question, *await self._found(question, file)

    async def _found(self, question: Question, file: UploadFile | None) -> tuple[list[Moment] | None, list[str]]:
        texts = _weighted(question)
        parts: list[tuple[float, Float32[np.ndarray, " d"]]] = []
        notes: list[str] = []
        if texts:
            rows = await self._embed_texts([text for _, text in texts])
            parts += [(weight, row) for (weight, _), row in zip(texts, rows, strict=True)]
            notes = await self._in_thread(lambda: self._cut_notes([text for _, text in texts]))
        if question.like:
            like = self._library.vector(question.like)
            if like is None:
                raise HTTPException(404, "the moment to compare with is not in the index (any more)")
            parts.append((1.0, like))
        if file is not None:
            parts += [(1.0, row) for row in await self._embedded(file)]
        if not parts:
            return None, []
        find = functools.partial(
            self._library.find,
            parts,
            len(parts) == len(texts),
            question.top,
            question.group,
            question.min_score,
            question.filters(),
        )
        try:
            return await self._in_thread(find), notes
        except DataError as error:
            raise HTTPException(400, str(error)) from None

    def _cut_notes(self, texts: list[str]) -> list[str]:
        tokenizer, limit = self._model.tokenizer, self._model.config.text.context_length
        cut = any(len(tokenizer.encode(text)) + tokenizer.around > limit for text in texts)
        return [f"Only the beginning of the words is used: the model reads {limit} tokens."] if cut else []

    async def _embed_texts(self, texts: list[str]) -> Float32[np.ndarray, "b d"]:
        return await asyncio.wrap_future(self._worker.texts(texts))

    async def _embedded(self, file: UploadFile) -> Float32[np.ndarray, "1 d"]:
        work = functools.partial(pictures.uploaded_clip, content=file.file, config=self._model.config)
        clip = await asyncio.wrap_future(self._uploads.submit(work))
        return await asyncio.wrap_future(self._worker.clips(clip[None]))

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)


class _OpenFile(FileResponse):
    """An open file, so that what was checked is what is sent, whatever its name leads to meanwhile."""

    def __init__(self, file: BufferedIOBase, status: os.stat_result, kind: str) -> None:
        self._file = file
        headers = {"cache-control": "private, no-cache"}
        super().__init__(f"/proc/self/fd/{file.fileno()}", headers=headers, media_type=kind, stat_result=status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def open_below(root: str, path: str) -> tuple[BufferedIOBase, os.stat_result]:
    """An open file and its state.

    Args:
      root: a folder's real path.
      path: of a file below it.

    Raises:
      VideoRejected: it is gone or cannot be opened, is no regular file, or does not lie below the root (any more): a
        file of the index may since have been replaced by a link, and so may a folder on the way to it.
    """
    file = open_regular(os.path.join(root, path), _LARGEST_FILE)
    real = os.path.realpath(f"/proc/self/fd/{file.fileno()}")
    if os.path.commonpath((root, real)) != root:
        file.close()
        raise VideoRejected("bad path: a link leads out of the folder")
    return file, os.fstat(file.fileno())


def clock(seconds: float) -> str:
    """65.4 -> "1:05", 3725 -> "1:02:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def day(seconds: float | None) -> str:
    """The date of a time in seconds since 1970, for a field of a form."""
    return "" if seconds is None else datetime.datetime.fromtimestamp(seconds).date().isoformat()


def _weighted(question: Question) -> list[tuple[float, str]]:
    """Weight and words of each part; a file of this machine cannot be named."""
    if not question.words:
        return [(-1.0, question.without)] if question.without else []
    try:
        parts = parsed(question.words)
    except ConfigError as error:
        raise HTTPException(400, str(error)) from None
    if any(part.path is not None for part in parts):
        raise HTTPException(400, "a file cannot be named here: send it, or drop it on the page")
    without = [(-1.0, question.without)] if question.without else []
    return [(part.weight, part.words) for part in parts] + without


def _as_json(moment: Moment) -> dict[str, Any]:
    span = "" if moment.is_picture else f"?start={moment.start:.3f}&end={moment.end:.3f}"
    return {
        "id": moment.id,
        "path": moment.path,
        "start": round(moment.start, 3),
        "end": round(moment.end, 3),
        "score": moment.score,
        "z": round(moment.z, 3),
        "copies": list(moment.copies),
        "video": f"/video/{moment.file}",
        "poster": f"/poster/{moment.file}{span}",
    }


def _tile(moment: Moment) -> dict[str, Any]:
    """What the template shows of a moment."""
    folder, name = os.path.split(moment.path)
    as_image = moment.is_picture or name.lower().endswith(".gif")
    names = {"name": printable(name), "where": printable(folder), "as_image": as_image}
    return _as_json(moment) | names | {"is_picture": moment.is_picture}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(content: Any, status: int = 200) -> Response:
    # ASCII: a name may have bytes that are no UTF-8, which json writes as \udce9
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")


def _static(request: Request, content: str, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"cache-control": "no-cache"})


def _joined(pages: jinja2.Environment, *names: str) -> str:
    assert pages.loader is not None
    return "\n".join(pages.loader.get_source(pages, name)[0] for name in names)


def _reason(error: VideoRejected) -> str:
    return f"The file cannot be used: {printable(error.reason)}."


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = error.detail or HTTPStatus(error.status_code).phrase
    response = _json({"error": reason}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _on_video_rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, VideoRejected)
    return _json({"error": _reason(error)}, 422)
