// Which instruction sets kernels may use: those that the CPU has and the system saves registers for.
#pragma once

namespace hw {

bool has_avx2();    // with FMA and F16C
bool has_avx512();  // with BW, DQ and VL: what server CPUs have had from the first on
bool has_avx512_vnni();
bool has_avx_vnni();

}  // namespace hw
