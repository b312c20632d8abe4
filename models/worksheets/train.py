"""Trains the worksheet model on lessons that are made as it goes: no worksheet comes twice.

One process a core, each with lessons of its own. Everything follows from the seed, so a run that was interrupted goes
on from its last checkpoint as if nothing had happened (up to the order in which a sum is rounded).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from .batches import NO_TARGET, Batch, make_batch
from .course import Course, lessons_of
from .network import Network, Places, Size
from .optimizer import Optimizer

REPORT_EVERY = 50  # steps


@dataclass(frozen=True)
class Training:
    """All that a trained model follows from, and how often it is saved. device: "cpu" or "cuda"; on a GPU, one process
    does it all."""

    course: Course = field(default_factory=Course)
    size: Size = field(default_factory=Size)
    device: str = "cpu"
    save_every: int = 100


def train(directory: Path, training: Training) -> None:
    """Writes DIRECTORY/checkpoint.pt now and then and a line into DIRECTORY/log.jsonl every 50 steps; goes on from the
    checkpoint if there is one. Raises ValueError if that was made by another training."""
    directory.mkdir(parents=True, exist_ok=True)
    _load(directory, training)  # a wrong directory shows here, not in every process
    if training.course.processes == 1:
        _train(0, directory, training)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_train_with_others, (directory, training, port), nprocs=training.course.processes)


def loss_of(
    network: Network, batch: Batch, device: str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, Tensor]:
    """Cross entropy of all targets, and the part of them that was guessed right."""
    tokens, targets = (torch.from_numpy(ids).to(device) for ids in (batch.tokens, batch.targets))
    wanted = targets != NO_TARGET
    with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = network(tokens, Places.of(batch, network.size, dtype, device), wanted)
    right = (logits.argmax(-1) == targets[wanted]).float().mean()
    return functional.cross_entropy(logits.float(), targets[wanted]), right


def _train_with_others(rank: int, directory: Path, training: Training, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=training.course.processes)
    _train(rank, directory, training)
    dist.destroy_process_group()


def _train(rank: int, directory: Path, training: Training) -> None:
    """One of the processes. All hold the same network; the first one reports and saves."""
    course, device = training.course, training.device
    torch.manual_seed(course.seed)
    warnings.filterwarnings("ignore", "Mismatch dtype")  # the norms' weights are f32 on purpose
    network = Network(training.size).to(device)
    optimizer = Optimizer(network)
    start = 0
    if saved := _load(directory, training):
        network.load_state_dict(saved["network"])
        optimizer.load(saved["optimizer"])
        start = saved["step"]
    parent = multiprocessing.parent_process()
    seen = torch.zeros(3)
    with _progress(course.steps, start, rank == 0) as bar:
        for step in range(start, course.steps):
            loss, right = loss_of(network, make_batch(lessons_of(course, step, rank)), device)
            loss.backward()
            phase, at = course.phase_of(step)
            optimizer.step(phase.rate_at(at), course.processes)
            seen += torch.tensor([loss.item(), right.item(), 1.0])
            if (step + 1) % REPORT_EVERY == 0:
                if course.processes > 1:
                    dist.all_reduce(seen)
                if rank == 0:
                    bar(step + 1, _report(directory, step + 1, seen))
                seen.zero_()
            if rank == 0 and ((step + 1) % training.save_every == 0 or step + 1 == course.steps):
                _save(directory, training, network, optimizer, step + 1)
            if parent is not None and not parent.is_alive():
                return


def _report(directory: Path, step: int, seen: Tensor) -> str:
    loss, accuracy = (seen[:2] / seen[2]).tolist()
    with (directory / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"step": step, "loss": loss, "accuracy": accuracy}) + "\n")
    return f"loss {loss:.4f}, tokens right {accuracy:.2%}"


def _save(directory: Path, training: Training, network: Network, optimizer: Optimizer, step: int) -> None:
    """Whole or not at all."""
    part = directory / "checkpoint.part"
    state = {"network": network.state_dict(), "optimizer": optimizer.state(), "step": step, **_described(training)}
    torch.save(state, part)
    part.replace(directory / "checkpoint.pt")


def _load(directory: Path, training: Training) -> dict[str, Any] | None:
    file = directory / "checkpoint.pt"
    if not file.exists():
        return None
    saved: dict[str, Any] = torch.load(file, weights_only=True, map_location=training.device)
    differing = [key for key, value in _described(training).items() if saved[key] != value]
    if differing:
        raise ValueError(f"{file} is of another training: {', '.join(differing)} differ. Give another directory")
    return saved


def _described(training: Training) -> dict[str, Any]:
    return {"course": asdict(training.course), "size": asdict(training.size)}


@contextmanager
def _progress(steps: int, start: int, is_shown: bool) -> Iterator[Any]:
    columns = (
        BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, disable=not is_shown) as progress:
        task = progress.add_task("", total=steps, completed=start)
        yield lambda step, text: progress.update(task, completed=step, description=text)
