#include "kernel/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace hw {

#if defined(__x86_64__)

namespace {

// Those whose names not every compiler knows. Their registers are AVX2's.
bool has_f16c() {
    unsigned r[4] = {};
    return __get_cpuid(1, &r[0], &r[1], &r[2], &r[3]) != 0 && (r[2] >> 29 & 1) != 0;
}

bool has_vex_vnni() {
    unsigned r[4] = {};
    return __get_cpuid_count(7, 1, &r[0], &r[1], &r[2], &r[3]) != 0 && (r[0] >> 4 & 1) != 0;
}

}  // namespace

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool has_avx_vnni() { return has_avx2() && has_vex_vnni(); }

#else

bool has_avx2() { return false; }
bool has_avx512() { return false; }
bool has_avx512_vnni() { return false; }
bool has_avx_vnni() { return false; }

#endif

}  // namespace hw
