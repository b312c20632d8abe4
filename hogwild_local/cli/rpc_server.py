"""hogwild rpc-server: lends this machine's devices to a hogwild, or a llama.cpp, on another one."""

from __future__ import annotations

import ipaddress
import signal
import socket

import click

from ..errors import DeviceError, InvalidArgument
from ..options import MOST_THREADS
from .grouped import Command, option
from .terminal import note, say

WARNING = """
hogwild: WARNING: {host} is not a loopback address. ggml's RPC protocol has no authentication and no encryption, and is
hogwild: not hardened: whoever reaches this port may use this machine's memory, or crash it. Never expose it to an open
hogwild: network; use a private one, or a tunnel (ssh -L {port}:127.0.0.1:{port}).
"""


@click.command("rpc-server", cls=Command)
@option("Devices", "-H", "--host", default="127.0.0.1", help="IPv4 address to bind to.")
@option("Devices", "-p", "--port", type=click.IntRange(1, 65535), default=50052, help="Port to bind to.")
@option(
    "Devices", "-d", "--device", multiple=True, metavar="NAME",
    help="A device to lend, by ggml's name; may be repeated. Without it all GPUs, or the CPU.",
)  # fmt: skip
@option(
    "Devices", "-t", "--threads", type=click.IntRange(1, MOST_THREADS),
    help="Threads of the CPU. Without it one for each core.",
)  # fmt: skip
@option("Output", "--list-devices", is_flag=True, help="Show which devices there are, and end.")
def rpc_server(host: str, port: int, device: tuple[str, ...], threads: int | None, list_devices: bool) -> None:
    """Run ggml's RPC server: its devices (all GPUs, or the CPU) then hold layers of models that others run with --rpc.

    It serves one client at a time, and ends with Ctrl+C. The client needs the same version of llama.cpp.
    """
    from ..engine import native
    from ..engine.rpc import load_backend
    from ..engine.threads import n_cores

    if list_devices:
        for name, description in native.devices():
            say(f"{name}: {description}")
        return
    load_backend(native)
    _check_address(host, port)
    if not ipaddress.IPv4Address(host).is_loopback:
        note(WARNING.format(host=host, port=port))
    note(f"hogwild: RPC server on {host}:{port}")
    # Python's handlers would wait for the end of a call that has none.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        native.rpc_server(f"{host}:{port}".encode(), [name.encode() for name in device], threads or n_cores())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _check_address(host: str, port: int) -> None:
    """ggml only says on stderr that it cannot bind."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        raise InvalidArgument(
            f"--host {host!r} is not an IPv4 address, which is all that ggml's server knows"
        ) from None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DeviceError(f"the address {host}:{port} cannot be bound: {error}") from None
