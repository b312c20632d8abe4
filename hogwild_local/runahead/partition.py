"""How a prompt is cut into chunks: a partition is the tokens of each rank's chunk, in the order of the prompt."""

from __future__ import annotations

from ..errors import InvalidArgument

Partition = tuple[int, ...]


def even(n_tokens: int, n_ranks: int) -> Partition:
    """Chunks of one length; the first ones have what is left over. Raises InvalidArgument if there are fewer tokens
    than ranks."""
    if n_tokens < n_ranks:
        raise InvalidArgument(f"{n_tokens} tokens cannot be cut into {n_ranks} chunks")
    length, rest = divmod(n_tokens, n_ranks)
    return tuple(length + (rank < rest) for rank in range(n_ranks))


def checked(partition: Partition, n_tokens: int, n_ranks: int) -> Partition:
    """Raises InvalidArgument unless each rank has a token at least and all have all of them."""
    if len(partition) != n_ranks or min(partition, default=0) < 1 or sum(partition) != n_tokens:
        raise InvalidArgument(f"{partition} is no partition of {n_tokens} tokens over {n_ranks} ranks")
    return partition
