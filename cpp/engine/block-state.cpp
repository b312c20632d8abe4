#include "engine/block-state.h"

#include <cstring>

#include "base/digest.h"
#include "base/error.h"

namespace hw {

namespace {

constexpr char magic[8] = {'H', 'W', 'B', 'L', 'O', 'C', 'K', '\n'};
// 1 had the cells of all layers, also of those with a sliding window, by number; 2 had the matrices of recurrent states
// by columns; 3 had a matrix in each of them.
constexpr uint32_t version = 4;
constexpr uint32_t byte_order = 0x01020304;
// Positions are 32-bit numbers, and a block may grow by all cells of a cache.
constexpr int64_t max_origin = int64_t(1) << 30;

struct Header {
    char magic[8];
    uint32_t version;
    uint32_t byte_order;
    uint64_t n_bytes;   // of all
    uint64_t checksum;  // of all but itself
    int64_t origin;
    uint32_t n_tokens;
    uint32_t n_fingerprint;  // bytes
    // followed by: fingerprint, tokens, cells
};
static_assert(sizeof(Header) == 48, "the layout is part of the format");

uint64_t checksum(const std::byte* data, size_t n_bytes) {
    constexpr size_t before = offsetof(Header, checksum);
    constexpr size_t behind = before + sizeof(Header::checksum);
    Digest digest;
    digest.add(data, before);
    digest.add(data + behind, n_bytes - behind);
    return digest.value();
}

[[noreturn]] void damaged(const char* how) { fail(HW_ERROR_ARGUMENT, "these are no data of a block: %s", how); }

Header checked_header(const std::byte* data, size_t n_bytes) {
    Header header;
    if (n_bytes < sizeof(header)) {
        damaged("they are too few");
    }
    std::memcpy(&header, data, sizeof(header));
    if (std::memcmp(header.magic, magic, sizeof(magic)) != 0) {
        damaged("they do not begin with 'HWBLOCK'");
    }
    if (header.byte_order != byte_order) {
        damaged("they were written on a machine with another order of bytes, or are damaged");
    }
    if (header.version != version) {
        fail(HW_ERROR_ARGUMENT, "these data of a block are of version %u: this library reads version %u",
             header.version, version);
    }
    if (header.n_bytes != n_bytes) {
        fail(HW_ERROR_ARGUMENT, "the data of a block were cut, or added to: %zu bytes, and they say %llu", n_bytes,
             static_cast<unsigned long long>(header.n_bytes));
    }
    if (header.checksum != checksum(data, n_bytes)) {
        damaged("their checksum is wrong");
    }
    return header;
}

std::vector<int32_t> checked_tokens(const std::byte* data, size_t n, int32_t n_vocab) {
    std::vector<int32_t> tokens(n);
    if (n > 0) {
        std::memcpy(tokens.data(), data, n * sizeof(int32_t));
    }
    for (const int32_t token : tokens) {
        if (token < 0 || token >= n_vocab) {
            damaged("a token is out of range");
        }
    }
    return tokens;
}

}  // namespace

size_t state_size(const Blocks& blocks, int32_t block, const Fingerprint& fingerprint) {
    return sizeof(Header) + text_of(fingerprint).size() + blocks.tokens(block).size() * sizeof(int32_t) +
           blocks.n_bytes(block);
}

void read_state(Blocks& blocks, int32_t block, const Fingerprint& fingerprint, std::byte* data) {
    const std::vector<int32_t>& tokens = blocks.tokens(block);
    const std::string text = text_of(fingerprint);
    const size_t n_bytes = state_size(blocks, block, fingerprint);
    const size_t tokens_at = sizeof(Header) + text.size();
    Header header = {};
    std::memcpy(header.magic, magic, sizeof(magic));
    header.version = version;
    header.byte_order = byte_order;
    header.n_bytes = n_bytes;
    header.origin = blocks.table().run(block).origin;
    header.n_tokens = static_cast<uint32_t>(tokens.size());
    header.n_fingerprint = static_cast<uint32_t>(text.size());
    std::memcpy(data, &header, sizeof(header));
    std::memcpy(data + sizeof(header), text.data(), text.size());
    if (!tokens.empty()) {  // memcpy's pointers must not be NULL, even for no bytes
        std::memcpy(data + tokens_at, tokens.data(), tokens.size() * sizeof(int32_t));
    }
    blocks.read(block, data + tokens_at + tokens.size() * sizeof(int32_t));
    header.checksum = checksum(data, n_bytes);
    std::memcpy(data, &header, sizeof(header));
}

int32_t write_state(Blocks& blocks, const Fingerprint& fingerprint, int32_t n_vocab, const std::byte* data,
                    size_t n_bytes) {
    const Header header = checked_header(data, n_bytes);
    const size_t rest = n_bytes - sizeof(header);
    if (header.n_fingerprint > rest || header.n_tokens > (rest - header.n_fingerprint) / sizeof(int32_t)) {
        damaged("their parts are longer than the whole");
    }
    const std::byte* text = data + sizeof(header);
    check_same(std::string(reinterpret_cast<const char*>(text), header.n_fingerprint), fingerprint);
    const std::byte* tokens = text + header.n_fingerprint;
    const std::byte* cells = tokens + header.n_tokens * sizeof(int32_t);
    if (header.origin < 0 || header.origin > max_origin) {
        damaged("the origin is out of range");
    }
    return blocks.restore(checked_tokens(tokens, header.n_tokens, n_vocab), header.origin, cells,
                          static_cast<size_t>(data + n_bytes - cells));
}

}  // namespace hw
