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

from ..engine.process import CHILD_ENV, Ends, python_command
from ..errors import RunaheadError
from .mpi import INSTALL, load_mpi4py

START_S = 60.0  # for Python and MPI to start; a launcher that fails, and hosts that do not answer, are told at once
SSH_S = 5


def starter(n_ranks: int, hosts: Sequence[str]) -> Callable[[IO[bytes]], Ends]:
    """What starts an engine's process of so many ranks; hosts: of all but the last, in turn; none: this machine. Raises
    RunaheadError where there is no MPI, or a host cannot be reached."""
    mpiexec = find_mpiexec()
    check_hosts(hosts)
    return lambda stderr: start(mpiexec, n_ranks, hosts, stderr)


def find_mpiexec() -> str:
    """That of HOGWILD_MPIEXEC, beside this Python, or in the PATH. Raises RunaheadError."""
    named = os.environ.get("HOGWILD_MPIEXEC")
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    found = shutil.which(named) if named else beside or shutil.which("mpiexec")
    if found is None:
        raise RunaheadError(f"there is no MPI to start several ranks with: {named or 'mpiexec'} is missing; {INSTALL}")
    load_mpi4py()
    return found


def check_hosts(hosts: Sequence[str]) -> None:
    """mpiexec would wait for minutes. Raises RunaheadError."""
    if not hosts:
        return
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={SSH_S}"]
    try:
        asked = {
            host: subprocess.Popen(
                ["ssh", *options, "--", host, "true"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
            for host in dict.fromkeys(hosts)
        }  # fmt: skip
    except OSError as error:
        raise RunaheadError(f"ranks on other hosts are started with ssh, which cannot be run: {error}") from None
    faults = []
    for host, ssh in asked.items():
        try:
            _, said = ssh.communicate(timeout=SSH_S + 3)
        except subprocess.TimeoutExpired:
            ssh.kill()
            _, said = ssh.communicate()
        if ssh.returncode:
            faults.append(f"{host} ({' '.join(said.decode(errors='replace').split()) or 'no answer'})")
    if faults:
        raise RunaheadError(f"hosts that cannot be reached with ssh: {', '.join(faults)}")


def start(mpiexec: str, n_ranks: int, hosts: Sequence[str], stderr: IO[bytes]) -> Ends:
    """Raises RunaheadError where the ranks do not come."""
    with tempfile.TemporaryDirectory(prefix="hogwild-") as folder, socket.socket(socket.AF_UNIX) as door:
        address = str(Path(folder) / "link")
        door.bind(address)
        door.listen(1)
        door.settimeout(0.05)
        child = subprocess.Popen(
            [mpiexec, *_options(mpiexec, n_ranks, hosts), *python_command(_code(address))],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, **CHILD_ENV},
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


def _code(address: str) -> str:
    return f"from hogwild_local.runahead.rank import main; main({address!r})"


def _options(mpiexec: str, n_ranks: int, hosts: Sequence[str]) -> list[str]:
    version = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, check=False).stdout
    is_open_mpi = "open" in version.lower() and "HYDRA" not in version
    options = ["-n", str(n_ranks)]
    if hosts:
        of_ranks = [hosts[rank % len(hosts)] for rank in range(n_ranks - 1)] + [socket.gethostname()]
        options += ["--host" if is_open_mpi else "-hosts", ",".join(of_ranks)]
        options += ["--map-by", "node"] if is_open_mpi else ["-ppn", "1"]
    return [*options, "--oversubscribe"] if is_open_mpi else options


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
