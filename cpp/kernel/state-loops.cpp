#include "kernel/state-loops.h"

#include "kernel/cpu.h"

namespace hw {

extern const StateLoops state_loops_generic;  // each in a source of its own, compiled with its own flags
#if defined(__x86_64__)
extern const StateLoops state_loops_avx2;
extern const StateLoops state_loops_avx512;
#endif

const StateLoops& state_loops() {
#if defined(__x86_64__)
    static const bool avx2 = has_avx2();
    static const bool avx512 = has_avx512();
    if (avx512) return state_loops_avx512;
    if (avx2) return state_loops_avx2;
#endif
    return state_loops_generic;
}

}  // namespace hw
