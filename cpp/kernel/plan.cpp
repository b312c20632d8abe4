#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "kernel/cpu.h"
#include "kernel/kernel.h"

namespace hw {

extern const AttnIsa attn_isa_generic;  // each in a source of its own, compiled with its own flags
#if defined(__x86_64__)
extern const AttnIsa attn_isa_avx2;
extern const AttnIsa attn_isa_avx512;
#elif defined(__aarch64__)
extern const AttnIsa attn_isa_neon;
#endif

const AttnIsa* const* attn_isas() {
    static const std::vector<const AttnIsa*> isas = [] {
        std::vector<const AttnIsa*> found;
#if defined(__x86_64__)
        if (has_avx512()) found.push_back(&attn_isa_avx512);
        if (has_avx2()) found.push_back(&attn_isa_avx2);
#elif defined(__aarch64__)
        found.push_back(&attn_isa_neon);
#endif
        found.push_back(&attn_isa_generic);
        found.push_back(nullptr);
        return found;
    }();
    return isas.data();
}

const AttnIsa* attn_isa(const char* name) {
    const AttnIsa* const* isa = attn_isas();
    if (!name || std::strcmp(name, "auto") == 0) return *isa;
    while (*isa && std::strcmp((*isa)->name, name) != 0) ++isa;
    return *isa;
}

// ------------------------------------------------------------------------------------------------------------- build

namespace {

constexpr int64_t min_chunk_keys = 256;  // below that, rotating the queries and merging cost more than they gain
constexpr double tasks_per_thread = 4;   // threads are noisy: who is late should have little left to do

int32_t round_up(int32_t n, int32_t to) { return (n + to - 1) / to * to; }
int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }

float* aligned_64(std::vector<float>& memory) {
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + ((64 - address % 64) % 64) / sizeof(float);
}

}  // namespace

void AttnPlan::build(const AttnIsa& isa, const AttnShape& shape, const AttnBlock* blocks, int32_t n_blocks,
                     const AttnPair* pairs, int32_t n_threads) {
    isa_ = &isa;
    shape_ = shape;
    n_threads_ = std::max(n_threads, 1);
    gather_tracks(blocks, n_blocks, pairs);
    add_idle_tokens();
    list_members();
    tile_tracks();
    reserve_memory();
    next_task_ = 0;
    n_left_ = 0;
}

// Blocks whose pairs name the same tokens share a track.
void AttnPlan::gather_tracks(const AttnBlock* blocks, int32_t n_blocks, const AttnPair* pairs) {
    pairs_.clear(), tokens_.clear(), segments_.clear(), tracks_.clear();
    block_pair_.assign(1, 0);
    for (const AttnBlock* block = blocks; block < blocks + n_blocks; ++block) {
        const AttnPair* first = pairs + block->first_pair;
        std::copy_if(first, first + block->n_pairs, std::back_inserter(pairs_),
                     [](const AttnPair& pair) { return pair.first < pair.last; });
        std::sort(pairs_.begin() + block_pair_.back(), pairs_.end(), [](const AttnPair& a, const AttnPair& b) {
            return a.token != b.token ? a.token < b.token : a.first < b.first;
        });
        block_pair_.push_back(static_cast<int32_t>(pairs_.size()));
    }
    block_track_.clear();
    for (size_t i = 0; i < static_cast<size_t>(n_blocks); ++i) {
        const int32_t n_pairs = block_pair_[i + 1] - block_pair_[i];
        block_track_.push_back(n_pairs ? find_track(&pairs_[static_cast<size_t>(block_pair_[i])], n_pairs) : -1);
    }
    for (int32_t i = 0; i < static_cast<int32_t>(tracks_.size()); ++i) add_segments(i, blocks, n_blocks);
}

int32_t AttnPlan::find_track(const AttnPair* pairs, int32_t n_pairs) {
    const auto same_token = [](int32_t token, const AttnPair& pair) { return token == pair.token; };
    for (size_t i = 0; i < tracks_.size(); ++i) {
        const auto tokens = tokens_.begin() + tracks_[i].first_token;
        if (std::equal(tokens, tokens + tracks_[i].n_tokens, pairs, pairs + n_pairs, same_token)) {
            return static_cast<int32_t>(i);
        }
    }
    Track track = {};
    track.first_token = static_cast<int32_t>(tokens_.size());
    track.n_tokens = n_pairs;
    for (const AttnPair* pair = pairs; pair < pairs + n_pairs; ++pair) tokens_.push_back(pair->token);
    tracks_.push_back(track);
    return static_cast<int32_t>(tracks_.size()) - 1;
}

void AttnPlan::add_segments(int32_t index, const AttnBlock* blocks, int32_t n_blocks) {
    Track& track = tracks_[static_cast<size_t>(index)];
    track.first_segment = static_cast<int32_t>(segments_.size());
    for (size_t i = 0; i < static_cast<size_t>(n_blocks); ++i) {
        if (block_track_[i] != index) continue;
        const AttnPair* pairs = &pairs_[static_cast<size_t>(block_pair_[i])];
        AttnSegment segment = {blocks[i].cell, pairs->first, pairs->last, track.n_keys, pairs};
        for (const AttnPair* pair = pairs; pair < pairs + track.n_tokens; ++pair) {
            segment.begin = std::min(segment.begin, pair->first);
            segment.end = std::max(segment.end, pair->last);
        }
        track.n_keys += segment.end - segment.begin;
        segments_.push_back(segment);
    }
    track.n_segments = static_cast<int32_t>(segments_.size()) - track.first_segment;
}

// Tokens that see nothing form a track without segments: their rows come out as zeros like any other row's result.
void AttnPlan::add_idle_tokens() {
    first_member_.assign(static_cast<size_t>(shape_.n_tokens) + 1, 0);
    for (const int32_t token : tokens_) ++first_member_[static_cast<size_t>(token) + 1];
    Track track = {};
    track.first_token = static_cast<int32_t>(tokens_.size());
    track.first_segment = static_cast<int32_t>(segments_.size());
    for (int32_t token = 0; token < shape_.n_tokens; ++token) {
        if (first_member_[static_cast<size_t>(token) + 1]) continue;
        tokens_.push_back(token);
        ++first_member_[static_cast<size_t>(token) + 1];
        ++track.n_tokens;
    }
    if (track.n_tokens) tracks_.push_back(track);
}

// Turns the counts left by add_idle_tokens into the lists of where each token is.
void AttnPlan::list_members() {
    for (size_t i = 1; i < first_member_.size(); ++i) first_member_[i] += first_member_[i - 1];
    members_.resize(tokens_.size());
    for (int32_t t = static_cast<int32_t>(tracks_.size()) - 1; t >= 0; --t) {  // backwards: the ends become the starts
        const Track& track = tracks_[static_cast<size_t>(t)];
        for (int32_t i = track.n_tokens - 1; i >= 0; --i) {
            const auto token = static_cast<size_t>(tokens_[static_cast<size_t>(track.first_token + i)]);
            members_[static_cast<size_t>(--first_member_[token + 1])] = {t, i};
        }
    }
    first_member_.erase(first_member_.begin());
    first_member_.push_back(static_cast<int32_t>(members_.size()));
}

// Rows times keys, in vectors. Causal tiles see fewer keys than their track has.
double AttnPlan::tile_cost(const Track& track, int32_t first_row, int32_t n_rows) const {
    const int32_t first = first_row / group(), last = (first_row + n_rows - 1) / group();
    double keys = 0;
    for (int32_t s = track.first_segment; s < track.first_segment + track.n_segments; ++s) {
        const AttnSegment& segment = segments_[static_cast<size_t>(s)];
        int32_t begin = segment.end, end = segment.begin;
        for (int32_t i = first; i <= last; ++i) {
            begin = std::min(begin, segment.pairs[i].first);
            end = std::max(end, segment.pairs[i].last);
        }
        keys += end - begin;
    }
    return keys * round_up(n_rows, isa_->width) + n_rows;
}

void AttnPlan::tile_tracks() {
    tiles_.clear();
    double total = 0;
    for (size_t t = 0; t < tracks_.size(); ++t) {
        Track& track = tracks_[t];
        const int32_t n_rows = track.n_tokens * group();
        const auto n_tiles = static_cast<int32_t>(ceil_div(n_rows, isa_->max_rows));
        const auto even = static_cast<int32_t>(ceil_div(n_rows, n_tiles));
        track.tile_rows = std::min(round_up(even, isa_->width), isa_->max_rows);
        for (int32_t row = 0; row < n_rows; row += track.tile_rows) {
            const int32_t n = std::min(track.tile_rows, n_rows - row);
            tiles_.push_back({static_cast<int32_t>(t), row, n, 0, tile_cost(track, row, n)});
            total += tiles_.back().cost * shape_.n_head_kv;
        }
    }
    const double wanted = total / (n_threads_ * tasks_per_thread);
    for (Track& track : tracks_) track.n_chunks = 1, track.chunk_keys = track.n_keys;
    for (const Tile& tile : tiles_) {
        Track& track = tracks_[static_cast<size_t>(tile.track)];
        const auto chunks = static_cast<int64_t>(std::ceil(tile.cost / wanted - 0.05));
        const int64_t most = std::max<int64_t>(track.n_keys / min_chunk_keys, 1);
        const int64_t keys = ceil_div(track.n_keys, std::clamp<int64_t>(chunks, 1, most));
        track.chunk_keys = std::min(track.chunk_keys, ceil_div(keys, isa_->tile_keys) * isa_->tile_keys);
    }
    const size_t n_tiles = tiles_.size();
    for (Track& track : tracks_) {
        if (track.chunk_keys) track.n_chunks = static_cast<int32_t>(ceil_div(track.n_keys, track.chunk_keys));
    }
    for (size_t i = 0; i < n_tiles; ++i) {
        const int32_t n_chunks = tracks_[static_cast<size_t>(tiles_[i].track)].n_chunks;
        tiles_[i].cost /= n_chunks;
        for (int32_t chunk = 1; chunk < n_chunks; ++chunk) {
            tiles_.push_back(tiles_[i]);
            tiles_.back().chunk = chunk;
        }
    }
    std::sort(tiles_.begin(), tiles_.end(), [](const Tile& a, const Tile& b) {
        if (a.cost != b.cost) return a.cost > b.cost;
        if (a.track != b.track) return a.track < b.track;
        return a.first_row != b.first_row ? a.first_row < b.first_row : a.chunk < b.chunk;
    });
}

int32_t AttnPlan::n_partials(int32_t token) const {
    int32_t n = 0;
    const auto t = static_cast<size_t>(token);
    for (auto i = static_cast<size_t>(first_member_[t]); i < static_cast<size_t>(first_member_[t + 1]); ++i) {
        n += tracks_[static_cast<size_t>(members_[i].track)].n_chunks;
    }
    return n;
}

void AttnPlan::reserve_memory() {
    max_partials_ = 1;
    int64_t n_partials_kept = 0;
    for (Track& track : tracks_) {
        int32_t most = 1;
        for (int32_t i = 0; i < track.n_tokens; ++i) {
            most = std::max(most, n_partials(tokens_[static_cast<size_t>(track.first_token + i)]));
        }
        max_partials_ = std::max(max_partials_, most);
        track.first_partial = most > 1 ? n_partials_kept : -1;
        if (most > 1) n_partials_kept += static_cast<int64_t>(track.n_chunks) * track.n_tokens * shape_.n_head;
    }
    const auto grow = [](std::vector<float>& memory, size_t n) {
        if (memory.size() < n) memory.resize(n);
    };
    grow(partials_, static_cast<size_t>(n_partials_kept * partial_size()));
    const auto n_threads = static_cast<size_t>(n_threads_);
    if (scratch_.size() < n_threads) scratch_.resize(n_threads);
    const size_t one_task = static_cast<size_t>(isa_->max_rows * partial_size());
    for (auto& scratch : scratch_) grow(scratch, isa_->scratch_floats(shape_) + one_task + 64 / sizeof(float));
    if (merge_list_.size() < n_threads * static_cast<size_t>(max_partials_)) {
        merge_list_.resize(n_threads * static_cast<size_t>(max_partials_));
    }
    const auto n_rows = static_cast<size_t>(shape_.n_tokens) * static_cast<size_t>(shape_.n_head);
    if (n_finished_ < n_rows) {
        finished_ = std::make_unique<std::atomic<int32_t>[]>(n_rows);
        n_finished_ = n_rows;
    }
    for (size_t i = 0; i < n_rows; ++i) finished_[i].store(0, std::memory_order_relaxed);
}

// --------------------------------------------------------------------------------------------------------------- run

float* AttnPlan::partial(const Track& track, int32_t chunk, int32_t kv_head, int64_t row) {
    const int64_t rows = static_cast<int64_t>(track.n_tokens) * group();
    const int64_t before = (static_cast<int64_t>(chunk) * shape_.n_head_kv + kv_head) * rows + row;
    return partials_.data() + (track.first_partial + before) * partial_size();
}

// One KV head after the other: its cells stay in cache.
AttnTask AttnPlan::task(int64_t id) const {
    const auto n_tiles = static_cast<int64_t>(tiles_.size());
    const Tile& tile = tiles_[static_cast<size_t>(id % n_tiles)];
    const Track& track = tracks_[static_cast<size_t>(tile.track)];
    const auto kv_head = static_cast<int32_t>(id / n_tiles);
    const int64_t key_begin = tile.chunk * track.chunk_keys;
    const int64_t key_end = std::min(key_begin + track.chunk_keys, track.n_keys);
    const AttnSegment* segments = segments_.data() + track.first_segment;
    return {segments, track.n_segments, kv_head, tile.first_row, tile.n_rows, key_begin, key_end, nullptr};
}

// later: likely the thread's next task.
void AttnPlan::run_task(int64_t id, int64_t later, const AttnTensors& tensors, int32_t ith) {
    const Tile& tile = tiles_[static_cast<size_t>(id % static_cast<int64_t>(tiles_.size()))];
    const Track& track = tracks_[static_cast<size_t>(tile.track)];
    float* scratch = aligned_64(scratch_[static_cast<size_t>(ith)]);
    const bool alone = track.first_partial < 0;
    AttnTask task = this->task(id);
    const int32_t kv_head = task.kv_head;
    float* partial =
        alone ? scratch + isa_->scratch_floats(shape_) : this->partial(track, tile.chunk, kv_head, tile.first_row);
    AttnTask next;
    if (later < n_tasks()) {
        next = this->task(later);
        task.later = &next;
    }
    isa_->run(shape_, tensors, task, scratch, partial);

    for (int32_t i = 0; i < tile.n_rows; ++i) {
        const int32_t row = tile.first_row + i;
        const int32_t token = tokens_[static_cast<size_t>(track.first_token + row / group())];
        const int32_t head = kv_head * group() + row % group();
        merge_row(token, head, alone ? partial + i * partial_size() : nullptr, tensors, ith);
    }
}

// Adds up the partials of a row, if all are there. only: the one partial of a row that has no other.
void AttnPlan::merge_row(int32_t token, int32_t head, const float* only, const AttnTensors& tensors, int32_t ith) {
    const float** list = &merge_list_[static_cast<size_t>(ith) * static_cast<size_t>(max_partials_)];
    const int64_t out_row = static_cast<int64_t>(token) * shape_.n_head + head;
    int32_t n = 0;
    if (only) {
        list[n++] = only;
    } else {
        std::atomic<int32_t>& finished = finished_[static_cast<size_t>(out_row)];
        if (finished.fetch_add(1, std::memory_order_acq_rel) + 1 < n_partials(token)) return;
        finished.store(0, std::memory_order_relaxed);  // for the next layer
        for (int32_t i = first_member_[static_cast<size_t>(token)]; i < first_member_[static_cast<size_t>(token) + 1];
             ++i) {
            const Member& member = members_[static_cast<size_t>(i)];
            const Track& track = tracks_[static_cast<size_t>(member.track)];
            const int64_t row = static_cast<int64_t>(member.index) * group() + head % group();
            for (int32_t c = 0; c < track.n_chunks; ++c) list[n++] = partial(track, c, head / group(), row);
        }
    }
    float largest = tensors.sinks ? tensors.sinks[head] : -FLT_MAX;
    for (int32_t i = 0; i < n; ++i) largest = std::max(largest, list[i][0]);
    float total = tensors.sinks ? std::exp(tensors.sinks[head] - largest) : 0.0f;
    float* out = tensors.out + out_row * shape_.d_v;
    std::fill_n(out, shape_.d_v, 0.0f);
    for (int32_t i = 0; i < n; ++i) {
        if (list[i][1] == 0.0f) continue;
        const float weight = std::exp(list[i][0] - largest);
        total += weight * list[i][1];
        for (int32_t d = 0; d < shape_.d_v; ++d) out[d] += weight * list[i][attn_partial_extra + d];
    }
    const float inverse = total > 0.0f ? 1.0f / total : 0.0f;
    for (int32_t d = 0; d < shape_.d_v; ++d) out[d] *= inverse;
}

void attn_run(AttnPlan& plan, const AttnTensors& tensors, int32_t ith, int32_t nth) {
    const int32_t n = std::min(nth, plan.n_threads_);
    if (ith >= n) return;
    const int64_t n_tasks = plan.n_tasks();
    for (int64_t id; (id = plan.next_task_.fetch_add(1, std::memory_order_relaxed)) < n_tasks;) {
        plan.run_task(id, id + n, tensors, ith);
    }
    if (plan.n_left_.fetch_add(1, std::memory_order_acq_rel) + 1 == n) {
        plan.n_left_.store(0, std::memory_order_relaxed);
        plan.next_task_.store(0, std::memory_order_relaxed);
    }
}

}  // namespace hw
