"""What a line does that was typed while a run goes on."""

from __future__ import annotations

from ..errors import InvalidArgument
from ..workers.run import Run


def heard(run: Run, line: str) -> str:
    """Does it, and returns what to tell about it. Raises InvalidArgument for what means nothing."""
    command, _, rest = line.strip().partition(" ")
    if command == "/stop":
        run.stop(rest.strip())
        return f"{rest.strip()} writes no more"
    raise InvalidArgument("while they work: /stop NAME lets one of them end, Ctrl+C ends it all")
