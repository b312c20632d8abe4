#include "kernel/matrix-chunk.h"

#include <algorithm>

#include "kernel/delta-chunk.h"
#include "kernel/vector-chunk.h"

namespace hw {

namespace {

bool is_scalar(const RecurrenceShape& shape) { return shape.kind == RecurrenceKind::delta && shape.n_decay == 1; }

}  // namespace

void MatrixChunk::read(const float* matrix, int64_t n, int64_t n_used, float* reads, int64_t reads_row) const {
    for (int64_t i = 0; i < n_; i++) {
        std::fill_n(reads + i * reads_row, n, 0.0f);
    }
    loops_.multiply(n_, n, shape_.d_k, {queries_, shape_.d_k, 1}, matrix, n, reads, reads_row);
    loops_.multiply(n_, n, n_used, {among_queries_, n_sources_, 1}, changes_, n, reads, reads_row);
}

std::unique_ptr<MatrixChunk> make_chunk(const RecurrenceShape& shape, float* scratch) {
    if (is_scalar(shape)) {
        return std::make_unique<DeltaChunk>(shape, scratch);
    }
    return std::make_unique<VectorChunk>(shape, scratch);
}

size_t chunk_floats(const RecurrenceShape& shape) {
    return is_scalar(shape) ? DeltaChunk::n_floats(shape) : VectorChunk::n_floats(shape);
}

}  // namespace hw
