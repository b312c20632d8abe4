"""The figures as Markdown, for docs/performance.md: every row says which step it is from, and every step's command
stands below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .record import Record, Result

FROM = "from"  # the column of each row's origin
KERNEL_CHARS = 120  # of a name: those of templates are longer
Cell = str | float | int | None


def markdown(record: Record) -> str:
    about, dry = record.about, record.key["dry run"]
    title = about.get("card") or f"{about['backend']} on {about['cpu']}"
    numbers = {name: number for number, name in enumerate(record.steps, 1)}
    rows = {name: (numbers[name], result) for name, result in record.steps.items() if result.figures}
    machines = [result.figures["machine"] for name, (_, result) in rows.items() if name.startswith("bench-")]
    devices = "; ".join(machines[0]["devices"]) if machines else ""
    parts = [
        f"## Measured: {title}{' (a dry run: tiny models, whose times say nothing)' if dry else ''}",
        f"Backend {about['backend']}, {about['cores']} cores of {about['cpu']}; hogwild-local of commit "
        f"{about['commit']}; {about['written']}. "
        f"The numbers in the column *{FROM}* are those of the commands below.",
        *([f"Of the first model: {devices}."] if devices else []),
        *_bench(rows), *_memory(rows), *_counts(rows), *_kernels(rows), *_ranks(rows), *_tests(rows),
        *_commands(record, numbers),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """Nothing, if there are no rows."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if lines:
        yield "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines])


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value).replace("|", "\\|")


Rows = dict[str, tuple[int, Result]]


def _of(rows: Rows, kind: str) -> Iterator[tuple[int, str, list[str], dict[str, Any]]]:
    """Of the steps of a kind: the number, the model, the further parts of the name, the figures."""
    for name, (number, result) in rows.items():
        first, *parts = name.split("-")
        if first == kind:
            yield number, parts[0] if parts else "", parts[1:], result.figures


def _bench(rows: Rows) -> Iterator[str]:
    decode: list[list[Cell]] = []
    prefill: list[list[Cell]] = []
    for number, model, (_, form), figures in _of(rows, "bench"):
        one: float | None = None
        for row in figures["rows"]:
            ours, theirs = row["ms"]["ours"], row["ms"]["llama.cpp"]
            at: list[Cell] = [model, form, row["context"]]
            if row["kind"] == "prefill":
                prefill.append([*at, ours, theirs, row["ratio"], number])
                continue
            one = ours if row["workers"] == 1 else one
            decode.append([
                *at, row["workers"], ours, ours / one if one else None, theirs, row["flash_attention"], row["ratio"],
                max(row["spread"].values()), row["tokens_per_second"]["ours"], number,
            ])  # fmt: skip
    text = (
        "Milliseconds, medians. llama.cpp: `llama_decode`, as many sequences, its better setting of flash attention. "
        "*of one*: our pass as a multiple of that of one worker. *spread*: the distance of the quartiles as a part of "
        "the median, the larger of both."
    )
    head = ["model", "attention", "prompt", "workers", "ours", "of one", "llama.cpp", "flash", "speed-up", "spread",
            "tokens/s"]  # fmt: skip
    yield from _titled("### Passes of one token a worker", text, table([*head, FROM], _grouped(decode)))
    head = ["model", "attention", "prompt", "ours", "llama.cpp", "speed-up"]
    yield from _titled("### Prefill", "Milliseconds of the whole prompt.", table([*head, FROM], _grouped(prefill)))


def _grouped(cells: Sequence[Sequence[Cell]]) -> list[Sequence[Cell]]:
    """By model and form, as they came; then by size."""
    models, forms = ([row[i] for row in cells] for i in (0, 1))
    return sorted(cells, key=lambda row: (models.index(row[0]), forms.index(row[1]), row[2:4]))


def _memory(rows: Rows) -> Iterator[str]:
    cells: list[Sequence[Cell]] = []
    speeds = []
    for number, model, _, figures in _of(rows, "memory"):
        speeds.append(f"{figures['copy_bytes_per_second'] / 1e9:.0f} GB/s ({figures['device']}, [{number}])")
        for row in figures["rows"]:
            cells.append([model, row["context"], row["workers"], row["ms"], row["bytes"] / 1e9,
                          row["bytes"] / row["ms"] / 1e6, row["reached"], number])  # fmt: skip
    text = (
        f"A copy on the device, bytes read and written: {', '.join(speeds)}. A pass reads all weights, and the cells "
        "that some worker sees, once; *reached*: its bytes a second as a part of the copy's."
    )
    head = ["model", "prompt", "workers", "ms", "GB read", "GB/s", "reached", FROM]
    yield from _titled("### Memory", text, table(head, cells), always=bool(speeds))


def _counts(rows: Rows) -> Iterator[str]:
    found = [(number, model, row) for number, model, _, figures in _of(rows, "counts") for row in figures["rows"]]
    names = list(dict.fromkeys(name for *_, row in found for name in row["counts"]))
    cells = [
        [model, *(row[key] for key in ("context", "workers", "step", "passes", "ms")),
         *(row["counts"].get(name) for name in names), number]
        for number, model, row in found
    ]  # fmt: skip
    text = "Of `SharedCache`, over all passes of the row."
    head = ["model", "prompt", "workers", "step", "passes", "ms a pass", *(f"`{name}`" for name in names), FROM]
    yield from _titled("### What passes count", text, table(head, cells))


def _kernels(rows: Rows) -> Iterator[str]:
    for number, model, _, figures in _of(rows, "kernels"):
        kinds = f"{figures['kernels']} kinds of kernels or operations"
        text = f"By {figures['tool']}: {figures['us']:.0f} us in {kinds} [{number}]."
        cells = [
            [row["kernel"][:KERNEL_CHARS], row["calls"], row["us"], row["share"], number] for row in figures["rows"]
        ]
        yield from _titled(f"### One pass of four workers, {model}", text,
                           table(["what", "calls a pass", "us a pass", "share", FROM], cells))  # fmt: skip


def _ranks(rows: Rows) -> Iterator[str]:
    cells = [
        [prompt, row["way"], 1e3 * row["ttft"]["median"], row["ttft"]["spread"], sum(row["sent_bytes"]) / 1e6, number]
        for number, _, (prompt,), figures in _of(rows, "runahead")
        for row in figures["rows"]
    ]
    text = "Milliseconds to the first token; *spread* as above."
    head = ["prompt", "way", "ms", "spread", "MB sent", FROM]
    yield from _titled("### Two ranks that share the device", text, table(head, cells))


def _tests(rows: Rows) -> Iterator[str]:
    cells: list[Sequence[Cell]] = []
    for name in ("tests", "traces", "architectures"):
        if name in rows:
            number, result = rows[name]
            counts = ", ".join(f"{n} {what}" for what, n in result.figures.items() if what != "names")
            cells.append([name, counts, "; ".join(result.figures["names"]), number])
    yield from _titled("### Correctness", "", table(["what", "how many", "which failed", FROM], cells))


def _commands(record: Record, numbers: dict[str, int]) -> Iterator[str]:
    cells: list[Sequence[Cell]] = [
        [
            numbers[name],
            f"`{result.command}`",
            result.status + (f": {result.why}" if result.why else ""),
            result.seconds,
        ]
        for name, result in record.steps.items()
    ]
    text = "Models are those of `python -m models large`; `HOGWILD_TRUST=1` for all."
    yield from _titled("### The commands", text, table(["", "command", "result", "s"], cells))


def _titled(title: str, text: str, rows: Iterable[str], always: bool = False) -> Iterator[str]:
    found = list(rows)
    if found or always:
        yield from filter(None, [title, text, *found])
