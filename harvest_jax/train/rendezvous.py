"""Before JAX connects the processes of a run: are all of them there?

JAX waits for missing processes too, but then ends in C++, with status 134 and a page of stack frames that do not say
which is missing; and while it waits it is deaf to Ctrl-C. So process 0 first listens itself on the coordinator's port;
JAX takes that over when all have come.
"""

import contextlib
import socket
import time

from harvest_jax.errors import ConfigError, HungError

_RETRY = 0.3  # seconds
_READ = 5.0  # seconds for a line from a process that has connected
_GO = "go"


def meet(host: str, port: int, rank: int, count: int, seconds: float, on_loopback: bool) -> None:
    """Wait until all processes have come to host:port.

    Args:
      host, port: of process 0.
      rank, count: the number of this process, and how many there are.
      seconds: how long to wait.
      on_loopback: whether process 0 listens on this host's name alone, and not on every interface.

    Raises:
      HungError: some did not come; on the processes that did, with the missing ones named.
      ConfigError: another program listens on the port, or a process was started with other numbers.
    """
    if rank:
        _come(host, port, rank, count, seconds)
        return
    try:
        listener = _listener(host, port, on_loopback)
    except OSError as error:
        raise ConfigError(
            f"process 0 cannot listen on {host}:{port} ({error.strerror}): choose another port for the coordinator"
        ) from error
    with listener, contextlib.ExitStack() as stack:
        _gather(listener, stack, f"{host}:{port}", count, seconds)


def _listener(host: str, port: int, on_loopback: bool) -> socket.socket:
    if on_loopback:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _gather(listener: socket.socket, stack: contextlib.ExitStack, where: str, count: int, seconds: float) -> None:
    """On process 0: take the others in, and answer all of them."""
    there: dict[int, socket.socket] = {}
    fault = ""
    deadline = time.monotonic() + seconds
    while len(there) < count - 1 and not fault:
        missing = ", ".join(str(rank) for rank in range(1, count) if rank not in there)
        listener.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            connection = stack.enter_context(listener.accept()[0])
        except TimeoutError:
            fault = f"missing process {missing} of {count} did not come to {where} within {seconds:.0f} s"
            continue
        words = _line(connection).split()
        if len(words) != 4 or words[0] != "harvest" or not words[1].isdecimal() or not words[3].isdecimal():
            continue  # something else, such as a port scanner
        rank, of = int(words[1]), int(words[3])
        if of != count or rank in there or not 0 < rank < count:
            fault = f"wrong process 0 is of {count}, and another came as process {rank} of {of}"
        there[rank] = connection
    for connection in there.values():
        with contextlib.suppress(OSError):
            connection.sendall(f"{fault or _GO}\n".encode())
    for connection in there.values():
        _line(connection)  # they close first: then the port is free at once
    _raise(fault)


def _come(host: str, port: int, rank: int, count: int, seconds: float) -> None:
    """On the other processes."""
    deadline = time.monotonic() + seconds
    reason: object = "no answer"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), port), timeout=_READ) as connection:
                connection.sendall(f"harvest {rank} of {count}\n".encode())
                connection.settimeout(deadline + _READ - time.monotonic())
                answer = _line(connection)
        except OSError as error:
            reason, answer = error.strerror or error, ""
        if answer == _GO:
            return
        _raise(answer)
        time.sleep(_RETRY)
    raise HungError(
        f"process 0 was not at {host}:{port} within {seconds:.0f} s ({reason}): did it start, and can this machine "
        "resolve and reach that name?"
    )


def _raise(fault: str) -> None:
    kind, _, text = fault.partition(" ")
    if kind == "missing":
        raise HungError(f"{text}: see its own log, and whether its machine can reach that address")
    if kind == "wrong":
        raise ConfigError(f"{text}: start all with the same number of processes, each with a number of its own")


def _line(connection: socket.socket) -> str:
    """One line from the other side; empty if none comes."""
    text = b""
    if connection.gettimeout() is None:
        connection.settimeout(_READ)
    with contextlib.suppress(OSError):
        while not text.endswith(b"\n") and len(text) < 1000:
            data = connection.recv(1000)
            if not data:
                break
            text += data
    return text.decode("ascii", "replace").strip()
