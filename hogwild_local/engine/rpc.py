"""Other machines as devices: ggml's RPC backend, and whether a server is there before ggml is told to connect to it.

ggml ends the process where a server cannot be reached. So a server is greeted here first, as ggml's client does.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import DeviceError, InvalidArgument
from ..options import Servers

PROTOCOL = 7  # RPC_PROTO_MAJOR_VERSION in ggml-rpc.h of the llama.cpp that we are compiled against
HELLO, CAPS_SIZE = 14, 24
MOST_SERVERS = 15  # ggml computes on 16 devices, one of them the CPU
TIMEOUT_S = 10.0
LONGEST_ADDRESS = len("255.255.255.255:65535")
BACKEND_FILE = "libggml-rpc.so"
NO_BACKEND = (
    "this llama-cpp-python was built without ggml's RPC backend. Build the backend alone with scripts/rpc-backend of "
    "hogwild-local's sources (seconds), or all of it with: CMAKE_ARGS=-DGGML_RPC=ON python -m pip install "
    "--force-reinstall --no-cache-dir --no-deps --no-binary llama-cpp-python llama-cpp-python=={version}"
)


def parse_servers(given: Servers, name: str = "rpc") -> list[str]:
    """ "host:port,host:port" or a list of "host:port", as such a list. Raises InvalidArgument."""
    servers = [_checked(part, name) for part in listed(given, name, "host:port")]
    if len(servers) > MOST_SERVERS:
        raise InvalidArgument(f"{name} names {len(servers)} servers: at most {MOST_SERVERS}")
    for server in servers:
        if servers.count(server) > 1:
            raise InvalidArgument(f"{name} names {server} twice")
    return servers


def listed(given: Servers, name: str, what: str) -> list[str]:
    """Its parts; none if it is empty. what: one of them. Raises InvalidArgument."""
    if not isinstance(given, str) and (isinstance(given, bytes) or not isinstance(given, Sequence)):
        raise InvalidArgument(f"{name} must be {what},... or a list of such texts, not {given!r}")
    parts = given.split(",") if isinstance(given, str) else list(given)
    return parts if given else []


def load_backend(native: Any) -> None:
    """Sees to it that the ggml of the native module, here or in a process of its own, has its RPC backend: compiled in,
    in the file that HOGWILD_RPC_BACKEND names, or beside llama-cpp-python's libraries, where scripts/rpc-backend puts
    it. Raises DeviceError."""
    named = os.environ.get("HOGWILD_RPC_BACKEND")
    found = find_spec("llama_cpp")
    beside = Path(found.origin).parent / "lib" / BACKEND_FILE if found and found.origin else None
    path = Path(named) if named else beside if beside and beside.exists() else None
    try:
        native.rpc_load(None if path is None else os.fsencode(path))
    except DeviceError:
        if path is not None:
            raise
        raise DeviceError(NO_BACKEND.format(version=_version())) from None


def short_address(server: str) -> str:
    """The same server by a name as short as an IPv4 address. ggml puts it into names of tensors, of which 63 characters
    are kept, and we must find the tensor's own name in them. Raises DeviceError."""
    if len(server) <= LONGEST_ADDRESS:
        return server
    host, _, port = server.rpartition(":")
    try:
        return f"{socket.gethostbyname(host)}:{port}"
    except OSError as error:
        raise DeviceError(f"the RPC server {server} cannot be found: {error}") from None


def greet(server: str, timeout: float = TIMEOUT_S) -> None:
    """Returns if a server that speaks our protocol answers there now. Raises DeviceError."""
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout) as connection:
            connection.sendall(struct.pack("<BQ", HELLO, CAPS_SIZE) + bytes(CAPS_SIZE))
            answer = _receive(connection, 8 + 4 + CAPS_SIZE)
    except TimeoutError:
        raise DeviceError(
            f"the RPC server {server} does not answer within {timeout:g} s. It serves one client at a time: is it in "
            "use, or the address wrong?"
        ) from None
    except OSError as error:
        raise DeviceError(
            f"the RPC server {server} cannot be reached ({error}). Start it there with: "
            f"hogwild rpc-server --port {port}"
        ) from None
    if len(answer) < 11 or struct.unpack_from("<Q", answer)[0] != 4 + CAPS_SIZE or answer[8] != PROTOCOL:
        speaks = f"version {answer[8]}" if len(answer) == 8 + 4 + CAPS_SIZE else "something else"
        raise DeviceError(
            f"{server} is not an RPC server of our version: it speaks {speaks}, llama-cpp-python "
            f"{_version()} speaks {PROTOCOL}. Use the same llama.cpp on both machines"
        )


def _version() -> str:
    from importlib.metadata import version

    return version("llama-cpp-python")


def _receive(connection: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        piece = connection.recv(n - len(data))
        if not piece:
            break
        data += piece
    return data


def _checked(server: object, name: str) -> str:
    """As ggml reads it: the host is what stands before the first colon, so there are no IPv6 addresses."""
    if not isinstance(server, str):
        raise InvalidArgument(f"{name} must be host:port,... or a list of such texts, not {server!r}")
    host, colon, port = server.strip().partition(":")
    is_host = bool(host) and host.isascii() and host.isprintable() and not any(c.isspace() or c in "/@[]" for c in host)
    if not (colon and is_host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise InvalidArgument(f"{name}: {server!r} is not host:port with a port of 1 to 65535 (IPv6 is not supported)")
    return f"{host}:{int(port)}"
