"""KV-Runahead (arXiv 2405.05329): one long prompt prefilled by several processes, each with the whole model.

The prompt is cut into chunks, one for each rank. In every layer a rank receives the keys and values of all tokens
before its chunk from the rank before it, sends them on with its own behind them, and attends. Nobody waits for those
behind: the early ranks run ahead. The last rank ends up with the whole cache, and goes on as if it had fed the prompt
alone.

    rank 0   chunk 0 ─ layer 0 ─ layer 1 ─ layer 2 ...
                          └────┐    └────┐
    rank 1   chunk 1 ─ layer 0 ┴ layer 1 ┴ layer 2 ...      the last rank: the engine of a Hogwild
"""
