// The C boundary of run-ahead prefill.
#include "api/handles.h"

using hw::answer;
using hw::guard;
using hw::not_null;
using hw::of;

extern "C" {

int32_t hw_cache_n_layers(hw_cache* cache) {
    return answer(-1, [&] { return of(cache).n_layers(); });
}

size_t hw_cache_layer_bytes(hw_cache* cache, int32_t layer, int32_t n) {
    return answer<size_t>(0, [&] {
        const bool is_there = layer >= 0 && layer < of(cache).n_layers() && n >= 0;
        return is_there ? of(cache).layer_bytes(layer, n) : 0;
    });
}

bool hw_cache_is_windowed(hw_cache* cache, int32_t layer) {
    return answer(false, [&] { return layer >= 0 && layer < of(cache).n_layers() && of(cache).is_windowed(layer); });
}

hw_status hw_decode_chunk(hw_cache* cache, const hw_view* view, const hw_chunk* chunk, char* err, size_t err_size) {
    return guard(err, err_size, [&] { of(cache).decode_chunk(not_null(view, "view"), not_null(chunk, "chunk")); });
}

}  // extern "C"
