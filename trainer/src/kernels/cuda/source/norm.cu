// RMS norm over the last dimension, with the sum of the residual stream before it; the stream is f32.
#include "common.cuh"

// stream' = stream + branch, where there is a branch; normed = stream' / rms(stream') * weight. A block a row.
template <class T, int V>
__device__ void norm_forward(const float* stream, const T* branch, const float* weight, float* sum, T* normed, float* scales,
                             int width, float eps) {
    size_t row = (size_t)blockIdx.x * width;
    float squares = 0;
    for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
        float x[V];
        load<float, V>(stream + row + i, x);
        if (branch) {
            float added[V];
            load<T, V>(branch + row + i, added);
#pragma unroll
            for (int j = 0; j < V; j++) x[j] += added[j];
            store<float, V>(sum + row + i, x);
        }
#pragma unroll
        for (int j = 0; j < V; j++) squares += x[j] * x[j];
    }
    float scale = 1.0f / sqrtf(block_sum(squares) / width + eps);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    const float* from = branch ? sum : stream;
    for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
        float x[V], w[V];
        load<float, V>(from + row + i, x);
        load<float, V>(weight + i, w);
#pragma unroll
        for (int j = 0; j < V; j++) x[j] = x[j] * scale * w[j];
        store<T, V>(normed + row + i, x);
    }
}

// A norm's output once more, from what its forward left.
template <class T, int V>
__device__ void norm_again(const float* stream, const float* scales, const float* weight, T* normed, int width) {
    size_t row = (size_t)blockIdx.x * width;
    float scale = scales[blockIdx.x];
    for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
        float x[V], w[V];
        load<float, V>(stream + row + i, x);
        load<float, V>(weight + i, w);
#pragma unroll
        for (int j = 0; j < V; j++) x[j] = x[j] * scale * w[j];
        store<T, V>(normed + row + i, x);
    }
}

// The gradient of the stream gets what comes through the norm, and is rounded for the products before it; the block's share
// of the weight's gradient is one row of `partial`. A block takes every gridDim.x-th row.
template <class T, int V>
__device__ void norm_backward(const T* dnormed, const float* stream, const float* scales, const float* weight, float* dstream,
                              T* rounded, float* partial, int rows, int width) {
    DYNAMIC_SHARED(float, dweight);
    for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
#pragma unroll
        for (int j = 0; j < V; j++) dweight[i + j] = 0;
    }
    for (int number = blockIdx.x; number < rows; number += gridDim.x) {
        size_t row = (size_t)number * width;
        float scale = scales[number], along = 0;
        for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
            float dy[V], x[V], w[V];
            load<T, V>(dnormed + row + i, dy);
            load<float, V>(stream + row + i, x);
            load<float, V>(weight + i, w);
#pragma unroll
            for (int j = 0; j < V; j++) {
                float unit = x[j] * scale;
                along += dy[j] * w[j] * unit;
                dweight[i + j] += dy[j] * unit;
            }
        }
        along = block_sum(along) / width;
        for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
            float dy[V], x[V], w[V], dx[V];
            load<T, V>(dnormed + row + i, dy);
            load<float, V>(stream + row + i, x);
            load<float, V>(weight + i, w);
            load<float, V>(dstream + row + i, dx);
#pragma unroll
            for (int j = 0; j < V; j++) dx[j] += (dy[j] * w[j] - x[j] * scale * along) * scale;
            store<float, V>(dstream + row + i, dx);
            store<T, V>(rounded + row + i, dx);
        }
    }
    for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
        float sums[V];
#pragma unroll
        for (int j = 0; j < V; j++) sums[j] = dweight[i + j];
        store<float, V>(partial + (size_t)blockIdx.x * width + i, sums);
    }
}

// The sums of the columns of (rows, columns), added to what is there where `add`: 32 columns a block, in 32 strips of rows.
KERNEL(column_sums, const float* partial, float* sums, int rows, int columns, int add) {
    __shared__ float strips[32][33];
    int lane = threadIdx.x % 32, strip = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    float sum = 0;
    if (column < columns) {
        for (int row = strip; row < rows; row += 32) sum += partial[(size_t)row * columns + column];
    }
    strips[strip][lane] = sum;
    __syncthreads();
    sum = warp_sum(strips[lane][strip]);
    column = blockIdx.x * 32 + strip;
    if (lane == 0 && column < columns) sums[column] = add ? sums[column] + sum : sum;
}

#define NORMS(name, T, V, word)                                                                                             \
    KERNEL(norm_forward_##name##_##word, const float* stream, const T* branch, const float* weight, float* sum, T* normed,   \
           float* scales, int width, float eps) {                                                                           \
        norm_forward<T, V>(stream, branch, weight, sum, normed, scales, width, eps);                                        \
    }                                                                                                                       \
    KERNEL(norm_again_##name##_##word, const float* stream, const float* scales, const float* weight, T* normed, int width) { \
        norm_again<T, V>(stream, scales, weight, normed, width);                                                            \
    }                                                                                                                       \
    KERNEL(norm_backward_##name##_##word, const T* dnormed, const float* stream, const float* scales, const float* weight,   \
           float* dstream, T* rounded, float* partial, int rows, int width) {                                               \
        norm_backward<T, V>(dnormed, stream, scales, weight, dstream, rounded, partial, rows, width);                       \
    }
FOR_EACH_VECTOR(NORMS)
