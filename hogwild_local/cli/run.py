"""hogwild run: the main job, on the terminal, as plain lines, or as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import random
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from ..errors import InvalidArgument
from ..hogwild import Hogwild
from ..options import RunOptions
from ..prompts.readable import check_readable
from ..runahead.launched import of_launcher
from ..workers.transcript import Transcript
from .display import JsonOutput
from .grouped import Command, option
from .live import LiveOutput
from .loaded import say_loaded
from .options import engine_of, given, load, model_path, sampling, worker_options
from .ranks import RanksProgress
from .saved import check_can_be_saved, save
from .session import shown, watch
from .terminal import note
from .workers import who_options, workers

WAIT_S = 1.0  # for a prompt from elsewhere, before it is said that it is waited for
EXAMPLE_PACE = 40.0  # the embedded model is too fast to watch
EPILOG = "Each option can be given as an environment variable: HOGWILD_RUN_MAX_PASSES is --max-passes."


@click.command(cls=Command, epilog=EPILOG)
@click.argument("prompt", required=False)
@option(
    "Workers", "-f", "--file", type=click.File(encoding="utf-8"),
    help="Read the prompt from a file; - is standard input, which is read anyway if it is a pipe or a file.",
)  # fmt: skip
@option(
    "Workers", "--tools", "tools_file", type=click.File(encoding="utf-8"), metavar="FILE",
    help="JSON file of tools that the reply may call, a list as OpenAI's tools. Calls are shown; nothing is called.",
)  # fmt: skip
@who_options
@worker_options
@option("Output", "--json", "as_json", is_flag=True, help="Write one JSON event a line (see hogwild_local.events).")
@option("Output", "--plain", is_flag=True, help="Write plain lines also on a terminal.")
@option(
    "Output", "--save", "save_to", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the transcript to a file, however the run ends: JSON if its name ends in .json, Markdown otherwise.",
)  # fmt: skip
@option(
    "Output", "--pace", type=click.FloatRange(min=0),
    show_default=f"0, as fast as it goes; an example on a terminal: {EXAMPLE_PACE:g}",
    help="Show at most so many passes a second.",
)  # fmt: skip
@option("Output", "-v", "--verbose", is_flag=True, help="Show llama.cpp's log, and what lies on which device.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    prompt: str | None,
    file: Any,
    tools_file: TextIO | None,
    as_json: bool,
    plain: bool,
    save_to: Path | None,
    **options: Any,
) -> None:
    """Let several workers think about PROMPT together. Without one, about an example that comes with the model.

    On a terminal the workers are shown side by side, and when they have ended, all that they wrote; elsewhere as plain
    lines that begin with the worker's name. On a terminal a line that is typed while they work is said to all of them,
    "@Bob ..." to one; /add NAME and /stop NAME change who works.
    """
    if save_to is not None:
        check_can_be_saved(save_to)
    engine = of_launcher() or engine_of(ctx, options)  # first: other ranks than the last one do nothing else
    text = _read_prompt(prompt, file)
    if options["verbose"]:
        _show_log()
    with load(engine, model_path(engine, options), options, quiet=as_json) as hogwild:
        if not as_json:
            say_loaded(hogwild, options)
        if text is not None and options["model"] is None and options["hf_repo"] is None:
            _check_embedded(hogwild, text)
        chosen = given(RunOptions, options)
        chosen |= {"workers": workers(ctx, options), "sampling": sampling(options, hogwild.sampling)}
        chosen |= {"tools": _tools(tools_file)}
        asked = text if text is not None else _example(hogwild, options["seed"])
        stream = hogwild.stream(asked, **chosen)
        if text is None:
            note(f"{asked}\n")
        output = JsonOutput() if as_json else shown(stream, plain)
        if not as_json:
            hogwild.watch_ranks(output.ranks if isinstance(output, LiveOutput) else RanksProgress())
        pace = options["pace"]
        if pace is None:
            pace = EXAMPLE_PACE if text is None and isinstance(output, LiveOutput) else 0.0
        try:
            watch(stream, output, pace)
        finally:
            if save_to is not None and output.transcript.seed is not None:  # it has begun
                _save(save_to, asked, output.transcript)
        for trace in [] if as_json else hogwild.ranks:
            note(f"hogwild: {trace}")


def _save(file: Path, asked: str, transcript: Transcript) -> None:
    said = [transcript.message] if transcript.message else []
    save(file, [{"role": "user", "content": asked}, *said], {1: transcript})
    note(f"hogwild: the transcript is in {file}")


def _show_log() -> None:
    from .. import set_log_hook

    set_log_hook(lambda level, text: note(text, end=""))


def _check_embedded(hogwild: Hogwild, text: str) -> None:
    """A question in words is the first thing that one tries."""
    try:
        check_readable(hogwild.model, [text])
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{error}. This is the embedded model, which knows worksheets only: name a model of yours with --model, or "
            "give no prompt to see an example"
        ) from None


def _example(hogwild: Hogwild, seed: int | None) -> str:
    """One of the prompts that the model brings."""
    if not hogwild.examples:
        raise click.UsageError("give PROMPT or --file: this model brings no example")
    return random.Random(seed).choice(hogwild.examples)


def _tools(file: TextIO | None) -> Any:
    """Raises InvalidArgument for what is no JSON; what is no tool is the run's to say."""
    if file is None:
        return None
    try:
        return json.load(file)
    except ValueError as error:
        raise InvalidArgument(f"--tools: {file.name} is no JSON: {error}") from None


def _read_prompt(prompt: str | None, file: Any) -> str | None:
    """None: there is no prompt."""
    if prompt is not None and file is not None:
        raise click.UsageError("give either PROMPT or --file, not both")
    if prompt is not None:
        return prompt
    name = "standard input" if file is None else f"--file: {file.name}"
    if file is None and _stdin_has_text():
        file = click.File(encoding="utf-8")("-")
    if file is None:
        return None
    try:
        with _said_if_slow(f"waiting for the prompt on {name}"):
            text = str(file.read())
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{name} is not UTF-8 text: {error}") from error
    return text if text or name != "standard input" else None


def _stdin_has_text() -> bool:
    """Is standard input a pipe or a file? A terminal waits for somebody, and /dev/null says nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed, or no real file
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


@contextlib.contextmanager
def _said_if_slow(what: str) -> Iterator[None]:
    """A pipe may have nobody at its other end."""
    timer = threading.Timer(WAIT_S, note, (f"hogwild: {what}",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
