"""One engine: a GGUF model, its shared KV cache and samplers, in this process or in one of its own."""
