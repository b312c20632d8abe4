"""Ranks that a Hogwild starts itself, with mpiexec. The last one is its engine's process: Ctrl+C and a rank's death
reach the Hogwild as they do from any engine's process, the cells stay where they were computed, and nothing of MPI is
in the user's own process, which MPI would end with the others. Messages go through a socket: mpiexec's standard input
is the first rank's, and its output is that of all."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, BinaryIO, cast

from ..engine.link import Ends
from ..engine.process import CHILD_ENV, python_command
from ..errors import RunaheadError
from .hosts import reach

START_S = 60.0  # for Python and MPI to start; a launcher that fails, and hosts that do not answer, are told at once

SSH_ARGS = "-o ServerAliveInterval=2 -o ServerAliveCountMax=2"
LAUNCHERS = {
    "HYDRA_LAUNCHER_EXTRA_ARGS": SSH_ARGS,
    "OMPI_MCA_plm_rsh_args": SSH_ARGS,
    "PRTE_MCA_plm_ssh_args": SSH_ARGS,
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_rmaps_base_mapping_policy": "slot",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
"""What launchers (MPICH's; Open MPI's before version 5, and since) read of the environment. Their ssh ends by itself
when a machine is cut off: it would outlast them. Open MPI's refuse more ranks than cores, and tie each to one, if not
told otherwise."""

PASSED_ON = ("HOGWILD_", "GGML_", "LLAMA_", "OMP_", "GOMP_", "MPI4PY_")
"""Environment variables that all ranks are given: not all launchers take them to other hosts."""


def starter(n_ranks: int, hosts: Sequence[str]) -> Callable[[IO[bytes]], Ends]:
    """What starts an engine's process of so many ranks; hosts: of all but the last, dealt out evenly; none: this
    machine. Raises RunaheadError where there is no MPI, or a host cannot be had."""
    if not hasattr(socket, "AF_UNIX"):
        raise RunaheadError("this system has no Unix sockets, through which ranks are reached")
    mpiexec, used = find_mpiexec(), hosts[: n_ranks - 1]
    slots = slots_of(n_ranks, used, reach(used)) if used else ()
    return lambda stderr: start(mpiexec, n_ranks, slots, stderr)


def find_mpiexec() -> str:
    """That of HOGWILD_MPIEXEC, beside this Python, or in the PATH. Raises RunaheadError."""
    from .mpi import INSTALL, load_mpi4py

    named = os.environ.get("HOGWILD_MPIEXEC")
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    found = shutil.which(named) if named else beside or shutil.which("mpiexec")
    if found is None:
        raise RunaheadError(f"there is no MPI to start several ranks with: {named or 'mpiexec'} is missing; {INSTALL}")
    load_mpi4py()
    return found


def slots_of(n_ranks: int, hosts: Sequence[str], own: str) -> Sequence[str]:
    """Hosts with the number of their ranks, as launchers read them: those of one host are neighbours, which have most
    to say to each other. own: this machine's address."""
    n_each, n_more = divmod(n_ranks - 1, len(hosts))
    counts = dict.fromkeys(hosts, 0) | {own: 1}
    for index, host in enumerate(hosts):
        counts[host] += n_each + (index < n_more)
    return [f"{host}:{n}" for host, n in counts.items()]


def mpi_command(mpiexec: str, n_ranks: int, code: str, slots: Sequence[str] = ()) -> list[str]:
    """What starts so many ranks that run this code in a Python like this one."""
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)} | CHILD_ENV
    where = ["-host", ",".join(slots)] if slots else []
    return [
        mpiexec, *where, "-n", str(n_ranks),
        *python_command(f"import os; os.environ.update({passed_on!r}); {code}"),
    ]  # fmt: skip


def start(mpiexec: str, n_ranks: int, slots: Sequence[str], stderr: IO[bytes]) -> Ends:
    """Raises RunaheadError where the ranks do not come."""
    with tempfile.TemporaryDirectory(prefix="hogwild-") as folder, socket.socket(socket.AF_UNIX) as door:
        address = str(Path(folder) / "link")
        door.bind(address)
        door.listen(1)
        door.settimeout(0.05)
        code = f"from hogwild_local.runahead.rank import main; main({address!r}, {n_ranks})"
        child = subprocess.Popen(
            mpi_command(mpiexec, n_ranks, code, slots),
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env={**LAUNCHERS, **os.environ},
            start_new_session=True,  # Ctrl+C is the Hogwild's to handle
        )
        try:
            link = _accept(door, child, stderr)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    ends = [cast(BinaryIO, link.makefile(mode, buffering=0)) for mode in ("wb", "rb")]
    link.close()  # the files keep it
    return Ends(child, *ends)


def _accept(door: socket.socket, child: subprocess.Popen[bytes], stderr: IO[bytes]) -> socket.socket:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and child.poll() is None:
        try:
            link, _ = door.accept()
            link.settimeout(None)
            return link
        except TimeoutError:
            continue
    stderr.seek(0)
    said = " ".join(stderr.read().decode("utf-8", errors="replace").split())[-600:]
    how = "did not come within a minute" if child.poll() is None else f"ended (exit code {child.returncode})"
    raise RunaheadError(f"the ranks that mpiexec was to start {how}: {said}")
