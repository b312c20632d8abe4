#include "cache/view-groups.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

namespace hw {

namespace {

struct Group {
    int64_t n_tokens = 0;
    int32_t oldest = INT32_MAX;  // block: ids grow
    std::vector<int32_t> views;

    bool operator<(const Group& other) const {
        return std::tie(n_tokens, oldest) < std::tie(other.n_tokens, other.oldest);
    }
};

// The view that stands for all that are connected with view i.
int32_t root_of(const std::vector<int32_t>& leads_to, int32_t i) {
    while (leads_to[static_cast<size_t>(i)] != i) {
        i = leads_to[static_cast<size_t>(i)];
    }
    return i;
}

}  // namespace

std::vector<std::vector<int32_t>> group_views(const hw_view* views, int32_t n_views,
                                              const std::function<bool(int32_t)>& is_seen) {
    std::vector<int32_t> leads_to(static_cast<size_t>(n_views));
    std::iota(leads_to.begin(), leads_to.end(), 0);
    std::map<int32_t, int32_t> seen_by;  // block -> the first view that sees it
    for (int32_t i = 0; i < n_views; i++) {
        for (int32_t k = 0; k < views[i].n_blocks; k++) {
            if (is_seen(views[i].blocks[k])) {
                const int32_t other = seen_by.emplace(views[i].blocks[k], i).first->second;
                leads_to[static_cast<size_t>(root_of(leads_to, i))] = root_of(leads_to, other);
            }
        }
    }
    std::map<int32_t, Group> by_root;
    for (int32_t i = 0; i < n_views; i++) {
        Group& group = by_root[root_of(leads_to, i)];
        group.views.push_back(i);
        group.n_tokens += views[i].n_tokens;
    }
    for (const auto& [block, view] : seen_by) {
        Group& group = by_root[root_of(leads_to, view)];
        group.oldest = std::min(group.oldest, block);
    }
    std::vector<Group> groups;
    for (auto& entry : by_root) {
        groups.push_back(std::move(entry.second));
    }
    std::sort(groups.begin(), groups.end());
    std::vector<std::vector<int32_t>> result;
    for (Group& group : groups) {
        result.push_back(std::move(group.views));
    }
    return result;
}

}  // namespace hw
