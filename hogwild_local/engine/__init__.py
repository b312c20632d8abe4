"""One engine: a GGUF model, its shared KV cache and samplers, in this process or in one of its own."""

import os

from .threads import spin_shortly

spin_shortly(os.environ)  # llama_cpp loads libgomp, and all modules here that import it are imported after this one
