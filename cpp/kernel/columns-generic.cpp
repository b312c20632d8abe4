#define HW_COLUMNS columns_generic
#include "kernel/columns-impl.h"
