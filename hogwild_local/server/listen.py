"""The socket, and uvicorn on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn

from ..errors import InvalidArgument
from ..options import ServerOptions
from .app import application
from .connection import Connection
from .service import Service

BACKLOG = 2048
GRACE_S = 10
"""For clients to read what is left, once all runs are told to end."""


class Listener:
    """Raises InvalidArgument where the address cannot be had. The socket listens from then on; serve() answers."""

    def __init__(self, service: Service, reasoning: str, tls_key: Path | None, tls_cert: Path | None) -> None:
        self._service = service
        self._socket = _listening(service.options)
        self.application = application(service, reasoning)
        service.when_failed(self.stop)
        config = uvicorn.Config(
            self.application,
            http=cast(Any, partial(Connection, service.options.body_timeout)),
            ws="none",
            lifespan="on",
            proxy_headers=False,  # a client could say that it is another one
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            ssl_keyfile=tls_key,
            ssl_certfile=tls_cert,
        )
        try:
            config.load()
        except (OSError, ValueError) as error:
            self._socket.close()
            raise InvalidArgument(f"the TLS key or certificate cannot be used: {error}") from error
        self._server = _Server(config, service)
        scheme = "https" if tls_key else "http"
        host, port = service.options.host, 0
        if self._socket.family != getattr(socket, "AF_UNIX", None):
            port = self._socket.getsockname()[1]
        host = f"[{host}]" if ":" in host else host
        self.address = f"unix:{service.options.unix}" if service.options.unix else f"{scheme}://{host}:{port}"

    def stop(self) -> None:
        """Lets serve() end in order. From any thread."""
        self._server.should_exit = True

    def serve(self) -> None:
        """Until a signal, or stop(), ends it. Raises what loading the model has raised."""
        try:
            self._server.run(sockets=[self._socket])
            if self._service.failure is not None:
                raise self._service.failure
        finally:
            self._socket.close()
            if self._service.options.unix:
                Path(self._service.options.unix).unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """Runs are told before connections are waited for: streams end when their runs do."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.cancel_all()
        await asyncio.sleep(0)
        await super().shutdown(sockets)


def _listening(options: ServerOptions) -> socket.socket:
    if options.unix is not None and not hasattr(socket, "AF_UNIX"):
        raise InvalidArgument("unix: this system has no Unix sockets")
    try:
        if options.unix is not None:
            return _listening_unix(Path(options.unix))
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        return socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except OSError as error:
        where = options.unix or f"{options.host}:{options.port}"
        raise InvalidArgument(f"cannot listen on {where}: {error.strerror or error}") from error


def _listening_unix(path: Path) -> socket.socket:
    """In the place of a socket file that a server left which was killed. Raises OSError."""
    with contextlib.ExitStack() as undo:
        made = undo.enter_context(socket.socket(socket.AF_UNIX))
        if path.is_socket() and not _answers(path):
            path.unlink()
        made.bind(str(path))
        made.listen(BACKLOG)
        undo.pop_all()
    return made


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
