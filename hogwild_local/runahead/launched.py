"""Ranks that an MPI launcher has started: mpiexec -n 2 hogwild run ..."""

from __future__ import annotations

import os

from ..engine.protocols import Engine


def of_launcher() -> Engine | None:
    """The engine of the last rank, where this process is one of several that an MPI launcher has started: the others
    help it, and do not return from here. None: it is the only one. Raises RunaheadError."""
    n_ranks = n_launched()
    if n_ranks < 2:
        return None
    from .leader import Group, Leader
    from .mpi import MpiTransport
    from .rank import help_last
    from .ranked import of_ranks

    transport = MpiTransport(n_ranks)
    if transport.rank < transport.size - 1:
        help_last(transport)
    return of_ranks(Leader(Group(transport)))


def n_launched() -> int:
    """Processes that an MPI launcher has started together, as it says in the environment."""
    names = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS")
    return max((int(value) for name in names if (value := os.environ.get(name, "")).isdigit()), default=1)
