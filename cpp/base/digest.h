// A number that stands for data: two that differ are different, two that are the same are not made so by accident. Made
// of 64-bit words, at gigabytes a second; it finds damage and mix-ups, not forgery.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace hw {

class Digest {
  public:
    void add(const void* data, size_t n_bytes) {
        const char* bytes = static_cast<const char*>(data);
        for (size_t done = 0; done < n_bytes; done += sizeof(uint64_t)) {
            uint64_t word = 0;
            std::memcpy(&word, bytes + done, n_bytes - done < sizeof(word) ? n_bytes - done : sizeof(word));
            mix(word);
        }
        mix(n_bytes);
    }
    void add(const std::string& text) { add(text.data(), text.size()); }
    template <typename Number>
    void add_number(Number number) {
        add(&number, sizeof(number));
    }

    uint64_t value() const { return value_; }
    std::string text() const {
        char hex[17];
        std::snprintf(hex, sizeof(hex), "%016llx", static_cast<unsigned long long>(value_));
        return hex;
    }

  private:
    // Each step maps numbers one to one, so that a single word that differs always shows.
    void mix(uint64_t word) {
        value_ = (value_ ^ word) * 0x9e3779b97f4a7c15u;
        value_ ^= value_ >> 32;
    }

    uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace hw
