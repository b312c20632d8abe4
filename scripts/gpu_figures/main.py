"""The command line."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_sdist import ROOT

from . import backends, install, readers
from .pack import LIMIT_MB, PackError, pack, write_json
from .pack import commit as pack_commit
from .plan import DRY, FULL, Step, Target, steps
from .record import Record
from .report import markdown
from .runner import Runner

SCRIPT = Path(__file__).parent.parent / "gpu-figures"
LOG_CHARS = 200_000  # of each step
DESCRIPTION = "Builds, tests and measures on a machine with a GPU, which needs no network: docs/gpu.md."


def main(argv: list[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    try:
        if options.pack:
            without = [name for name in options.without.split(",") if name]
            pack(options.pack.absolute(), options.python, without, options.models, options.limit_mb, say)
        elif options.environment:
            install.make_environment(place(options))
        elif options.build:
            install.build(place(options), options.backend)
        else:
            return run(options)
    except (PackError, backends.Missing) as error:
        print(f"gpu-figures: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"gpu-figures: exit code {error.returncode} of {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-figures", description=DESCRIPTION)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--pack", type=Path, metavar="DIR", help="collect in DIR what is needed there")
    what.add_argument("--run", type=Path, metavar="DIR", help="do all of it there")
    what.add_argument("--environment", type=Path, metavar="DIR", help=argparse.SUPPRESS)  # steps of --run
    what.add_argument("--build", type=Path, metavar="DIR", help=argparse.SUPPRESS)

    parser.add_argument("--models", type=Path, metavar="FOLDER",
                        help="models for scripts/architectures: are packed too; --run takes them instead")  # fmt: skip
    packing = parser.add_argument_group("with --pack")
    packing.add_argument("--python", default="3.12", help="the target's; default: %(default)s")
    packing.add_argument("--without", default="cmake", metavar="NAMES",
                         help="packages that the target has: numpy,cmake,ninja; default: %(default)s")  # fmt: skip
    packing.add_argument("--limit-mb", type=float, default=LIMIT_MB, help="without models; default: %(default)s")

    running = parser.add_argument_group("with --run")
    running.add_argument("--minutes", type=float, default=25.0, help="default: %(default)s")
    running.add_argument(
        "--out", type=Path, metavar="FOLDER", help="figures.json, figures.md, log.txt; default: DIR.out"
    )
    running.add_argument("--work", type=Path, metavar="FOLDER", help="builds and models, 25 GB; default: DIR.work")
    running.add_argument("--backend", default="auto", choices=["auto", "cuda", "hip", "vulkan", "metal", "cpu"])
    running.add_argument("--dry-run", action="store_true", help="tiny models: whether all of it works, not how fast")
    running.add_argument("--installed", action="store_true",
                         help="build nothing: measure what is installed for this Python")  # fmt: skip
    return parser


def place(options: argparse.Namespace) -> install.Place:
    folder = (options.run or options.environment or options.build).absolute()
    return install.Place(folder, (options.work or folder.with_name(f"{folder.name}.work")).absolute())


def run(options: argparse.Namespace) -> int:
    """The exit code: 130 where it was interrupted, else 0, whatever became of the steps."""
    at = place(options)
    out = (options.out or at.pack.with_name(f"{at.pack.name}.out")).absolute()
    if not options.installed:
        install.check(at)
    backend = backends.choose(options.backend)
    environment = environment_of(options, at, backend)
    make_folders(out, at)
    key = {"backend": backend, "dry run": options.dry_run, "pack": install.identity(at)}
    record = Record(at.work / "figures.json", key, lambda record: publish(record, at, out))
    if not record.steps:
        shutil.rmtree(at.work / "logs", ignore_errors=True)
    record.describe({**about(backend), "commit": commit(at), "minutes": options.minutes})
    python, source = (Path(sys.executable), ROOT) if options.installed else (at.python, at.source)
    sizes = DRY if options.dry_run else FULL
    target = Target(python, at.work / "models", backend, sizes, options.models or install.packed_models(at))
    runner = Runner(record, options.minutes, at.work, source, environment, shown, say)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, runner.interrupt)
    runner.run(steps(target, [] if options.installed else building(at, backend)))
    say(f"{out / 'figures.md'}")
    return 130 if runner.interrupted else 0


def make_folders(out: Path, at: install.Place) -> None:
    """Raises Missing where one cannot be written to: a pack may lie on a medium that is only read."""
    for folder, option in ((out, "--out"), (at.work, "--work")):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise backends.Missing(f"{folder} cannot be written to: name another with {option} ({error})") from None
    for folder in (at.source, at.work / "models"):
        folder.mkdir(parents=True, exist_ok=True)


def commit(at: install.Place) -> str:
    """Of what is measured."""
    if packed := install.identity(at):
        return str(packed["commit"])
    try:
        return pack_commit()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # sources without git


def publish(record: Record, at: install.Place, out: Path) -> None:
    """Three files, whatever happens next."""
    write_json(out / "figures.json", record.to_dict())
    (out / "figures.md").write_text(markdown(record), encoding="utf-8")
    with (out / "log.txt").open("w", encoding="utf-8") as log:
        for path in sorted((at.work / "logs").glob("*.txt"), key=lambda path: path.stat().st_mtime):
            log.write(f"===== {path.stem}\n{path.read_text(encoding='utf-8', errors='replace')[-LOG_CHARS:]}\n")


def shown(command: Sequence[str]) -> str:
    """A command as a person would write it: without folders of this machine, and without our own files."""
    line = shlex.join(Path(word).name if word.startswith("/") else word for word in command)
    return line.replace(" --json '{out}'", "").replace("'{out}'", "FILE").replace("{out}", "FILE")


def about(backend: str) -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {"card": backends.card(backend), "backend": backend, "cpu": cpu, "cores": os.cpu_count(),
            "python": sys.version.split()[0]}  # fmt: skip


def say(text: str) -> None:
    print(text, flush=True)


def building(at: install.Place, backend: str) -> list[Step]:
    """What makes the environment. Without the first no model is written, and without the second nothing runs."""
    common = ["--work", str(at.work), "--backend", backend]
    made = (sys.executable, str(SCRIPT), "--environment", str(at.pack), *common)
    built = (sys.executable, str(SCRIPT), "--build", str(at.pack), *common)
    return [Step("environment", (made,), readers.nothing, 5, 300),
            Step("build", (built,), readers.nothing, 5, 3600, ("environment",))]  # fmt: skip


def environment_of(options: argparse.Namespace, at: install.Place, backend: str) -> dict[str, str]:
    """Of all steps. Models are our own: they need no trial, which would load each twice. The machine's Python may have
    plugins of pytest."""
    always = {"HOGWILD_TRUST": "1", "PYTHONUNBUFFERED": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if options.installed:
        return always
    path = os.pathsep.join([str(at.python.parent), os.environ.get("PATH", "")])
    return {**always, "PATH": path, **backends.settings(backend, install.packages(), at.work).environment}
