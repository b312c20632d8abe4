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

from importlib.metadata import version as _version

from . import errors, events
from .chat import Chat
from .engine.block import CacheBlock
from .engine.cache import SharedCache
from .engine.log import set_log_hook
from .engine.model import Model
from .engine.sampling import Sampler
from .hogwild import Hogwild
from .options import SamplingParams, Worker
from .prompts.style import PromptStyle
from .workers.layouts import Layout
from .workers.result import Result
from .workers.run import Run

__all__ = [
    "CacheBlock",
    "Chat",
    "Hogwild",
    "Layout",
    "Model",
    "PromptStyle",
    "Result",
    "Run",
    "Sampler",
    "SamplingParams",
    "SharedCache",
    "Worker",
    "errors",
    "events",
    "set_log_hook",
]

__version__ = _version("hogwild-local")
