#include "kernel/read-order.h"

#include <algorithm>
#include <functional>
#include <tuple>

namespace hw {

namespace {

auto key_of(const ReadOrder::Read& read) {
    return std::make_tuple(read.step, read.is_first, reinterpret_cast<uintptr_t>(read.run.data), read.run.first_row,
                           read.run.n_tokens);
}

}  // namespace

ReadOrder::ReadOrder(const RecurrentPlan& plan, int64_t most, int32_t n_itself) : most_(most), n_itself_(n_itself) {
    for (const RecurrentView& view : plan.views) {
        if (!makes_states(plan, view) && !leaves_out(plan, view)) {
            add(plan, view);
        }
    }
    std::stable_sort(reads_.begin(), reads_.end(), [](const Read& a, const Read& b) { return key_of(a) < key_of(b); });
}

bool ReadOrder::is_same(const Read& a, const Read& b) { return key_of(a) == key_of(b); }

void ReadOrder::add(const RecurrentPlan& plan, const RecurrentView& view) {
    for (int32_t i = 0; i < view.n_works; i++) {
        const RecurrentWork& own = plan.works[static_cast<size_t>(view.first_work + i)];
        for (int32_t k = 0; k < own.n_tokens; k++) {
            int64_t step = 0;
            const auto put = [&](const RecurrentRun& run, bool is_first) {
                reads_.push_back({own.first_token + k, step++, run, is_first});
            };
            if (own.before.is_rows()) {
                put(own.run(k + n_itself_), i == 0 && view.n_links == 0);
            }
            for (int32_t before = i; before-- > 0;) {
                put(plan.works[static_cast<size_t>(view.first_work + before)].run(), before == 0 && view.n_links == 0);
            }
            for (int32_t link = view.n_links; link-- > 0;) {
                put(plan.links[static_cast<size_t>(view.first_link + link)], link == 0);
            }
        }
    }
}

}  // namespace hw
