"""Trains the worksheet model on lessons that are made as it goes: no lesson comes twice, so what it gets right it has not
learnt by heart.

One process a core, each with its own lessons; gradients are averaged. Everything follows from the seed: a run that
was interrupted goes on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import os
import random
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional

from .batches import NO_TARGET, Batch, make_batch
from .collaboration import Collaboration, Lesson, Visibility
from .items import MAX_ITEMS, MAX_WORKERS, random_worksheet
from .network import Network, Places, Size


@dataclass(frozen=True)
class Plan:
    """steps: of the optimizer. tokens: of one step, of all processes together. freedom: see Collaboration."""

    steps: int = 7000
    tokens: int = 8192
    learning_rate: float = 3e-3
    warm_up: int = 100
    grown_up: float = 0.3  # the part of the steps in which worksheets grow to their full length
    freedom: float = 0.04
    seed: int = 1
    processes: int = 2
    checkpoint_every: int = 250


def lessons_of(plan: Plan, step: int, rank: int) -> list[Lesson]:
    """The lessons of one process in one step: about the same size, as many as fit."""
    rng = random.Random(f"{plan.seed}/{step}/{rank}")
    most = 3 + (MAX_ITEMS - 3) * min(1.0, step / (plan.grown_up * plan.steps))
    n_items = rng.randint(2, round(most))
    n_workers = rng.randint(1, MAX_WORKERS)
    visibility: Visibility = rng.choices(("combined", "interleaved", "contiguous"), (6, 2, 2))[0]  # type: ignore[assignment]
    has_given = rng.random() < 1 / 3
    lessons: list[Lesson] = []
    longest_prompt = longest_stream = 0
    while True:
        sheet = random_worksheet(rng, n_items, has_given)
        lesson = Collaboration(sheet, n_workers, visibility, rng, plan.freedom).lesson()
        longest_prompt = max(longest_prompt, len(lesson.prompt) + 1)
        longest_stream = max(longest_stream, *(sum(len(fed.tokens) for fed in stream) for stream in lesson.streams))
        size = (longest_prompt + n_workers * longest_stream) * (len(lessons) + 1)
        if lessons and size > plan.tokens // plan.processes:
            return lessons
        lessons.append(lesson)


def loss_of(network: Network, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Cross entropy of all targets, and the part of them that was guessed right."""
    targets = torch.from_numpy(batch.targets)
    wanted = targets != NO_TARGET
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = network(torch.from_numpy(batch.tokens), Places.of(batch, network.size, dtype), wanted)
    right = (logits.argmax(-1) == targets[wanted]).float().mean()
    return functional.cross_entropy(logits.float(), targets[wanted]), float(right)


class Optimizer:
    """Muon for the matrices, AdamW for the rest; the rate warms up and falls along a cosine."""

    def __init__(self, network: Network, plan: Plan) -> None:
        self.plan = plan
        inner = [weight for name, weight in network.named_parameters() if name.startswith("layers") and weight.dim() == 2]
        ids = {id(weight) for weight in inner}
        rest = [weight for weight in network.parameters() if id(weight) not in ids]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(inner, lr=1.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def step(self, at: int) -> None:
        warm = min(1.0, (at + 1) / self.plan.warm_up)
        rate = self.plan.learning_rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * at / self.plan.steps)) / 2)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state(self) -> list[Any]:
        return [part.state_dict() for part in self.parts]

    def load(self, state: list[Any]) -> None:
        for part, saved in zip(self.parts, state, strict=True):
            part.load_state_dict(saved)


def train(directory: Path, plan: Plan, size: Size) -> None:
    """Writes DIRECTORY/checkpoint.pt now and then, and a line a hundred steps into DIRECTORY/log.jsonl."""
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_train, (directory, plan, size, port), nprocs=plan.processes)


def _train(rank: int, directory: Path, plan: Plan, size: Size, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=plan.processes)
    torch.manual_seed(plan.seed)
    network = Network(size)
    optimizer = Optimizer(network, plan)
    file = directory / "checkpoint.pt"
    start = 0
    if file.exists():
        saved = torch.load(file, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load(saved["optimizer"])
        start = saved["step"]
    seen = torch.zeros(3)
    import time
    t0=time.time()
    for step in range(start, plan.steps):
        loss, right = loss_of(network, make_batch(lessons_of(plan, step, rank)), torch.bfloat16)
        loss.backward()
        average_gradients(network, plan.processes)
        optimizer.step(step)
        network.zero_grad()
        seen += torch.tensor([float(loss.detach()), right, 1.0])
        if (step + 1) % 50 == 0:
            dist.all_reduce(seen)
            if rank == 0:
                line = {"step": step + 1, "loss": float(seen[0] / seen[2]), "accuracy": float(seen[1] / seen[2]), "s": time.time()-t0}
                with (directory / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
            seen.zero_()
        if rank == 0 and ((step + 1) % plan.checkpoint_every == 0 or step + 1 == plan.steps):
            part = file.with_suffix(".part")
            torch.save({"network": network.state_dict(), "optimizer": optimizer.state(), "step": step + 1,
                        "plan": asdict(plan), "size": asdict(size)}, part)  # fmt: skip
            part.replace(file)
    dist.destroy_process_group()


def average_gradients(network: Network, n: int) -> None:
    """One message for all of them, clipped to length 1."""
    weights = list(network.parameters())
    flat = torch.cat([weight.grad.flatten() for weight in weights])  # type: ignore[union-attr]
    if n > 1:
        dist.all_reduce(flat)
        flat /= n
    flat *= (1.0 / (flat.norm() + 1e-6)).clamp(max=1.0)
    for weight, grad in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.grad = grad.view_as(weight)


if __name__ == "__main__":
    import sys
    train(Path(sys.argv[1]), Plan(**json.loads(sys.argv[2])), Size(**json.loads(sys.argv[3])))
