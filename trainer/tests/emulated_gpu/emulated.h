// What the kernels use of CUDA, for a CPU. The threads of a block take turns on one thread of this machine: a warp runs until
// all of it waits for the block, so a kernel that forgot to wait gives other numbers when the turns are taken in another order.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
// The threads of a block are one thread here.
#define __shared__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __restrict__

inline int min(int x, int y) { return x < y ? x : y; }

struct Index {
    unsigned x = 0, y = 0;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;

struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return {0x7fff};
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

namespace emulated {
void wait_for_block();
// Puts a value down for the other lanes of this thread's warp, waits for theirs, and returns all 32.
const uint64_t* exchange(uint64_t value);
void* shared_memory();

using Words = const uint64_t*;
using Call = void (*)(Words);
struct Registered {
    Registered(const char* name, Call call, unsigned arguments);
};

template <class A> A argument(uint64_t word) {
    A value;
    static_assert(sizeof(A) <= sizeof(word));
    memcpy(&value, &word, sizeof(A));
    return value;
}
template <class... A, size_t... I> void call_with(void (*kernel)(A...), Words words, std::index_sequence<I...>) {
    kernel(argument<A>(words[I])...);
}
template <class... A> void call_with(void (*kernel)(A...), Words words) {
    call_with(kernel, words, std::index_sequence_for<A...>());
}
template <auto kernel> void call(Words words) { call_with(kernel, words); }
template <class... A> constexpr unsigned arguments(void (*)(A...)) { return sizeof...(A); }
}  // namespace emulated

#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(emulated::shared_memory())
#define KERNEL(name, ...)                                                                                          \
    static void name(__VA_ARGS__);                                                                                 \
    static emulated::Registered registered_##name(#name, emulated::call<&name>, emulated::arguments(&name));       \
    static void name(__VA_ARGS__)

inline void __syncthreads() { emulated::wait_for_block(); }
inline void __syncwarp(unsigned = ~0u) { emulated::exchange(0); }

template <class T> T __shfl_sync(unsigned, T value, int lane) {
    uint64_t word = 0;
    memcpy(&word, &value, sizeof(T));
    return emulated::argument<T>(emulated::exchange(word)[lane & 31]);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    return __shfl_sync(mask, value, (int)(threadIdx.x % 32) ^ lanes);
}
