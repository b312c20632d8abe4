#include "model/first-bytes.h"

#include <string>

namespace hw {

FirstBytes::FirstBytes(const llama_vocab* vocab) : of(static_cast<size_t>(llama_vocab_n_tokens(vocab)), unknown) {
    alone.fill(-1);
    for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); token++) {
        const std::string text = grammar_text(vocab, token);
        if (llama_vocab_is_eog(vocab, token)) {
            continue;
        }
        if (text.empty()) {
            of[static_cast<size_t>(token)] = no_text;
            continue;
        }
        const auto first = static_cast<unsigned char>(text[0]);
        of[static_cast<size_t>(token)] = first;
        if (text.size() == 1) {
            alone[first] = token;
        }
    }
    for (uint16_t& first : of) {
        if (first < alone.size() && alone[first] < 0) {
            first = unknown;
        }
    }
}

std::string grammar_text(const llama_vocab* vocab, llama_token token) {
    std::string text(64, ' ');
    int32_t n = llama_token_to_piece(vocab, token, text.data(), static_cast<int32_t>(text.size()), 0, true);
    if (n < 0) {
        text.resize(static_cast<size_t>(-n));
        n = llama_token_to_piece(vocab, token, text.data(), static_cast<int32_t>(text.size()), 0, true);
    }
    text.resize(static_cast<size_t>(n));
    return text;
}

}  // namespace hw
