#if defined(__x86_64__)
#define HW_COLUMNS columns_avx512
#include "kernel/columns-impl.h"
#endif
