"""A local server: OpenAI's interface, llama-server's, and our own, over one Hogwild. Needs the extra `server`."""
