// Causal attention with grouped heads, forward and backward, for any width of a head up to 256, in either type: no scores are
// kept, and no sum depends on which block is first.
//
// A warp has two rows of its own (queries forward and for their gradient, keys for theirs), lanes are the 32 rows of a tile that
// all warps look at. Heads of common widths in bf16 have kernels that are faster (tensor_core_attention.cu).
#include "heads.cuh"

constexpr int TILE = 32, WARPS = 8, OWN = 2, ROWS = WARPS * OWN, SPANS = 8;

// Rows of shared memory are one element longer than a head, so that lanes which read a column meet no bank twice.
__device__ __forceinline__ int row_of(int width) { return width + 1; }

// `count` rows to shared memory, from the one at `first`, `stride` apart; zeros behind the last one that exists.
template <class T>
__device__ void fetch(const T* from, int stride, int first, int exist, int count, int width, float* to) {
    for (int i = threadIdx.x; i < count * width; i += blockDim.x) {
        int row = i / width, column = i % width;
        to[row * row_of(width) + column] = first + row < exist ? number(from[(size_t)row * stride + column]) : 0.0f;
    }
}

__device__ __forceinline__ float dot(const float* a, const float* b, int width) {
    float sum = 0;
    for (int i = 0; i < width; i++) sum += a[i] * b[i];
    return sum;
}

// sum[j] += the sum over the tile's rows k of `share` of lane k times column lane + 32 j of row k.
__device__ __forceinline__ void add_rows(float (&sum)[SPANS], float share, const float* rows, int width) {
    int lane = threadIdx.x % 32;
    for (int k = 0; k < TILE; k++) {
        float p = __shfl_sync(~0u, share, k);
#pragma unroll
        for (int j = 0; j < SPANS; j++) {
            int column = lane + 32 * j;
            if (column < width) sum[j] += p * rows[k * row_of(width) + column];
        }
    }
}

// Blocks: sequences times heads, tiles of queries.
template <class T>
__device__ void attention_forward(const T* attended, const uint32_t* documents, T* out, float* log_sums, Heads heads) {
    DYNAMIC_SHARED(float, shared);
    int head = blockIdx.x % heads.heads, sequence = blockIdx.x / heads.heads, group = head / (heads.heads / heads.groups);
    int width = heads.width, positions = heads.positions, start = sequence * positions;
    float *queries = shared, *keys = queries + ROWS * row_of(width), *values = keys + TILE * row_of(width);
    if (documents) documents += start;
    int first = blockIdx.y * ROWS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    fetch(attended + heads.query(start + first, head), heads.stride(), first, positions, ROWS, width, queries);
    float sum[OWN][SPANS] = {}, largest[OWN], total[OWN] = {};
#pragma unroll
    for (int own = 0; own < OWN; own++) largest[own] = -INFINITY;
    for (int tile = 0; tile < positions && tile < first + ROWS; tile += TILE) {
        __syncthreads();
        fetch(attended + heads.key(start + tile, group), heads.stride(), tile, positions, TILE, width, keys);
        fetch(attended + heads.value(start + tile, group), heads.stride(), tile, positions, TILE, width, values);
        __syncthreads();
#pragma unroll
        for (int own = 0; own < OWN; own++) {
            int row = warp * OWN + own;
            float score = dot(queries + row * row_of(width), keys + lane * row_of(width), width) * heads.scale;
            if (!sees(first + row, tile + lane, positions, documents)) score = -INFINITY;
            float most = fmaxf(largest[own], warp_largest(score));
            // Where nothing was seen yet there is nothing to bring down to a new peak.
            float before = most == -INFINITY ? 1.0f : expf(largest[own] - most);
            float share = score == -INFINITY ? 0.0f : expf(score - most);
            largest[own] = most;
            total[own] = total[own] * before + warp_sum(share);
#pragma unroll
            for (int j = 0; j < SPANS; j++) sum[own][j] *= before;
            add_rows(sum[own], share, values, width);
        }
    }
#pragma unroll
    for (int own = 0; own < OWN; own++) {
        int query = first + warp * OWN + own;
        if (query >= positions) continue;
        T* row = out + heads.out(start + query, head);
#pragma unroll
        for (int j = 0; j < SPANS; j++) {
            int column = lane + 32 * j;
            if (column < width) row[column] = nearest<T>(sum[own][j] / total[own]);
        }
        if (lane == 0) log_sums[(size_t)blockIdx.x * positions + query] = largest[own] + logf(total[own]);
    }
}

// along = the sum over a head of out * dout, in the order of log_sums: what the backward pass of a softmax takes off each row.
// A warp a query of a head.
template <class T>
__device__ void attention_along(const T* out, const T* dout, float* along, Heads heads, int tokens) {
    int numbered = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (numbered >= tokens * heads.heads) return;
    int token = numbered / heads.heads, head = numbered % heads.heads;
    size_t row = heads.out(token, head);
    float sum = 0;
    for (int i = lane; i < heads.width; i += 32) sum += number(out[row + i]) * number(dout[row + i]);
    sum = warp_sum(sum);
    int sequence = token / heads.positions, query = token % heads.positions;
    if (lane == 0) along[((size_t)sequence * heads.heads + head) * heads.positions + query] = sum;
}

// The gradient of the queries. Blocks as in the forward pass.
template <class T>
__device__ void attention_queries(const T* attended, const uint32_t* documents, const T* dout, const float* log_sums,
                                  const float* along, T* dattended, Heads heads) {
    DYNAMIC_SHARED(float, shared);
    int head = blockIdx.x % heads.heads, sequence = blockIdx.x / heads.heads, group = head / (heads.heads / heads.groups);
    int width = heads.width, positions = heads.positions, start = sequence * positions;
    float *queries = shared, *slopes = queries + ROWS * row_of(width), *keys = slopes + ROWS * row_of(width),
          *values = keys + TILE * row_of(width);
    if (documents) documents += start;
    int first = blockIdx.y * ROWS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    fetch(attended + heads.query(start + first, head), heads.stride(), first, positions, ROWS, width, queries);
    fetch(dout + heads.out(start + first, head), heads.queries(), first, positions, ROWS, width, slopes);
    float sum[OWN][SPANS] = {};
    for (int tile = 0; tile < positions && tile < first + ROWS; tile += TILE) {
        __syncthreads();
        fetch(attended + heads.key(start + tile, group), heads.stride(), tile, positions, TILE, width, keys);
        fetch(attended + heads.value(start + tile, group), heads.stride(), tile, positions, TILE, width, values);
        __syncthreads();
#pragma unroll
        for (int own = 0; own < OWN; own++) {
            int row = warp * OWN + own, query = first + row;
            float share = 0;
            if (sees(query, tile + lane, positions, documents)) {
                size_t place = (size_t)blockIdx.x * positions + query;
                float score = dot(queries + row * row_of(width), keys + lane * row_of(width), width) * heads.scale;
                float through = dot(slopes + row * row_of(width), values + lane * row_of(width), width);
                share = expf(score - log_sums[place]) * (through - along[place]) * heads.scale;
            }
            add_rows(sum[own], share, keys, width);
        }
    }
#pragma unroll
    for (int own = 0; own < OWN; own++) {
        int query = first + warp * OWN + own;
        if (query >= positions) continue;
        T* row = dattended + heads.query(start + query, head);
#pragma unroll
        for (int j = 0; j < SPANS; j++) {
            int column = lane + 32 * j;
            if (column < width) row[column] = nearest<T>(sum[own][j]);
        }
    }
}

// The gradients of keys and values, summed over the heads of their group. Blocks: sequences times groups, tiles of keys.
template <class T>
__device__ void attention_keys(const T* attended, const uint32_t* documents, const T* dout, const float* log_sums,
                               const float* along, T* dattended, Heads heads) {
    DYNAMIC_SHARED(float, shared);
    int group = blockIdx.x % heads.groups, sequence = blockIdx.x / heads.groups, shared_by = heads.heads / heads.groups;
    int width = heads.width, positions = heads.positions, start = sequence * positions;
    float *keys = shared, *values = keys + ROWS * row_of(width), *queries = values + ROWS * row_of(width),
          *slopes = queries + TILE * row_of(width);
    if (documents) documents += start;
    int first = blockIdx.y * ROWS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    fetch(attended + heads.key(start + first, group), heads.stride(), first, positions, ROWS, width, keys);
    fetch(attended + heads.value(start + first, group), heads.stride(), first, positions, ROWS, width, values);
    float dkeys[OWN][SPANS] = {}, dvalues[OWN][SPANS] = {};
    for (int head = group * shared_by; head < (group + 1) * shared_by; head++) {
        for (int tile = first / TILE * TILE; tile < positions; tile += TILE) {
            __syncthreads();
            fetch(attended + heads.query(start + tile, head), heads.stride(), tile, positions, TILE, width, queries);
            fetch(dout + heads.out(start + tile, head), heads.queries(), tile, positions, TILE, width, slopes);
            __syncthreads();
#pragma unroll
            for (int own = 0; own < OWN; own++) {
                int row = warp * OWN + own, query = tile + lane;
                float share = 0, slope = 0;
                if (sees(query, first + row, positions, documents)) {
                    size_t place = ((size_t)sequence * heads.heads + head) * positions + query;
                    float score = dot(keys + row * row_of(width), queries + lane * row_of(width), width) * heads.scale;
                    float through = dot(values + row * row_of(width), slopes + lane * row_of(width), width);
                    share = expf(score - log_sums[place]);
                    slope = share * (through - along[place]) * heads.scale;
                }
                add_rows(dvalues[own], share, slopes, width);
                add_rows(dkeys[own], slope, queries, width);
            }
        }
    }
#pragma unroll
    for (int own = 0; own < OWN; own++) {
        int key = first + warp * OWN + own;
        if (key >= positions) continue;
        T *dkey = dattended + heads.key(start + key, group), *dvalue = dattended + heads.value(start + key, group);
#pragma unroll
        for (int j = 0; j < SPANS; j++) {
            int column = lane + 32 * j;
            if (column < width) {
                dkey[column] = nearest<T>(dkeys[own][j]);
                dvalue[column] = nearest<T>(dvalues[own][j]);
            }
        }
    }
}

#define ATTENTIONS(name, T)                                                                                              \
    KERNEL(attention_forward_##name, const T* attended, const uint32_t* documents, T* out, float* log_sums,              \
           int positions, int heads, int groups, int width, float scale) {                                               \
        attention_forward<T>(attended, documents, out, log_sums, Heads{positions, heads, groups, width, scale});         \
    }                                                                                                                    \
    KERNEL(attention_along_##name, const T* out, const T* dout, float* along, int positions, int heads, int groups,      \
           int width, float scale, int tokens) {                                                                         \
        attention_along<T>(out, dout, along, Heads{positions, heads, groups, width, scale}, tokens);                     \
    }                                                                                                                    \
    KERNEL(attention_queries_##name, const T* attended, const uint32_t* documents, const T* dout, const float* log_sums, \
           const float* along, T* dattended, int positions, int heads, int groups, int width, float scale) {             \
        attention_queries<T>(attended, documents, dout, log_sums, along, dattended,                                      \
                             Heads{positions, heads, groups, width, scale});                                             \
    }                                                                                                                    \
    KERNEL(attention_keys_##name, const T* attended, const uint32_t* documents, const T* dout, const float* log_sums,    \
           const float* along, T* dattended, int positions, int heads, int groups, int width, float scale) {             \
        attention_keys<T>(attended, documents, dout, log_sums, along, dattended,                                         \
                          Heads{positions, heads, groups, width, scale});                                                \
    }
FOR_EACH_TYPE(ATTENTIONS)
