// The one exception of this library. It is thrown inside and becomes a status and a text at the C boundary
// (api/c-api.cpp).
#pragma once

#include <stdexcept>
#include <string>

#include "hogwild.h"

namespace hw {

class Error : public std::runtime_error {
  public:
    Error(hw_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
    hw_status status() const { return status_; }

  private:
    hw_status status_;
};

// Throws an Error with a printf-like text.
[[noreturn]] void fail(hw_status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace hw
