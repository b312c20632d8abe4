// A value that the first who asks for it makes, and all others get: those who ask meanwhile wait.
#pragma once

#include <functional>
#include <mutex>
#include <optional>

namespace hw {

template <typename T>
class Once {
  public:
    // If make throws, the next one who asks tries again.
    const T& get(const std::function<T()>& make) const {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!value_) {
            value_ = make();
        }
        return *value_;
    }

  private:
    mutable std::mutex mutex_;
    mutable std::optional<T> value_;
};

}  // namespace hw
