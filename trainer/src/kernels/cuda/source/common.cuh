// What all kernels share: numbers, vectors of them, sums within a block.
//
// No kernel adds with atomics, and every sum has one order, which hangs on sizes alone: the same numbers give the same bits
// on the same GPU. `tests/emulated_gpu` compiles these files for a CPU, so they name nothing of CUDA that it does not have.
#pragma once

#ifdef EMULATED
#include "emulated.h"
#else
#include <cuda_bf16.h>
#include <stdint.h>

#define DYNAMIC_SHARED(type, name)                                     \
    extern __shared__ __align__(16) unsigned char dynamic_shared[];    \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#define KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
#endif

typedef __nv_bfloat16 bf16;

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(bf16 x) { return __bfloat162float(x); }

// The nearest number of a type.
template <class T> __device__ __forceinline__ T nearest(float x);
template <> __device__ __forceinline__ float nearest<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 nearest<bf16>(float x) { return __float2bfloat16_rn(x); }

// V numbers that are read and written at once.
template <class T, int V> struct alignas(sizeof(T) * V) Vector {
    T at[V];
};

template <class T, int V> __device__ __forceinline__ void load(const T* from, float (&to)[V]) {
    Vector<T, V> vector = *reinterpret_cast<const Vector<T, V>*>(from);
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = number(vector.at[i]);
}

template <class T, int V> __device__ __forceinline__ void store(T* to, const float (&from)[V]) {
    Vector<T, V> vector;
#pragma unroll
    for (int i = 0; i < V; i++) vector.at[i] = nearest<T>(from[i]);
    *reinterpret_cast<Vector<T, V>*>(to) = vector;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
    return x;
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
    return x;
}

__device__ __forceinline__ float warp_largest(float x) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lane));
    return x;
}

// The sum over a block of whole warps, for all its threads.
template <class N> __device__ __forceinline__ N block_sum(N x) {
    __shared__ N sums[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) sums[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? sums[lane] : N(0));
}

// For operations on either type, with vectors and without.
#define FOR_EACH_TYPE(KERNELS) KERNELS(f32, float) KERNELS(bf16, bf16)
#define FOR_EACH_VECTOR(KERNELS) \
    KERNELS(f32, float, 1, one) KERNELS(bf16, bf16, 1, one) KERNELS(f32, float, 4, four) KERNELS(bf16, bf16, 4, four)
