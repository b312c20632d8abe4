"""How a prompt is cut into chunks: a partition is the tokens of each rank's chunk, in the order of the prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

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


def of_shares(shares: Sequence[float], n_tokens: int) -> Partition:
    """Chunks in these proportions, each of one token at least. Raises InvalidArgument if there are too few tokens."""
    n_free = n_tokens - len(shares)
    if n_free < 0:
        raise InvalidArgument(f"{n_tokens} tokens cannot be cut into {len(shares)} chunks")
    ends = list(accumulate(max(share, 0.0) for share in shares))
    return tuple(1 + b - a for a, b in pairwise(round(end / ends[-1] * n_free) for end in (0.0, *ends)))


def interpolated(best: Mapping[int, Partition], n_tokens: int) -> Partition:
    """From the best partitions of other lengths (KVR-P). Shares change by as much with each doubling of the length:
    attention and matrix work meet on the way, and beyond the ends of a table a straight line over tokens would leave
    that way at once. So it goes on for as far as the last two lengths are apart, and no further."""
    lengths = sorted(best)
    if n_tokens in best or len(lengths) == 1:
        return of_shares(best[lengths[0]], n_tokens) if n_tokens not in best else best[n_tokens]
    above = min(max(1, sum(length < n_tokens for length in lengths)), len(lengths) - 1)
    a, b = lengths[above - 1], lengths[above]
    part = min(max(math.log(n_tokens / a) / math.log(b / a), -1.0), 2.0)
    ends = zip(best[a], best[b], strict=True)
    return of_shares([of_a / a + part * (of_b / b - of_a / a) for of_a, of_b in ends], n_tokens)
