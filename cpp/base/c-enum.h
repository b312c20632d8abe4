// An enum that a caller in C gave may hold what is none of its values: C++ must not read it as one unchecked.
#pragma once

#include <cstdint>
#include <cstring>

namespace hw {

template <typename Enum>
int32_t number_of(const Enum& value) {
    int32_t number = 0;
    static_assert(sizeof(value) == sizeof(number), "an enum of C is an int");
    std::memcpy(&number, &value, sizeof(number));
    return number;
}

}  // namespace hw
