// Cross-entropy of f32 logits, and its gradient; sums of losses.
#include "common.cuh"

// nats = logsumexp(logits) - logits[target]; where a gradient is wanted, it is `scale` times that of the sum of the nats. A
// block a row; the largest logit and the sum of the exponentials under it come from one pass.
template <class T>
__device__ void cross_entropy(const float* logits, const uint32_t* targets, float* nats, T* gradient, int vocabulary,
                              float scale) {
    __shared__ float largest_of[32], sum_of[32];
    const float* row = logits + (size_t)blockIdx.x * vocabulary;
    int target = targets[blockIdx.x];
    float largest = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        float x = row[i];
        if (x > largest) {
            sum = sum * expf(largest - x) + 1.0f;
            largest = x;
        } else {
            sum += expf(x - largest);
        }
    }
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float most = warp_largest(largest);
    // Threads without a logit have nothing to add; a logit that is no number makes the loss none.
    sum = warp_sum((int)threadIdx.x < vocabulary ? sum * expf(largest - most) : 0.0f);
    if (lane == 0) {
        largest_of[warp] = most;
        sum_of[warp] = sum;
    }
    __syncthreads();
    bool has = lane < warps && lane * 32 < vocabulary;
    float peak = has ? largest_of[lane] : -INFINITY;
    most = warp_largest(peak);
    sum = warp_sum(has ? sum_of[lane] * expf(peak - most) : 0.0f);
    float normaliser = most + logf(sum);
    if (threadIdx.x == 0) nats[blockIdx.x] = normaliser - row[target];
    if (!gradient) return;
    T* slopes = gradient + (size_t)blockIdx.x * vocabulary;
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        slopes[i] = nearest<T>((expf(row[i] - normaliser) - (i == target ? 1.0f : 0.0f)) * scale);
    }
}

// sum += all of `numbers`, in f64. One block.
KERNEL(add_all, const float* numbers, double* sum, int count) {
    double all = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) all += numbers[i];
    all = block_sum(all);
    if (threadIdx.x == 0) sum[0] += all;
}

#define LOSSES(name, T)                                                                                               \
    KERNEL(cross_entropy_##name, const float* logits, const uint32_t* targets, float* nats, T* gradient,              \
           int vocabulary, float scale) {                                                                             \
        cross_entropy<T>(logits, targets, nats, gradient, vocabulary, scale);                                         \
    }
FOR_EACH_TYPE(LOSSES)
