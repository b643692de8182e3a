// silu(gate) * up, with gate and up side by side in a row of `gate_up`, `inner` wide each.
#include "common.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T, int V> __device__ void swiglu_forward(const T* gate_up, T* out, int rows, int inner) {
    int vectors = inner / V;
    size_t all = (size_t)rows * vectors;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (size_t)gridDim.x * blockDim.x) {
        size_t row = i / vectors, column = i % vectors * V;
        float gate[V], up[V];
        load<T, V>(gate_up + row * 2 * inner + column, gate);
        load<T, V>(gate_up + row * 2 * inner + inner + column, up);
#pragma unroll
        for (int j = 0; j < V; j++) gate[j] = gate[j] * sigmoid(gate[j]) * up[j];
        store<T, V>(out + row * inner + column, gate);
    }
}

// The gradients of gate and up take their places.
template <class T, int V> __device__ void swiglu_backward(const T* dout, T* gate_up, int rows, int inner) {
    int vectors = inner / V;
    size_t all = (size_t)rows * vectors;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (size_t)gridDim.x * blockDim.x) {
        size_t row = i / vectors, column = i % vectors * V;
        float gate[V], up[V], dy[V];
        load<T, V>(gate_up + row * 2 * inner + column, gate);
        load<T, V>(gate_up + row * 2 * inner + inner + column, up);
        load<T, V>(dout + row * inner + column, dy);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float s = sigmoid(gate[j]), silu = gate[j] * s;
            gate[j] = dy[j] * up[j] * (s + silu * (1.0f - s));
            up[j] = dy[j] * silu;
        }
        store<T, V>(gate_up + row * 2 * inner + column, gate);
        store<T, V>(gate_up + row * 2 * inner + inner + column, up);
    }
}

#define SWIGLUS(name, T, V, word)                                                                  \
    KERNEL(swiglu_forward_##name##_##word, const T* gate_up, T* out, int rows, int inner) {        \
        swiglu_forward<T, V>(gate_up, out, rows, inner);                                           \
    }                                                                                              \
    KERNEL(swiglu_backward_##name##_##word, const T* dout, T* gate_up, int rows, int inner) {      \
        swiglu_backward<T, V>(dout, gate_up, rows, inner);                                         \
    }
FOR_EACH_VECTOR(SWIGLUS)
