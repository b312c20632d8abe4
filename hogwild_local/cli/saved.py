"""Conversations with all that was thought, as files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..disk import write_whole
from ..errors import InvalidArgument
from ..prompts.messages import Message
from ..workers.transcript import Transcript
from .ending import last_lines
from .terminal import printable


def save(file: Path, messages: Sequence[Message], runs: Mapping[int, Transcript]) -> None:
    """Writes a file, whole or not at all: JSON if its name ends in .json, Markdown otherwise. runs: by how many of the
    messages came before. Raises InvalidArgument if it cannot be written."""
    text = _json(messages, runs) if file.suffix == ".json" else _markdown(messages, runs)
    try:
        write_whole(file, text)
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be written: {error}") from None


def check_can_be_saved(file: Path) -> None:
    """Raises InvalidArgument where it is plain at once that nothing can be written."""
    fault = "that is a folder" if file.is_dir() else f"there is no folder {file.parent}" * (not file.parent.is_dir())
    if fault or not os.access(file.parent, os.W_OK):
        raise InvalidArgument(f"{file} cannot be written: {fault or f'you may not write to {file.parent}'}")


def _json(messages: Sequence[Message], runs: Mapping[int, Transcript]) -> str:
    whole = {
        "messages": [dict(message) for message in messages],
        "runs": [{"after": after, **transcript.to_dict()} for after, transcript in sorted(runs.items())],
    }
    # Halves of surrogate pairs, of which UTF-8 has none, become what JSON calls them.
    return json.dumps(whole, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def _markdown(messages: Sequence[Message], runs: Mapping[int, Transcript]) -> str:
    parts = []
    for at in range(len(messages) + 1):
        if at in runs:
            parts += _thoughts(runs[at])
        if at < len(messages):
            parts += _said(messages[at])
    return printable("\n\n".join(parts)) + "\n"


def _said(message: Message) -> list[str]:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    parts = [message["content"], *(f"Calls {call['name']} with {call['arguments']}" for call in calls)]
    return [f"## {message['role'].capitalize()}", *filter(None, parts)]


def _thoughts(transcript: Transcript) -> list[str]:
    names = [*transcript.workers]
    who = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "nobody"
    parts = [f"## Thoughts of {who}"]
    for title, text in transcript.parts:
        parts += [f"### {title}", text]
    return [*parts, "### How it ended", "\n\n".join(last_lines(transcript, None))]
