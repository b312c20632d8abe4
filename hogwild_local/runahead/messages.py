"""What the last rank asks of the others, and what they answer: plain data, a length before it."""

from __future__ import annotations

import marshal
from typing import Any

import numpy as np

from .transport import Transport

TAG_LENGTH, TAG_BODY = 32003, 32004


def tell(transport: Transport, rank: int, message: Any) -> None:
    """Raises what the transport raises."""
    body = np.frombuffer(marshal.dumps(message), dtype=np.uint8)
    length = np.array([len(body)], dtype=np.int64).view(np.uint8)
    for pending in [transport.send(rank, TAG_LENGTH, length), transport.send(rank, TAG_BODY, body)]:
        pending.wait()


def hear(transport: Transport, rank: int) -> Any:
    """Waits for the next message of a rank. Raises what the transport raises."""
    length = np.zeros(8, dtype=np.uint8)
    transport.receive(rank, TAG_LENGTH, length).wait()
    body = np.empty(int(length.view(np.int64)[0]), dtype=np.uint8)
    transport.receive(rank, TAG_BODY, body).wait()
    return marshal.loads(body.tobytes())
