"""Lessons as arrays: tokens, where each key lies, and what each query sees
(hogwild_local/workers/layouts.py says the same of the engine's blocks).

A batch of B lessons with W workers is laid out as [prompt | worker A | worker B | ... | reply]: P + W * M + R = T
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .alphabet import ABSENT, BOS, FIX, IDS, encode
from .collaboration import NEVER, Lesson
from .reply import OPENING, reply_length

Ints = NDArray[np.int64]
NO_TARGET = -1


@dataclass(frozen=True)
class Batch:
    """history_at: positions of keys once they are in the shared block, or as the reply sees them; current_at: positions
    of keys in their writer's block; begins: where each worker's block begins in the query's view."""

    tokens: Ints  # [B, T]
    targets: Ints  # [B, T], NO_TARGET where nothing is sampled, or freely
    query_at: Ints  # [B, T] in its view
    history_at: Ints  # [B, T]
    current_at: Ints  # [B, W, M]
    begins: Ints  # [B, W, W * M]: for the block of worker [1], the query [2]
    in_history: NDArray[np.bool_]  # [B, T, T]: query [1] sees key [2] in the shared block, or is of the reply
    current: NDArray[np.bool_]  # [B, W * M, W * M]: it sees it in its writer's block
    prompt_length: int  # P


@dataclass
class _Stream:
    """One worker's tokens, n of them."""

    tokens: list[int]
    targets: list[int]
    fed_in: Ints
    current_at: Ints
    in_history_from: Ints
    history_at: Ints
    length_in: Ints  # [n_passes]: of its block, what is fed in that pass included


def make_batch(lessons: list[Lesson]) -> Batch:
    """All lessons have the same number of workers."""
    prompts = [[IDS[BOS], *encode(lesson.prompt)] for lesson in lessons]
    streams = [list(_streams(lesson, len(prompt))) for lesson, prompt in zip(lessons, prompts, strict=True)]
    n, n_workers = len(lessons), len(streams[0])
    p = max(map(len, prompts))
    m = max(len(stream.tokens) for group in streams for stream in group)
    t = p + n_workers * m + max(map(reply_length, lessons))
    batch = Batch(
        tokens=np.zeros((n, t), np.int64),
        targets=np.full((n, t), NO_TARGET),
        query_at=np.zeros((n, t), np.int64),
        history_at=np.zeros((n, t), np.int64),
        current_at=np.zeros((n, n_workers, m), np.int64),
        begins=np.zeros((n, n_workers, n_workers * m), np.int64),
        in_history=np.zeros((n, t, t), np.bool_),
        current=np.zeros((n, n_workers * m, n_workers * m), np.bool_),
        prompt_length=p,
    )
    for row, (lesson, prompt, group) in enumerate(zip(lessons, prompts, streams, strict=True)):
        _fill_prompt(batch, row, lesson, prompt)
        _fill_workers(batch, row, lesson, len(prompt), group)
        _fill_reply(batch, row, lesson, len(prompt), group)
    return batch


def _fill_prompt(batch: Batch, row: int, lesson: Lesson, prompt: list[int]) -> None:
    """The end of each given step is a lesson too: its right result, and a mark if another one is written there. That
    is how the model learns to see a wrong one; from fixes alone, which are rare, it had not after 2,000 steps."""
    n = len(prompt)
    for end, label in _ends_of_given_steps(lesson):
        mark = FIX if label == lesson.sheet.wrong else "\n"
        batch.targets[row, end - 2 : end + 1] = encode(f"{lesson.sheet.result(label):02}{mark}")
    batch.tokens[row, :n] = prompt
    batch.query_at[row, :n] = batch.history_at[row, :n] = np.arange(n)
    batch.in_history[row, :n, :n] = np.tri(n, dtype=np.bool_)
    # Padding sees itself: a softmax over nothing is no number.
    padding = np.arange(n, batch.prompt_length)
    batch.in_history[row, padding, padding] = True


def _ends_of_given_steps(lesson: Lesson) -> Iterator[tuple[int, str]]:
    """Where the last digit of each stands in the prompt, and the label."""
    end = 0  # of a line: BOS stands in front of the first one, as a line end does in front of the others
    for line in lesson.prompt.split("\n"):
        end += len(line) + (end > 0)
        if line.startswith(ABSENT):
            yield end, line[len(ABSENT) + 1]


def _fill_workers(batch: Batch, row: int, lesson: Lesson, n_prompt: int, streams: list[_Stream]) -> None:
    p, m = batch.prompt_length, batch.current_at.shape[2]
    shared = _shared_length(lesson, n_prompt)  # [n_passes]
    apart = lesson.visibility == "interleaved"
    for w, mine in enumerate(streams):
        n = len(mine.tokens)
        rows, q = slice(p + w * m, p + w * m + n), slice(w * m, w * m + n)
        padding = np.arange(w * m + n, (w + 1) * m)
        batch.current[row, padding, padding] = True
        batch.tokens[row, rows], batch.targets[row, rows] = mine.tokens, mine.targets
        batch.history_at[row, rows] = mine.history_at
        batch.current_at[row, w, :n] = mine.current_at
        batch.in_history[row, rows, :n_prompt] = True
        begin = shared[mine.fed_in]
        for v, other in enumerate(streams):
            if v == w or apart:
                continue
            batch.begins[row, v, q] = begin
            begin = begin + other.length_in[mine.fed_in]
        batch.begins[row, w, q] = begin
        batch.query_at[row, rows] = begin + mine.current_at
        for v, other in enumerate(streams):
            keys = slice(v * m, v * m + len(other.tokens))
            moved = other.in_history_from[None, :] <= mine.fed_in[:, None]
            batch.in_history[row, rows, p + keys.start : p + keys.stop] = moved
            if v == w:
                batch.current[row, q, keys] = ~moved & np.tri(n, dtype=np.bool_)
            elif not apart:
                batch.current[row, q, keys] = ~moved & (other.fed_in[None, :] <= mine.fed_in[:, None])


def _fill_reply(batch: Batch, row: int, lesson: Lesson, n_prompt: int, streams: list[_Stream]) -> None:
    """It sees all that was written, in one line, and what itself has said."""
    n_workers, m = batch.current_at.shape[1:]
    at, n = batch.prompt_length + n_workers * m, reply_length(lesson)
    batch.in_history[row, at:, at:] = np.tri(batch.tokens.shape[1] - at, dtype=np.bool_)  # padding too
    rows = slice(at, at + n)
    words = [IDS[word] for word in lesson.reply]
    batch.tokens[row, rows] = [*encode(OPENING), *words[:-1]][:n]
    batch.targets[row, at + n - len(words) : at + n] = words
    batch.query_at[row, rows] = batch.history_at[row, rows] = np.arange(n) + _n_written(streams, n_prompt)
    batch.in_history[row, rows, :n_prompt] = True
    for w, stream in enumerate(streams):
        begin = batch.prompt_length + w * m
        batch.in_history[row, rows, begin : begin + len(stream.tokens)] = True


def _n_written(streams: list[_Stream], n_prompt: int) -> int:
    return n_prompt + sum(len(stream.tokens) for stream in streams)


def _shared_length(lesson: Lesson, n_prompt: int) -> Ints:
    """Tokens of the shared block in each pass."""
    lengths = np.full(lesson.n_passes, n_prompt)
    if lesson.visibility != "contiguous":
        for stream in lesson.streams:
            for fed in stream:
                lengths[lesson.steps[fed.step].in_history_from :] += len(fed.tokens)
    return lengths


def _streams(lesson: Lesson, n_prompt: int) -> Iterator[_Stream]:
    stays = lesson.visibility == "contiguous"
    offsets = {} if stays else _history_offsets(lesson, n_prompt)
    begin = n_prompt
    for stream in lesson.streams:
        made = _Stream([], [], *(np.zeros(0, np.int64),) * 4, np.zeros(lesson.n_passes, np.int64))
        columns: list[tuple[int, int, int, int]] = []
        step, length = -1, 0
        for fed in stream:
            if fed.step != step and not stays:
                length = 0
            step = fed.step
            joins = NEVER if stays else lesson.steps[step].in_history_from
            for token in encode(fed.tokens):
                made.tokens.append(token)
                made.targets.append(NO_TARGET)
                columns.append((fed.n_pass, length, joins, offsets.get(step, begin) + length))
                length += 1
            made.length_in[fed.n_pass] = length
            if not fed.is_free:
                made.targets[-1] = IDS[fed.target]
        if stays:
            made.length_in[len(stream) :] = length  # who feeds nothing in the last pass is seen all the same
            begin += length
        made.fed_in, made.current_at, made.in_history_from, made.history_at = np.array(columns, np.int64).T
        yield made


def _history_offsets(lesson: Lesson, n_prompt: int) -> dict[int, int]:
    """Where each step begins in the shared block: they join it in the order of passes, then of workers."""
    lengths: dict[int, int] = {}
    for stream in lesson.streams:
        for fed in stream:
            lengths[fed.step] = lengths.get(fed.step, 0) + len(fed.tokens)
    # Steps that never join stand last: with a single worker, that is where its view has them.
    order = sorted(lengths, key=lambda step: (lesson.steps[step].in_history_from, lesson.steps[step].worker))
    offsets, at = {}, n_prompt
    for step in order:
        offsets[step] = at
        at += lengths[step]
    return offsets
