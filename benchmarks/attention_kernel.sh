#!/bin/sh
# Builds and runs attention_kernel.cpp.  PREFIX: where llama-cpp-python is installed (site-packages).
# Usage: benchmarks/attention_kernel.sh [isa] [threads] [all | decode | prefill] [cells]
set -e
here=$(cd "$(dirname "$0")" && pwd)
prefix=${PREFIX:-$(python3 -c 'import cffi, os; print(os.path.dirname(os.path.dirname(cffi.__file__)))')}
build=${TMPDIR:-/tmp}/hogwild-attention-benchmark
mkdir -p "$build"
compile() { g++ -std=c++17 -O3 -I"$prefix/include" -I"$here/../cpp" -I"$here/../cpp/include" "$@"; }
cd "$here/../cpp/kernel"
if [ "$(uname -m)" = x86_64 ]; then
    compile -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -c avx512.cpp -o "$build/avx512.o"
    compile -mavx2 -mfma -mf16c -c avx2.cpp -o "$build/avx2.o"
fi
for name in cpu neon generic plan plain; do compile -c "$name.cpp" -o "$build/$name.o"; done
compile -march=native "$here/attention_kernel.cpp" "$build"/*.o -L"$prefix/llama_cpp/lib" -l:libggml-base.so.0 \
    -Wl,-rpath,"$prefix/llama_cpp/lib" -pthread -o "$build/attention_kernel"
exec "$build/attention_kernel" "$@"
