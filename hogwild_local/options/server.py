"""What can be chosen of a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .option import Options, a_whole, any_other

MOST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class ServerOptions(Options):
    """Where a server listens, who may ask, and how much at once. Raises InvalidArgument, naming the option."""

    host: str = field(default="127.0.0.1", metadata=any_other("Address to listen on."))
    port: int = field(default=8080, metadata=a_whole(0, "Port to listen on; 0 takes a free one.", MOST_PORT))
    unix: str | None = field(default=None, metadata=any_other("A Unix socket to listen on instead."))
    api_keys: Sequence[str] = field(
        default=(),
        metadata=any_other("A key that clients must send (Authorization: Bearer KEY); may be repeated."),
    )
    cors_origins: Sequence[str] = field(
        default=(),
        metadata=any_other("A web page's origin (https://example.org) that may use this server from a browser."),
    )
    allowed_hosts: Sequence[str] = field(
        default=(),
        metadata=any_other("A name by which clients may call this server, beside loopback names and addresses."),
    )
    parallel: int = field(default=8, metadata=a_whole(1, "Requests that run at once, in merged passes."))
    queue: int = field(default=64, metadata=a_whole(0, "Requests that wait for that; more are told to come later."))
    body_mb: int = field(default=16, metadata=a_whole(1, "Largest request, in MB."))
    body_timeout: int = field(
        default=30, metadata=a_whole(1, "Seconds that a client has to send a request, or to take any of its answer.")
    )
    stream_mb: int = field(
        default=4,
        metadata=a_whole(
            1, "MB that are kept of a stream: who reads it later, or more slowly than it is written, finds no more."
        ),
    )
    data: str | None = field(
        default=None,
        metadata=any_other('Folder where conversations are kept: without it your data folder\'s, with "" none.'),
    )
    resume: int = field(
        default=300,
        metadata=a_whole(0, "Seconds that a stream with an X-Conversation-Id can be read again after its end."),
    )
