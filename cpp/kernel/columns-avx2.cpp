#if defined(__x86_64__)
#define HW_COLUMNS columns_avx2
#include "kernel/columns-impl.h"
#endif
