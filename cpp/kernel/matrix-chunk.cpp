#include "kernel/matrix-chunk.h"

#include "kernel/delta-chunk.h"
#include "kernel/vector-chunk.h"

namespace hw {

namespace {

bool is_scalar(const RecurrenceShape& shape) { return shape.kind == RecurrenceKind::delta && shape.n_decay == 1; }

}  // namespace

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
