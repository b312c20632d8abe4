"""llama.cpp's own chain of samplers over all tokens of a vocabulary, grammar included: the oracle of ours."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import llama_cpp
import numpy as np
import numpy.typing as npt

from hogwild_local import Model, SamplingParams

Rows = npt.NDArray[np.float32]


@contextmanager
def chain_of(model: Model, params: SamplingParams) -> Iterator[Callable[[Rows], int]]:
    """The samplers in the order of the settings; a grammar is asked about all tokens after the penalties."""
    vocab = llama_cpp.llama_model_get_vocab(model.llama_address)
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    made = []
    if params.logit_bias:
        array = (llama_cpp.llama_logit_bias * len(params.logit_bias))(*params.logit_bias.items())
        made.append(llama_cpp.llama_sampler_init_logit_bias(model.n_vocab, len(array), array))
    penalties = partial(
        llama_cpp.llama_sampler_init_penalties,
        model.n_vocab,
        params.penalty_last_n,
        params.repeat_penalty,
        params.frequency_penalty,
        params.presence_penalty,
    )
    steps = {
        "penalties": penalties,
        "top_k": partial(llama_cpp.llama_sampler_init_top_k, params.top_k),  # which is off where it is not above 0
        "top_p": partial(llama_cpp.llama_sampler_init_top_p, params.top_p, 1),
        "min_p": partial(llama_cpp.llama_sampler_init_min_p, params.min_p, 1),
        "temperature": partial(llama_cpp.llama_sampler_init_temp, params.temperature),
    }
    is_greedy = params.temperature <= 0
    for name in params.sampler_order:
        if name == "penalties" or not is_greedy:
            made.append(steps[name]())
    if params.grammar is not None:
        made.append(llama_cpp.llama_sampler_init_grammar(vocab, params.grammar.encode(), b"root"))
    made.append(llama_cpp.llama_sampler_init_greedy() if is_greedy else llama_cpp.llama_sampler_init_dist(params.seed))
    for sampler in made:
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    def choose(logits: Rows) -> int:
        rows = np.zeros(len(logits), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        rows["id"], rows["logit"] = np.arange(len(logits)), logits
        data = (llama_cpp.llama_token_data * len(logits)).from_buffer(rows)
        array = llama_cpp.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        llama_cpp.llama_sampler_accept(chain, token)
        return token

    yield choose
    llama_cpp.llama_sampler_free(chain)
