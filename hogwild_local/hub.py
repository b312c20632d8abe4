"""Models from the Hugging Face Hub, by huggingface_hub: its cache, its environment variables (HF_TOKEN, HF_ENDPOINT,
HF_HUB_OFFLINE, HF_HOME), its progress bars. What is in the cache is used where the hub cannot be reached."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType

from .errors import InvalidArgument, ModelError

USUAL_QUANTS = ("Q4_K_M", "Q8_0")
"""The first of these that there is, as in llama.cpp; else the first file."""
MOST_SHOWN = 30
TIMEOUT_S = 10.0
PART = re.compile(r"(?P<name>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")
NO_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""In names of GGUF files that hold something beside a model, as llama.cpp knows them."""
SHA256 = re.compile(r"[0-9a-f]{64}")

Parts = tuple[str, ...]
"""The files of one model, in order; one, unless it is split."""


def parse_repo(text: str) -> tuple[str, str | None, str | None]:
    """USER/REPO, USER/REPO:QUANT or USER/REPO:FILE.gguf as repository, quant and file name."""
    repo, _, rest = text.partition(":")
    is_file = rest.lower().endswith(".gguf")
    return repo, rest if rest and not is_file else None, rest if is_file else None


def downloaded(repo: str, quant: str | None = None, filename: str | None = None) -> Path:
    """The first file of a model that is in the cache of huggingface_hub then, whole.

    repo: "USER/REPO". quant: "Q4_K_M", in capitals or not; without it Q4_K_M, Q8_0 or the first file there is.
    filename: the file's name in the repository, or a pattern for it (*). A split model comes with all of its parts.

    Raises InvalidArgument, which lists what there is, where that names no model, or several; ModelError for a
    repository that there is not or that is closed, where the hub cannot be reached and the file is not in the cache,
    and for a file that came damaged; ImportError without huggingface_hub.
    """
    hub = _library()
    if quant is not None and filename is not None:
        raise InvalidArgument("give either quant or filename, not both")
    names, unreachable = _names(hub, repo)
    try:
        parts = chosen(repo, names, quant, filename)
    except InvalidArgument as error:
        raise error if unreachable is None else ModelError(f"{unreachable}; in the cache: {error}") from None
    files = [_file(hub, repo, name) for name in parts]
    if len({file.parent for file in files}) > 1:  # of different commits
        raise ModelError(f"{repo} was changed while it was fetched: try again")
    return files[0]


def chosen(repo: str, names: Sequence[str], quant: str | None, filename: str | None) -> Parts:
    """The files of the model that is meant, of the names of all files. Raises InvalidArgument."""
    models = _models(names)
    if not models:
        raise InvalidArgument(f"{repo} has no GGUF file of a model, whole with all of its parts")
    if filename is not None:
        found = [parts for parts in models if any(_is_named(name, filename) for name in parts)]
        return _only(repo, f"the file {filename!r}", found, models)
    if quant is not None:
        return _only(repo, f"a file for {quant!r}", _with_quant(models, quant), models)
    for usual in USUAL_QUANTS:
        if found := _with_quant(models, usual):
            return _only(repo, f"a file for {usual!r}", found, models)
    return models[0]


def _models(names: Sequence[str]) -> list[Parts]:
    """Sorted; split ones without a part are left out."""
    models: list[Parts] = []
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix.lower() != ".gguf" or any(word in path.name for word in NO_MODELS):
            continue
        part = PART.fullmatch(name)
        if part is None:
            models.append((name,))
        elif int(part["index"]) == 1:
            n = int(part["count"])
            parts = tuple(f"{part['name']}-{i:05}-of-{n:05}.gguf" for i in range(1, n + 1))
            models += [parts] if set(parts) <= set(names) else []
    return models


def _with_quant(models: Sequence[Parts], quant: str) -> list[Parts]:
    pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(quant)}(?=[-./])", re.IGNORECASE)
    return [parts for parts in models if pattern.search(parts[0])]


def _is_named(name: str, filename: str) -> bool:
    return name == filename or any(fnmatch.fnmatch(of, filename) for of in (name, PurePosixPath(name).name))


def _only(repo: str, what: str, found: Sequence[Parts], models: Sequence[Parts]) -> Parts:
    if len(found) == 1:
        return found[0]
    firsts = [parts[0] for parts in found or models]
    shown = ", ".join(firsts[:MOST_SHOWN]) + (f" and {len(firsts) - MOST_SHOWN} more" if firsts[MOST_SHOWN:] else "")
    if found:
        raise InvalidArgument(f"{repo} has more than one: {shown}. Name the file: {repo}:FILE.gguf, or filename=")
    raise InvalidArgument(f"{repo} has not {what}; it has {shown}")


def _names(hub: ModuleType, repo: str) -> tuple[list[str], ModelError | None]:
    """Of all files that the repository has; where it cannot be reached, of those in the cache, and why. Raises that, if
    there are none."""
    try:
        with _errors(hub, repo):
            info = hub.HfApi(**_who()).model_info(repo, timeout=TIMEOUT_S)  # one request, which is not made again
            return [file.rfilename for file in info.siblings or ()], None
    except ModelError as error:
        if names := _cached_names(hub, repo):
            return names, error
        raise


def _cached_names(hub: ModuleType, repo: str) -> list[str]:
    try:
        repos = hub.scan_cache_dir().repos
    except hub.errors.CacheNotFound:
        return []
    revisions = [of for each in repos if (each.repo_type, each.repo_id) == ("model", repo) for of in each.revisions]
    return [
        Path(file.file_path).relative_to(revision.snapshot_path).as_posix()
        for revision in revisions
        if "main" in revision.refs
        for file in revision.files
    ]


def _file(hub: ModuleType, repo: str, name: str) -> Path:
    """In the cache, and whole."""
    with _errors(hub, repo):
        was_there = isinstance(hub.try_to_load_from_cache(repo, name), str)
        file = Path(hub.hf_hub_download(repo, name, **_who()))
    if not was_there:
        _check(file, repo)
    return file


@contextlib.contextmanager
def _errors(hub: ModuleType, repo: str) -> Iterator[None]:
    errors = hub.errors
    try:
        yield
    except errors.HFValidationError as error:
        raise InvalidArgument(f"{repo!r} is no repository of the hub, USER/REPO: {error}") from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repo} is gated: ask for access on its page, and set HF_TOKEN to a token of yours"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"there is no repository {repo}, or it is private: then set HF_TOKEN") from error
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # of whichever HTTP client it has
        raise ModelError(f"{repo} cannot be had from the hub: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _check(file: Path, repo: str) -> None:
    """Of a large file the cache knows the digest, by the name of what its link leads to: the library compares sizes
    only. A damaged file is removed."""
    blob = file.resolve()
    if not SHA256.fullmatch(blob.name):
        return
    with blob.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    if digest != blob.name:
        file.unlink()
        blob.unlink()
        raise ModelError(f"{repo}: {file.name} came damaged (its sha256 is another), and was removed: try again")


def _who() -> dict[str, str]:
    from importlib.metadata import version

    return {"library_name": "hogwild-local", "library_version": version("hogwild-local")}


def _library() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            "models from the hub need huggingface_hub: pip install 'hogwild-local[hub]' (or '.[hub]' in the sources)"
        ) from error
    return huggingface_hub
