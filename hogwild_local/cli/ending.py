"""How a run went, said when it has ended, however it did."""

from __future__ import annotations

from ..workers.transcript import Transcript
from .terminal import Terminated


def last_lines(transcript: Transcript, error: BaseException | None, of_turn: bool = False) -> list[str]:
    """The answer, or that there is none; why the run ended, and its seed; what it took. Nothing of a run that did not
    begin. error: what ended it; of_turn: it is one of several, which says less."""
    if transcript.seed is None and transcript.reason is None:
        return []
    lines = [] if transcript.answer is None else [f"Answer: {transcript.answer}"]
    if not of_turn:
        lines += [] if lines else ["No answer was found" + (": the reply is all there is" if transcript.reply else "")]
        lines.append(f"Ended: {_why(transcript, error)}. Seed: {transcript.seed}")
    return [*lines, figures(transcript, of_turn)] if transcript.usage.completion_tokens else lines


def figures(transcript: Transcript, of_turn: bool = False) -> str:
    """What it took; of_turn: the least of it."""
    timings, usage = transcript.timings, transcript.usage
    if of_turn:
        return (
            f"{timings.passes + timings.closing_passes} passes, {timings.tokens_per_second:.1f} tokens/s; "
            f"context left: {usage.context_left} tokens"
        )
    return (
        f"{timings.passes + timings.closing_passes} passes, {usage.completion_tokens} tokens "
        f"in {timings.generate_ms / 1e3:.2f} s: {timings.tokens_per_second:.1f} tokens/s, "
        f"{timings.ms_per_pass:.1f} ms a pass; "
        f"prompt: {usage.prompt_tokens} tokens in {timings.prompt_ms / 1e3:.2f} s; "
        f"context left: {usage.context_left} tokens"
    )


def _why(transcript: Transcript, error: BaseException | None) -> str:
    match error:
        case None:
            return transcript.why
        case Terminated():
            return f"{error} came"
        case KeyboardInterrupt():
            return "Ctrl+C was pressed"
        case _:
            return "there was an error"
