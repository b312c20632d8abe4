"""Other machines that ranks are to run on: whether ssh reaches them, whether they have what is needed, and which
address of this machine they know."""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Sequence
from importlib.metadata import version

from ..engine.process import python_command
from ..errors import RunaheadError

CONNECT_S, ANSWER_S = 5, 9
PACKAGES = ("hogwild-local", "llama-cpp-python")
_ASK = (
    "import os; from importlib.metadata import version; "
    f"print(os.environ['SSH_CONNECTION'].split()[2], *map(version, {PACKAGES!r}))"
)


def reach(hosts: Sequence[str]) -> str:
    """The address of this machine on the way to the first of these hosts. All are asked at the same time; mpiexec would
    wait for minutes. Raises RunaheadError, which names those that do not answer, or have other packages."""
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"]
    question = shlex.join(python_command(_ASK))
    try:
        asked = {
            host: subprocess.Popen(
                ["ssh", *options, "--", host, question],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for host in dict.fromkeys(hosts)
        }  # fmt: skip
    except OSError as error:
        raise RunaheadError(f"ranks on other hosts are started with ssh, which cannot be run: {error}") from None
    answers = {host: _answer(ssh) for host, ssh in asked.items()}
    if faults := [f"{host} ({said})" for host, (is_there, said) in answers.items() if not is_there]:
        raise RunaheadError(f"hosts that cannot be reached with ssh, or have no {PACKAGES[0]}: {', '.join(faults)}")
    ours = [version(package) for package in PACKAGES]
    addresses = []
    for host, (_, said) in answers.items():
        address, *theirs = said.split()[-1 - len(PACKAGES) :]  # a shell may have said something before
        addresses.append(address)
        if theirs != ours:
            rows = zip(PACKAGES, theirs, ours, strict=False)
            named = ", ".join(f"{name} {their} there, {our} here" for name, their, our in rows)
            raise RunaheadError(f"{host} must have the same packages as this machine: {named}")
    return _own_address(addresses[0])


def _answer(ssh: subprocess.Popen[bytes]) -> tuple[bool, str]:
    """Whether it went well, and what was said."""
    try:
        out, err = ssh.communicate(timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        ssh.kill()
        ssh.communicate()
        return False, "no answer"
    said = out if ssh.returncode == 0 else err
    return ssh.returncode == 0, " ".join(said.decode(errors="replace").split()) or f"exit code {ssh.returncode}"


def _own_address(other: str) -> str:
    """The name of this machine need mean nothing on others, or the loopback here. Launchers know no IPv6 addresses."""
    if ":" in other:
        return socket.gethostname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))  # sends nothing
        return str(probe.getsockname()[0])
