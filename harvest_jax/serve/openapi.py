"""The description of the API in OpenAPI 3.1, written by hand; a test compares it with the routes and the answers."""

from typing import Any

from harvest_jax.version import __version__

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_WHOLE = {"type": "integer"}
_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def _answer(schema: Any, what: str, code: str = "200", kind: str = "application/json") -> dict[str, Any]:
    return {code: {"description": what, "content": {kind: {"schema": schema}}}}


def _parameter(name: str, what: str, schema: Any, where: str = "query") -> dict[str, Any]:
    given = {"name": name, "in": where, "description": what, "schema": schema}
    return given | ({"required": True} if where == "path" else {})


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_ERRORS = {
    code: {"description": what, "content": {"application/json": {"schema": _reference("Error")}}}
    for code, what in {
        "400": "a value that cannot be",
        "404": "not in the index",
        "413": "the body is too large",
        "422": "a file that cannot be decoded",
    }.items()
}
_QUESTION = [
    _parameter(
        "q", "words, in English; a dog - on a beach; a dog + 0.5*at night", {"type": "string", "maxLength": 10000}
    ),
    _parameter("minus", "words for what should not be in it", {"type": "string", "maxLength": 10000}),
    _parameter("like", "the id of a result: more like this one", _TEXT),
    _parameter("folder", "only files below this folder of the library", _TEXT),
    _parameter("min_score", "only results with at least this z", _NUMBER),
    _parameter("group", "moment; or file: the best moment of each file alone", {"enum": ["moment", "file"]}),
    _parameter("min_duration", "only files of at least so many seconds", {"type": "number", "minimum": 0}),
    _parameter("max_duration", "only files of at most so many seconds", {"type": "number", "minimum": 0}),
    _parameter("after", "only files changed on or after this date", {"type": "string", "examples": ["2024-05-31"]}),
    _parameter("before", "only files changed before this date", _TEXT),
    _parameter("top", "results at most (24)", {"type": "integer", "minimum": 1, "maximum": 200}),
]
_SPAN = [
    _parameter("file", "the `file` in a result's `video` and `poster`", _TEXT, "path"),
    _parameter("start", "seconds", _NUMBER),
    _parameter("end", "seconds", _NUMBER),
]
_FOUND = _answer(_reference("Found"), "the moments, best first")
_SEARCH = "Find moments by words, by a moment that was found, by a picture or a clip, or by several of these together"

DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "harvest serve",
        "version": __version__,
        "description": "Search in a folder of videos, and embeddings of texts, pictures and clips, on this machine.",
    },
    "security": [{}, {"token": []}],
    "paths": {
        "/api/search": {
            "get": {"summary": _SEARCH, "parameters": _QUESTION, "responses": _FOUND | _ERRORS},
            "post": {
                "summary": f"{_SEARCH}; the parameters may be fields of the form, too",
                "parameters": _QUESTION,
                "requestBody": {"content": {"multipart/form-data": {"schema": _object(file=_FILE)}}},
                "responses": _FOUND | _ERRORS,
            },
        },
        "/api/embed": {
            "post": {
                "summary": "Embeddings of up to 256 texts, or of up to 16 pictures and clips",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": _object(texts={"type": "array", "items": _TEXT})},
                        "multipart/form-data": {"schema": _object(file={"type": "array", "items": _FILE})},
                    },
                },
                "responses": _answer(_reference("Embeddings"), "one row for each, of length 1") | _ERRORS,
            }
        },
        "/api/progress": {
            "get": {
                "summary": "How far the index is",
                "responses": _answer(_reference("Progress"), "its state"),
            }
        },
        "/api/refresh": {
            "post": {
                "summary": "Look for new, changed and removed files",
                "responses": _answer(_reference("Progress"), "begun", "202"),
            }
        },
        "/video/{file}": {
            "get": {
                "summary": "A file, whole or in parts (Range)",
                "parameters": _SPAN[:1],
                "responses": _answer(_FILE, "the file", kind="video/*") | {"404": _ERRORS["404"]},
            }
        },
        "/poster/{file}": {
            "get": {
                "summary": "The middle frame of a span",
                "parameters": _SPAN,
                "responses": _answer(_FILE, "the frame", kind="image/jpeg")
                | {code: _ERRORS[code] for code in ("400", "404", "422")},
            }
        },
        "/healthz": {
            "get": {
                "summary": "Whether the server answers; needs no token",
                "security": [{}],
                "responses": _answer(_object(status={"const": "ok"}), "it does"),
            }
        },
    },
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "Error": _object(error=_TEXT),
            "Progress": _object(
                state={"enum": ["indexing", "ready", "failed"]},
                done=_WHOLE,
                total=_WHOLE,
                files=_WHOLE,
                unreadable=_WHOLE,
                problem=_TEXT,
                note=_TEXT,
            ),
            "Moment": _object(
                rank=_WHOLE,
                id=_TEXT,
                path=_TEXT,
                start=_NUMBER,
                end=_NUMBER,
                score=_NUMBER,
                z=_NUMBER,
                copies={"type": "array", "items": _TEXT},
                video=_TEXT,
                poster=_TEXT,
            ),
            "Found": _object(
                results={"type": "array", "items": _reference("Moment")},
                notes={"type": "array", "items": _TEXT},
                progress=_reference("Progress"),
            ),
            "Embeddings": _object(
                model=_TEXT,
                width=_WHOLE,
                embeddings={"type": "array", "items": {"type": "array", "items": _NUMBER}},
            ),
        },
    },
}
