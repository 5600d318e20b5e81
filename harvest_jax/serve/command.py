"""`harvest serve`: a page in the browser, and an API for programs, that find moments in a folder of videos."""

import argparse
import importlib
import ipaddress
import os
import secrets
import socket
import sys
from pathlib import Path

from harvest_jax.errors import ConfigError
from harvest_jax.machine import available_cores
from harvest_jax.terminal import printable

TOKEN = "HARVEST_TOKEN"  # the environment variable; an option would be seen by everybody who lists processes
SHORTEST_TOKEN = 16  # letters
EXPLANATION = f"""examples:
  harvest serve --model runs/demo/export --videos ~/Videos
  {TOKEN}=$(openssl rand -hex 24) harvest serve --model weights/b16 --videos /films --host 0.0.0.0 --name films.lan

The page is at http://127.0.0.1:8017/, its API is described at /api. The folder is embedded while the page can be used
already, into the index of `harvest search`. Nothing is sent to another machine, and the page loads nothing from one.

Without --host only programs on this machine can connect, and all of them can: with {TOKEN} set they need the token. A
server that listens on another address always has a token, which is made and printed if {TOKEN} is not set. Requests
must name this machine: by its address, as localhost, by its own name, or by a name that --name gives. Traffic is not
encrypted: over a network that is not yours put a proxy with TLS before it, or use ssh -L 8017:127.0.0.1:8017.

Ctrl-C or SIGTERM ends it: requests are answered, what was embedded is saved. Needs pip install 'harvest_jax[serve]'.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest serve`."""
    from data_pipeline.decode.window_rule import WindowRule
    from harvest_jax.search.command import add_model_and_folder

    rule = WindowRule()
    parser.epilog = EXPLANATION
    add_model_and_folder(parser)
    parser.add_argument("--index", type=Path, metavar="DIR", help="the index (default: that of `harvest search`)")
    parser.add_argument(
        "--window", type=float, default=rule.seconds, metavar="S", help="length of a window (default %(default)g)"
    )
    parser.add_argument("--stride", type=float, metavar="S", help="from window to window (default: half a window)")
    parser.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one for each core)")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8017, help="to listen on (default %(default)s); 0: a free one")
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a further host name of this server; repeatable"
    )
    parser.add_argument(
        "--max_upload", type=int, default=200, metavar="MB", help="largest picture or clip (default %(default)s MB)"
    )


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    for name in ("starlette", "uvicorn", "python_multipart"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise ConfigError(f"{name} is not installed: pip install 'harvest_jax[serve]'") from None
    for name in ("workers", "max_upload"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: at least 1")
    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}: must be from 0 to 65535")
    from data_pipeline.decode.window_rule import WindowRule

    rule = WindowRule(args.window, args.window / 2 if args.stride is None else args.stride)
    token = _token(args.host)
    listening = _listen(args.host, args.port)  # before the model is loaded: a port that is taken is known at once

    import harvest_jax
    from harvest_jax.serve.app import App
    from harvest_jax.serve.library import Library
    from harvest_jax.serve.model_worker import ModelWorker
    from harvest_jax.serve.server import serve

    with listening:
        model = harvest_jax.load(args.model)
        library = Library(model, args.videos, args.index, rule, args.workers or available_cores())
        worker = ModelWorker(model)
        worker.texts(["a"])  # compiles the program for short texts, before somebody waits for it
        title = printable(os.path.basename(library.root) or library.root)
        app = App(library, worker, token, title)
        names = {"localhost", args.host, *args.name} | (set() if _is_loopback(args.host) else _own_names())
        guarded = app.guarded(names, _is_loopback(args.host), args.max_upload * 1_000_000)
        library.start()
        try:
            serve(guarded, listening, lambda: _say_address(args.host, listening, token))
        finally:
            library.close()
    return 0


def _token(host: str) -> str:
    given = os.environ.get(TOKEN, "")
    if given and len(given) < SHORTEST_TOKEN:
        raise ConfigError(f"{TOKEN} has {len(given)} letters: at least {SHORTEST_TOKEN}, or unset it")
    if given and not (given.isascii() and given.isprintable() and " " not in given):
        raise ConfigError(f"{TOKEN} may have letters, digits and signs of ASCII alone, and no space")
    return given or ("" if _is_loopback(host) else secrets.token_urlsafe(32))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
      ConfigError: the address or the port cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}; see --host and --port") from None


def _own_names() -> set[str]:
    return {socket.gethostname(), socket.getfqdn()}


def _say_address(host: str, listening: socket.socket, token: str) -> None:
    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    if _is_any(host):  # all addresses of this machine
        shown = socket.gethostname()
    made = f"login?token={token}" if token and TOKEN not in os.environ else ""
    print(f"harvest serve: http://{shown}:{port}/{made}  (Ctrl-C ends it)", file=sys.stderr, flush=True)


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
