#include "cache/map-pool.h"

#include <vector>

#include "base/error.h"
#include "base/memory.h"

namespace hw {

namespace {

// Bytes of maps that nobody uses.
constexpr size_t most_idle = size_t(64) << 20;

}  // namespace

// Maps may outlive the pool.
struct MapPool::Shelf {
    std::vector<std::unique_ptr<float[]>> idle;  // its capacity is that of all maps
    size_t n_used = 0;
};

MapPool::MapPool(size_t n_floats) : n_floats_(n_floats), shelf_(std::make_shared<Shelf>()) {}

Map MapPool::take() {
    std::unique_ptr<float[]> data;
    const size_t n_bytes = n_floats_ * sizeof(float);
    if (!shelf_->idle.empty()) {
        data = std::move(shelf_->idle.back());
        shelf_->idle.pop_back();
    } else {
        if (n_bytes > free_host_memory()) {
            fail(HW_ERROR_MEMORY, "no memory for the recurrent state of a block (%.0f MiB): free some blocks",
                 static_cast<double>(n_bytes) / (1 << 20));
        }
        data.reset(new float[n_floats_]);
    }
    shelf_->idle.reserve(shelf_->n_used + 1);  // so that giving back cannot fail
    const auto give_back = [shelf = shelf_, n_bytes](float* map) {
        std::unique_ptr<float[]> owner(map);
        shelf->n_used--;
        if ((shelf->idle.size() + 1) * n_bytes <= most_idle && shelf->idle.size() < shelf->idle.capacity()) {
            shelf->idle.push_back(std::move(owner));
        }
    };
    shelf_->n_used++;
    return Map(data.release(), give_back);
}

size_t MapPool::n_bytes() const { return shelf_->n_used * n_floats_ * sizeof(float); }

}  // namespace hw
