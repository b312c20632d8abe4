"""hogwild serve: a local server, which OpenAI's clients understand."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Any, TextIO

import click

from ..errors import InvalidArgument
from ..options import RunOptions, ServerOptions, options_of
from .grouped import Command, option, together
from .loaded import say_loaded
from .options import engine_of, field_option, given, load, model_path, sampling, worker_options
from .terminal import note
from .workers import who_options, workers

MISSING = "hogwild serve needs more packages: python -m pip install 'hogwild-local[server]'"

server_options = together(
    *(field_option("Server", ServerOptions, name) for name in options_of(ServerOptions)),
    option(
        "Server", "--api-key-file", type=click.File(encoding="utf-8"),
        help="A file of API keys, one a line.",
    ),
    option("Server", "--tls-key", type=click.Path(exists=True, path_type=Path), help="The key's file, for https."),
    option("Server", "--tls-cert", type=click.Path(exists=True, path_type=Path), help="The certificate's file."),
    option(
        "Server", "--reasoning-format", type=click.Choice(("separate", "inline", "none")), default="separate",
        help="How the workers' steps are sent: as reasoning_content, in the content between <think> tags, not at all.",
    ),
)  # fmt: skip


@click.command(cls=Command)
@server_options
@who_options
@worker_options
@option("Server", "--open", "opens", is_flag=True, help="Open the server's address in a browser.")
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    api_key_file: TextIO | None,
    tls_key: Path | None,
    tls_cert: Path | None,
    reasoning_format: str,
    opens: bool,
    **options: Any,
) -> None:
    """Serve a model to clients of OpenAI's interface, and of llama-server's. What is said here of workers, and of
    sampling, holds where a request says nothing.

    Ctrl+C ends it in order: clients are told.
    """
    try:
        import uvicorn  # noqa: F401
    except ImportError:
        raise click.UsageError(MISSING) from None
    from ..server.listen import Listener
    from ..server.malloc import settle_malloc
    from ..server.service import Service

    keys = [*options["api_key"], *(line.strip() for line in (api_key_file or ()) if line.strip())]
    chosen = ServerOptions(**given(ServerOptions, options) | {"api_keys": keys})
    if (tls_key is None) != (tls_cert is None):
        raise InvalidArgument("--tls-key and --tls-cert belong together")
    if opens and chosen.unix is not None:
        raise InvalidArgument("--open: no browser reaches a Unix socket (--unix)")
    engine = engine_of(ctx, options)
    path = model_path(engine, options)
    defaults = given(RunOptions, options) | {"workers": workers(ctx, options)}

    def goes_on(part: float) -> bool:
        return not service.is_ending

    def loaded() -> Any:
        hogwild = load(engine, path, options, quiet=True, max_runs=chosen.parallel, progress=goes_on)
        say_loaded(hogwild, options)
        hogwild.sampling = sampling(options, hogwild.sampling)
        hogwild.chat(**defaults)  # which checks them
        return hogwild

    settle_malloc()
    service = Service(loaded, chosen, defaults, path.stem)
    listener = Listener(service, reasoning_format, tls_key, tls_cert)
    note(f"hogwild: listening on {listener.address}")
    if opens:
        # In a thread of its own: some browsers (BROWSER) are waited for until they are closed.
        threading.Thread(target=webbrowser.open, args=(_of_browser(listener.address),), daemon=True).start()
    listener.serve()


def _of_browser(address: str) -> str:
    """Where a server that listens everywhere is found from here."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
