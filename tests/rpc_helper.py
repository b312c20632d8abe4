"""RPC servers on this machine, for tests: a device that is not the CPU where there is no other."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hogwild_local import errors
from hogwild_local.engine import native
from hogwild_local.engine.rpc import greet, load_backend

ROOT = str(Path(__file__).parent.parent)


def _missing() -> str | None:
    try:
        load_backend(native)
    except errors.DeviceError as error:
        return str(error)
    return None


MISSING = _missing()
needs_rpc = pytest.mark.skipif(MISSING is not None, reason=f"no RPC backend (run scripts/rpc-backend): {MISSING}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """hogwild rpc-server, one thread, until stop() or kill()."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        command = ["rpc-server", "--port", str(self.port), "--threads", "1"]
        code = f"from hogwild_local.cli.main import cli; cli({command!r})"
        # Its output goes nowhere: a pipe would be held open beyond a test that fails.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with contextlib.suppress(errors.DeviceError):
                greet(self.address, 1)
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError("the RPC server did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def rpc_server(port: int | None = None) -> Iterator[Server]:
    server = Server(port)
    try:
        yield server
    finally:
        server.kill()
