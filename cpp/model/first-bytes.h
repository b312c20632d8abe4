// How the tokens of a vocabulary begin. A grammar that refuses a byte alone refuses all tokens that begin with it: so
// of a vocabulary of 150,000 it need be asked about few.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "llama-cpp.h"

namespace hw {

struct FirstBytes {
    static constexpr uint16_t unknown = 256;  // it ends the generation, or no token is its first byte alone
    static constexpr uint16_t no_text = 257;
    static constexpr size_t n_kinds = 258;

    explicit FirstBytes(const llama_vocab* vocab);

    std::vector<uint16_t> of;            // [n_vocab]: the first byte, unknown, or no_text
    std::array<llama_token, 256> alone;  // the token that is such a byte, and no more; -1: there is none
};

// The bytes of a token as a grammar sees it, those of control tokens too.
std::string grammar_text(const llama_vocab* vocab, llama_token token);

}  // namespace hw
