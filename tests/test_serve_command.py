"""hogwild serve: it says where it listens, answers, and ends in order."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from server_helper import ASKED, CHAT, events_of, until

from hogwild_local.cli.main import cli
from hogwild_local.server.malloc import LARGE, N_ARENAS


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its address."""
    command = [sys.executable, "-P", "-c", "from hogwild_local.cli.main import main; main()", "serve", "--trust"]
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            yield process, next(match[1] for line in lines if (match := re.search(r"listening on (\S+)", line)))
        finally:
            process.kill()


def test_ctrl_c_ends_it_in_order() -> None:
    with serving("--port", "0") as (process, address):
        until(lambda: httpx.get(f"{address}/health").status_code == 200)
        (begins_answer,) = httpx.post(f"{address}/tokenize", json={"content": "?"}).json()["tokens"]
        bias = {str(begins_answer): False}  # so they work as long as there is room
        body = {**ASKED, "stream": True, "timings_per_token": True, "max_passes": 100_000, "logit_bias": bias}
        with httpx.stream("POST", address + CHAT, json=body, timeout=20) as response:
            events = events_of(response)
            next(events)
            process.send_signal(signal.SIGINT)
            last = [data for _, _, data in events]
        assert last[-1] == "[DONE]"
        assert json.loads(last[-2])["hogwild"]["reason"] == "cancelled"
        assert process.wait(20) in (0, 130)


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets there")
def test_a_unix_socket_is_there_as_long_as_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving("--unix", str(path)) as (process, address):
        assert address == f"unix:{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://any.name") as client:
            until(lambda: client.get("/health").status_code == 200)
            assert client.post(CHAT, json=ASKED).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets there")
def test_a_socket_that_nobody_listens_at_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with serving("--unix", str(path)), httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        until(lambda: client.get("http://any.name/health").status_code == 200)
        second = CliRunner().invoke(cli, ["serve", "--trust", "--unix", str(path)])
        assert (second.exit_code, "cannot listen on" in second.output) == (2, True)
        assert client.get("http://any.name/health").status_code == 200
    file = tmp_path / "file"
    file.write_text("mine")
    assert CliRunner().invoke(cli, ["serve", "--trust", "--unix", str(file)]).exit_code == 2
    assert file.read_text() == "mine"


BROWSER = """#!{python}
import os, sys, time
with open({told!r} + ".part", "w") as file:
    file.write(sys.argv[1])
os.replace({told!r} + ".part", {told!r})
time.sleep(60)
"""  # in Python: a shell crashes when ThreadSanitizer's library is loaded into it


@pytest.mark.skipif(sys.platform == "win32", reason="its browser is a script")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_browser_is_opened_and_not_waited_for(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, told = tmp_path / "browser", tmp_path / "told"
    script.write_text(BROWSER.format(python=sys.executable, told=str(told)))
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(script))
    with serving("--port", "0", "--host", host, "--open") as (process, address):
        until(told.exists)
        page = told.read_text()
        assert page == address.replace("0.0.0.0", "127.0.0.1")
        until(lambda: httpx.get(f"{page}/health").status_code == 200)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)


LOADING = """
import sys, time
from dataclasses import replace
from hogwild_local.cli.main import cli
from hogwild_local.engine.protocols import native_engine
from hogwild_local.errors import Cancelled
def load(path, *, progress=None, **options):
    for n in range(6000):
        if progress is not None and progress(n / 6000) is False:
            raise Cancelled("it was not wanted any more")
        time.sleep(0.01)
    sys.exit("nobody has ended it")
cli(["serve", "--port", "0"], obj=replace(native_engine(), model=load))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_model_that_is_being_loaded_does_not_hold_the_server(number: signal.Signals) -> None:
    command = [sys.executable, "-P", "-c", LOADING]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(match[1] for line in process.stderr if (match := re.search(r"listening on (\S+)", line)))
            until(lambda: httpx.get(f"{address}/health").status_code == 503)
            process.send_signal(number)
            assert process.wait(20) == 128 + number
            assert process.stderr.read() == ""
        finally:
            process.kill()


ARENAS = """
import ctypes, sys, threading
if sys.argv[1] == "share":
    from hogwild_local.server.malloc import settle_malloc
    settle_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.fopen.argtypes = ctypes.c_char_p, ctypes.c_char_p
libc.malloc_info.argtypes = ctypes.c_int, ctypes.c_void_p
libc.fclose.argtypes = (ctypes.c_void_p,)
together = threading.Barrier(6)
def go():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=go) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have no arenas")
def test_threads_share_arenas(tmp_path: Path) -> None:
    counts = {}
    for how in ("share", "not"):
        file = tmp_path / how
        subprocess.run([sys.executable, "-P", "-c", ARENAS, how, str(file)], check=True)
        counts[how] = file.read_text().count("<heap nr=")
    assert counts["share"] <= N_ARENAS < counts["not"]


MAPPED = """
import ctypes, sys
if sys.argv[1] == "settled":
    from hogwild_local.server.malloc import settle_malloc
    settle_malloc()
size = int(sys.argv[2])
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
def is_mapped(place):
    spans = [line.split()[0].split("-") for line in open("/proc/self/maps")]
    return any(int(start, 16) <= place < int(end, 16) for start, end in spans)
middles = []
for _ in range(2):  # what was freed once decides where the next one lies
    place = libc.malloc(size)
    libc.free(place)
    middles.append(is_mapped(place + size // 2))
print(middles)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have no such threshold")
def test_a_large_buffer_is_gone_when_it_is_freed() -> None:
    told = {}
    for how in ("settled", "not"):
        command = [sys.executable, "-P", "-c", MAPPED, how, str(8 * LARGE)]
        told[how] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert told == {"settled": "[False, False]", "not": "[False, True]"}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--port", "70000"], "70000"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--unix", "/nowhere/socket"], "cannot listen on /nowhere/socket"),
        (["--tls-key", __file__], "belong together"),
        (["--parallel", "0"], "parallel"),
        (["--open", "--unix", "/nowhere/socket"], "no browser"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], fault: str) -> None:
    done = CliRunner().invoke(cli, ["serve", "--trust", *arguments])
    assert done.exit_code == 2
    assert fault in done.output


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_with_a_key_and_a_certificate_it_is_https_and_nothing_else(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    with serving("--port", "0", "--tls-key", str(key), "--tls-cert", str(cert)) as (_, address):
        assert address.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(base_url=address, verify=trusted, timeout=20) as client:
            until(lambda: client.get("/health").status_code == 200)
            with client.stream("POST", CHAT, json={**ASKED, "stream": True}) as response:
                assert [data for _, _, data in events_of(response)][-1] == "[DONE]"
        for strange in (address, address.replace("https", "http")):  # nobody vouches for it; no TLS
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{strange}/health")


def test_files_that_are_no_key_are_said(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("no key")
    done = CliRunner().invoke(cli, ["serve", "--trust", "--port", "0", "--tls-key", str(key), "--tls-cert", str(key)])
    assert done.exit_code == 2
    assert "TLS" in done.output


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\n\n two \n")
    with serving("--port", "0", "--api-key-file", str(keys)) as (_, address):
        until(lambda: httpx.get(f"{address}/health").status_code == 200)
        for key, status in (("one", 200), ("two", 200), ("three", 401)):
            assert httpx.get(f"{address}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == status
