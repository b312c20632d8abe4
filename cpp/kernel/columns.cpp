#include "kernel/columns.h"

namespace hw {

extern const ColumnLoops columns_generic;  // each in a source of its own, compiled with its own flags
#if defined(__x86_64__)
extern const ColumnLoops columns_avx2;
extern const ColumnLoops columns_avx512;
#endif

const ColumnLoops& column_loops() {
#if defined(__x86_64__)
    static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    static const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512) return columns_avx512;
    if (avx2) return columns_avx2;
#endif
    return columns_generic;
}

}  // namespace hw
