# Our kernels, once for each instruction set: only these sources may use what not every CPU has.
target_sources(hogwild_core PRIVATE cpp/kernel/generic.cpp cpp/kernel/avx2.cpp cpp/kernel/avx512.cpp cpp/kernel/neon.cpp
               cpp/kernel/state-loops-generic.cpp cpp/kernel/state-loops-avx2.cpp cpp/kernel/state-loops-avx512.cpp
               cpp/kernel/product-avx2.cpp cpp/kernel/product-rows-avx2.cpp cpp/kernel/product-six-avx2.cpp)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set_source_files_properties(cpp/kernel/avx2.cpp cpp/kernel/state-loops-avx2.cpp cpp/kernel/product-avx2.cpp
    cpp/kernel/product-rows-avx2.cpp cpp/kernel/product-six-avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(cpp/kernel/avx512.cpp cpp/kernel/state-loops-avx512.cpp PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma;-mf16c")
endif()
