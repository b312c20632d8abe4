"""What a grammar lets through: of a text, and of tokens at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hogwild_local import Model, Sampler, SamplingParams
from hogwild_local.errors import InvalidArgument


def accepts(model: Model, grammar: str, text: str, triggers: Sequence[str] = ()) -> bool:
    """Whether a grammar takes this text, token by token, and then its end."""
    sampler = Sampler(model, SamplingParams(temperature=0.0, grammar=grammar, grammar_triggers=triggers))
    assert model.eos is not None
    for token in [*model.tokenize(text, add_special=False, parse_special=False), model.eos]:
        wanted = np.zeros(model.n_vocab, dtype=np.float32)
        wanted[token] = 10.0
        try:
            if sampler.sample(wanted) != token:
                return False
        except InvalidArgument:  # it takes nothing more
            return False
    return True


def at_random(model: Model, grammar: str, seed: int, triggers: Sequence[str] = (), most: int = 3000) -> str | None:
    """What a sampler writes that a grammar holds and nothing else, in ASCII and what stands in that;
    None: it did not come to an end."""
    # llama.cpp's grammars take bytes for characters that are none, such as halves of surrogate pairs.
    known = {*range(128), *grammar.encode()}
    others = [token for token in range(model.n_vocab) if not known.issuperset(model.token_bytes(token))]
    sampler = Sampler(
        model,
        SamplingParams(
            logit_bias=dict.fromkeys(others, -np.inf),
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            seed=seed,
            grammar=grammar,
            grammar_triggers=triggers,
        ),
    )
    rng = np.random.default_rng(seed)
    written = b""
    for _ in range(most):
        token = sampler.sample(rng.normal(scale=3.0, size=model.n_vocab).astype(np.float32))
        if model.is_eog(token):
            return written.decode()
        written += model.token_bytes(token)
    return None
