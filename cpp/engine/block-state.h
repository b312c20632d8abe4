// A block as bytes, and back: docs/block-format.md.
#pragma once

#include "engine/blocks.h"
#include "engine/fingerprint.h"

namespace hw {

size_t state_size(const Blocks& blocks, int32_t block, const Fingerprint& fingerprint);

// data: state_size() bytes. Throws what Blocks::read throws.
void read_state(Blocks& blocks, int32_t block, const Fingerprint& fingerprint, std::byte* data);

// A new block of what read_state() wrote, for a cache of the same fingerprint. Throws HW_ERROR_ARGUMENT with what is
// wrong with the data, and what Blocks::restore throws.
int32_t write_state(Blocks& blocks, const Fingerprint& fingerprint, int32_t n_vocab, const std::byte* data,
                    size_t n_bytes);

}  // namespace hw
