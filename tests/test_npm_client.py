"""npm's openai, the other package that most clients are made of: it reads what the server says as ours does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from server_helper import SHEET, embedded, served

PACKAGE = "openai@6"
CLIENT = Path(__file__).with_name("openai_client.mjs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the package in it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node")
    made = tmp_path_factory.mktemp("npm")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    done = subprocess.run(install, cwd=made, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"no node package: npm cannot have {PACKAGE}: {done.stderr[-200:]}")
    shutil.copy(CLIENT, made)
    return made


def test_npms_client_reads_workers_replies_and_errors(folder: Path) -> None:
    with embedded() as hogwild:
        wanted = hogwild.generate(SHEET, seed=1, workers=3)
    with served() as server:
        command = ["node", CLIENT.name, server.address, SHEET]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    got: dict[str, Any] = json.loads(done.stdout)
    assert got["models"] == ["default"]
    assert got["whole"] == got["streamed"] == got["helped"] == got["response"] == wanted.reply
    assert got["tokens"] == wanted.usage.completion_tokens
    assert set(got["steps"]) == {"Alice", "Bob", "Carol"}
    assert all(step.strip() in wanted.history for steps in got["steps"].values() for step in steps)
    assert got["items"] == ["reasoning"] * 3 + ["message"]
    assert got["wrong"] == [400, "temperature"]
