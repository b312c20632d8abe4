"""What a line does that was typed while a run goes on."""

from __future__ import annotations

from ..errors import InvalidArgument
from ..workers.run import Run
from .workers import parse_worker


def heard(run: Run, line: str) -> str:
    """Does it, and returns what to tell about it. Raises InvalidArgument for what means nothing, and what run.say(),
    add() and stop() raise."""
    command, _, rest = line.strip().partition(" ")
    name = rest.strip()
    if command == "/stop":
        run.stop(name)
        return f"{name} writes no more"
    if command == "/add":
        return f"{run.add(parse_worker(name) if name else None)} joins them"
    if command.startswith("/"):
        raise InvalidArgument(
            "while they work: a line is said to all, @NAME to one; /add NAME[: ROLE], /stop NAME; Ctrl+C"
        )
    text, to = _addressed(run, line.strip())
    run.say(text, to)
    return f"said to {to or 'all'}: read from the next pass on"


def _addressed(run: Run, line: str) -> tuple[str, str | None]:
    """What is said, and to whom: @NAME, where a name may have spaces in it. Raises InvalidArgument."""
    if not line.startswith("@"):
        return line, None
    for name in sorted(run.workers, key=len, reverse=True):
        rest = line[1:].removeprefix(name)
        if rest != line[1:] and not rest[:1].isalnum():
            return rest.lstrip(" ,:"), name
    raise InvalidArgument(f"there is none of that name: they are {', '.join(run.workers)}")
