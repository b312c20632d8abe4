# Our kernels, once for each instruction set: only these sources may use what not every CPU has.
target_sources(hogwild_core PRIVATE cpp/kernel/generic.cpp cpp/kernel/avx2.cpp cpp/kernel/avx512.cpp cpp/kernel/neon.cpp
               cpp/kernel/state-loops-generic.cpp cpp/kernel/state-loops-avx2.cpp cpp/kernel/state-loops-avx512.cpp
               cpp/kernel/product-avx2.cpp cpp/kernel/product-avx512-vnni.cpp cpp/kernel/product-rows-avx2.cpp)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(HW_AVX2 -mavx2 -mfma -mf16c)
  set(HW_AVX512 -mavx512f -mavx512bw -mavx512vl -mfma -mf16c)
  # GCC would move loads and sums of a tile to where registers run out: products took up to 1.15 times as long.
  set(HW_PRODUCT $<$<CXX_COMPILER_ID:GNU>:-fno-tree-reassoc> $<$<CXX_COMPILER_ID:GNU>:-fno-tree-ter>)
  set_source_files_properties(cpp/kernel/avx2.cpp cpp/kernel/state-loops-avx2.cpp cpp/kernel/product-rows-avx2.cpp
    PROPERTIES COMPILE_OPTIONS "${HW_AVX2}")
  set_source_files_properties(cpp/kernel/avx512.cpp cpp/kernel/state-loops-avx512.cpp
    PROPERTIES COMPILE_OPTIONS "${HW_AVX512};-mavx512dq")
  set_source_files_properties(cpp/kernel/product-avx2.cpp PROPERTIES COMPILE_OPTIONS "${HW_AVX2};${HW_PRODUCT}")
  set_source_files_properties(cpp/kernel/product-avx512-vnni.cpp
    PROPERTIES COMPILE_OPTIONS "${HW_AVX512};-mavx512vnni;${HW_PRODUCT}")
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-mavxvnni HOGWILD_AVX_VNNI)  # from GCC 11 and Clang 12 on
  if(HOGWILD_AVX_VNNI)
    target_sources(hogwild_core PRIVATE cpp/kernel/product-avx-vnni.cpp)
    target_compile_definitions(hogwild_core PRIVATE HW_AVX_VNNI)
    set_source_files_properties(cpp/kernel/product-avx-vnni.cpp
      PROPERTIES COMPILE_OPTIONS "${HW_AVX2};-mavxvnni;${HW_PRODUCT}")
  endif()
endif()
