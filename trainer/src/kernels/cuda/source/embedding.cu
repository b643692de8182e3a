// Rows of the embedding, and the sums of their gradients.
#include "common.cuh"

// A block a token.
template <int V> __device__ void embedding_forward(const float* weight, const uint32_t* tokens, float* out, int width) {
    size_t from = (size_t)tokens[blockIdx.x] * width, to = (size_t)blockIdx.x * width;
    for (int i = threadIdx.x * V; i < width; i += blockDim.x * V) {
        float x[V];
        load<float, V>(weight + from + i, x);
        store<float, V>(out + to + i, x);
    }
}

// Added to the gradient of each token that occurs: the gradients at its places, in their order. Places are sorted by token;
// those of the blockIdx.x-th token that occurs are the ones from starts[blockIdx.x] to the next token's start.
template <int V>
__device__ void embedding_backward(const float* dout, const uint32_t* tokens, const uint32_t* starts, const uint32_t* places,
                                   float* dweight, int width) {
    uint32_t first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    size_t row = (size_t)tokens[blockIdx.x] * width;
    for (int i = (blockIdx.y * blockDim.x + threadIdx.x) * V; i < width; i += gridDim.y * blockDim.x * V) {
        float sum[V];
        load<float, V>(dweight + row + i, sum);
        for (uint32_t place = first; place < end; place++) {
            float x[V];
            load<float, V>(dout + (size_t)places[place] * width + i, x);
#pragma unroll
            for (int j = 0; j < V; j++) sum[j] += x[j];
        }
        store<float, V>(dweight + row + i, sum);
    }
}

#define EMBEDDINGS(V, word)                                                                                           \
    KERNEL(embedding_forward_##word, const float* weight, const uint32_t* tokens, float* out, int width) {            \
        embedding_forward<V>(weight, tokens, out, width);                                                             \
    }                                                                                                                 \
    KERNEL(embedding_backward_##word, const float* dout, const uint32_t* tokens, const uint32_t* starts,              \
           const uint32_t* places, float* dweight, int width) {                                                       \
        embedding_backward<V>(dout, tokens, starts, places, dweight, width);                                          \
    }
EMBEDDINGS(1, one)
EMBEDDINGS(4, four)
