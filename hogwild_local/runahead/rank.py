"""What a rank does that mpiexec has started: the last one answers the Hogwild that wants them, the others help it."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from ..engine.child import answer
from ..errors import HogwildError
from .helper import serve
from .mpi import MpiTransport


def main(address: str, n_ranks: int) -> NoReturn:
    """address: where the Hogwild listens, on its own machine."""
    try:
        transport = MpiTransport(n_ranks, can_be_last=Path(address).exists())
        if transport.rank < transport.size - 1:
            help_last(transport)
        link = socket.socket(socket.AF_UNIX)
        link.connect(address)
        pipe, out = (cast(BinaryIO, link.makefile(mode, buffering=0)) for mode in ("rb", "wb"))
        leader = cache(lambda: _leader(transport))
        answer(pipe, out, leader, lambda: leader().end())
    except (HogwildError, OSError) as error:
        print(f"hogwild: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def help_last(transport: MpiTransport) -> NoReturn:
    """Helps the last rank until it needs no help, and ends this process. Nothing is waited for where a rank is lost:
    MPI's own end would be."""
    from ..engine import native

    try:
        serve(transport, native)
        transport.end()
        code = 0
    except Exception as error:
        print(f"hogwild: {transport.name(transport.rank)}: {error}", file=sys.stderr, flush=True)
        transport.fail(error)
        transport.outlast(transport.size - 1)
        code = 1
    sys.stdout.flush()
    os._exit(code)


def _leader(transport: MpiTransport) -> Any:
    from .leader import Group, Leader

    return Leader(Group(transport))
