"""Several workers of one GGUF model think at the same time over one shared KV cache.

    from hogwild_local import Hogwild

    with Hogwild("model.gguf") as hw:
        for event in hw.stream("PROMPT", workers=["Alice", "Bob"]): ...
        result = hw.generate("PROMPT", workers=4)

Hogwild runs workers on a prompt; Model, SharedCache and Sampler are the layer below it. hogwild_local.events has what
stream() yields, hogwild_local.errors what everything here raises. All is quiet unless set_log_hook() gives llama.cpp's
log lines a place to go. The compiled library is loaded with the first model: then the llama.cpp found must be the one
this package was compiled against, or an ImportError says what to do.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

_stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_homes = {line.split()[-1]: line.split()[1] for line in _stub.splitlines() if line.startswith("from ")}
"""Public names, and the module of each, which is imported when the name is used first. They are written down once, in
__init__.pyi, where type checkers see them."""

__all__ = sorted(_homes)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("hogwild-local")
    elif name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    elif _homes[name] == ".":
        value = import_module(f".{name}", __name__)
    else:
        value = getattr(import_module(_homes[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
