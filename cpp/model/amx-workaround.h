// GCC before 12.4 and 13.3 drops the stores that fill a tile configuration (GCC bug 114098), so that ggml's AMX
// kernels, built with it, fault in their first instruction. llama.cpp is built on the user's machine, mostly by the
// compiler that builds this file; where that one has the bug, AMX is taken off the list of the buffer types that
// llama.cpp offers weights to, and its other kernels for quantized weights serve.
#pragma once

namespace hw {

// To be called before a model is loaded. Does nothing with a sound compiler or without AMX.
void avoid_broken_amx();

}  // namespace hw
