// The passes over all parameters. They are cut into chunks of one length, and a block takes a chunk, whoever's it is.
#include "common.cuh"

constexpr size_t CHUNK = 1 << 16;

// A parameter, with all that its update needs.
struct Parameter {
    float* values;
    const float* gradient;
    float* exp_avg;
    float* exp_avg_sq;
    unsigned long long count;
    unsigned long long decays;
};

// What is the same for all elements.
struct Update {
    float beta1, take1, beta2, take2, scale, keep, keep_decayed, step, root, eps;
};

// AdamW of the chunk chunks[2 b + 1] of the parameter chunks[2 b], for block b.
KERNEL(adamw, const Parameter* parameters, const uint32_t* chunks, const Update* update) {
    Parameter parameter = parameters[chunks[2 * blockIdx.x]];
    Update u = *update;
    size_t first = chunks[2 * blockIdx.x + 1] * CHUNK, end = first + CHUNK;
    if (end > parameter.count) end = parameter.count;
    float keep = parameter.decays ? u.keep_decayed : u.keep;
    for (size_t i = first + threadIdx.x; i < end; i += blockDim.x) {
        float gradient = parameter.gradient[i], scaled = gradient * u.scale;
        float m = parameter.exp_avg[i] * u.beta1 + u.take1 * gradient;
        float v = parameter.exp_avg_sq[i] * u.beta2 + u.take2 * scaled * scaled;
        parameter.exp_avg[i] = m;
        parameter.exp_avg_sq[i] = v;
        parameter.values[i] = parameter.values[i] * keep - u.step * m / (sqrtf(v) / u.root + u.eps);
    }
}

// The sum of the squares of each chunk of the gradients.
KERNEL(squares, const Parameter* parameters, const uint32_t* chunks, double* sums) {
    Parameter parameter = parameters[chunks[2 * blockIdx.x]];
    size_t first = chunks[2 * blockIdx.x + 1] * CHUNK, end = first + CHUNK;
    if (end > parameter.count) end = parameter.count;
    double sum = 0;
    for (size_t i = first + threadIdx.x; i < end; i += blockDim.x) {
        double x = parameter.gradient[i];
        sum += x * x;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// sum += x
KERNEL(accumulate, float* sum, const float* x, unsigned long long count) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
        sum[i] += x[i];
    }
}

// The nearest numbers of a type.
template <class T, int V> __device__ void round_all(const float* from, T* to, unsigned long long count) {
    size_t all = count / V;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (size_t)gridDim.x * blockDim.x) {
        float x[V];
        load<float, V>(from + i * V, x);
        store<T, V>(to + i * V, x);
    }
}

#define ROUNDINGS(name, T, V, word)                                                                     \
    KERNEL(round_##name##_##word, const float* from, T* to, unsigned long long count) {                 \
        round_all<T, V>(from, to, count);                                                               \
    }
FOR_EACH_VECTOR(ROUNDINGS)
