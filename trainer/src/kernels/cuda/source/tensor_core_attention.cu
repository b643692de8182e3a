// Causal attention with grouped heads in bf16, by tensor cores, for heads that are 64 or 128 wide: what attention.cu does, in
// the same order of sums for the same sizes, whatever block is first.
//
// A block has 64 rows of its own, a warp sixteen of them, and goes through tiles of the other side. Scores and their slopes are
// f32 in registers, and are rounded to bf16 where they are the left side of the next product.
#include "heads.cuh"
#include "tensor_core.cuh"

constexpr int OWN_ROWS = 64, WARP_ROWS = 16, WORKERS = 128;
constexpr float LOG2_E = 1.44269504f;

// The warp's first row, and the lane's first row and column in a result.
struct Lane {
    int strip = threadIdx.x / 32 * WARP_ROWS, row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
};

// Whether anybody of the queries from `first` on sees one of the `count` keys from `tile`: documents are numbered upwards.
__device__ __forceinline__ bool looks_back(int first, int tile, int count, const uint32_t* documents) {
    return !documents || documents[min(tile + count - 1, first)] >= documents[first];
}

// Writes a strip's rows, each times a factor of its own.
template <int WIDTH>
__device__ __forceinline__ void write_strip(const Result (&sums)[WIDTH / 8], bf16* to, size_t stride, int row, int exist,
                                            int column, float upper, float lower) {
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
        const float* at = sums[n].at;
        if (row < exist) {
            *reinterpret_cast<uint32_t*>(to + row * stride + n * 8 + column) = pair(at[0] * upper, at[1] * upper);
        }
        if (row + 8 < exist) {
            *reinterpret_cast<uint32_t*>(to + (row + 8) * stride + n * 8 + column) = pair(at[2] * lower, at[3] * lower);
        }
    }
}

// Blocks: sequences times heads, tiles of queries.
template <int WIDTH>
__device__ void tensor_core_forward(const bf16* attended, const uint32_t* documents, bf16* out, float* log_sums, Heads heads) {
    constexpr int TILE = 64;
    DYNAMIC_SHARED(bf16, shared);
    int head = blockIdx.x % heads.heads, sequence = blockIdx.x / heads.heads, group = head / (heads.heads / heads.groups);
    int positions = heads.positions, start = sequence * positions, first = blockIdx.y * OWN_ROWS;
    if (documents) documents += start;
    Rows<WIDTH> queries{shared}, keys{shared + OWN_ROWS * Rows<WIDTH>::STRIDE},
        values{shared + (OWN_ROWS + TILE) * Rows<WIDTH>::STRIDE};
    queries.template fetch<OWN_ROWS>(attended + heads.query(start + first, head), heads.stride(), positions - first, WORKERS);
    Lane lane;
    Result sums[WIDTH / 8];
    float scale = heads.scale * LOG2_E, largest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    for (int tile = 0; tile < positions && tile < first + OWN_ROWS; tile += TILE) {
        if (!looks_back(first, tile, TILE, documents)) continue;
        __syncthreads();
        keys.template fetch<TILE>(attended + heads.key(start + tile, group), heads.stride(), positions - tile, WORKERS);
        values.template fetch<TILE>(attended + heads.value(start + tile, group), heads.stride(), positions - tile, WORKERS);
        __syncthreads();
        Result scores[TILE / 8];
        times_rows<WIDTH, TILE>(scores, queries, lane.strip, keys);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = first + lane.strip + lane.row + 8 * half;
            float most = largest[half];
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float& score = scores[n].at[2 * half + j];
                    bool seen = sees(query, tile + n * 8 + lane.column + j, positions, documents);
                    score = seen ? score * scale : -INFINITY;
                    most = fmaxf(most, score);
                }
            }
            // The four lanes of a row.
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            // Where nothing was seen yet there is nothing to bring down to a new peak.
            float before = most == -INFINITY ? 1.0f : exp2f(largest[half] - most), sum = 0;
            largest[half] = most;
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float& score = scores[n].at[2 * half + j];
                    score = score == -INFINITY ? 0.0f : exp2f(score - most);
                    sum += score;
                }
            }
            total[half] = total[half] * before + sum;
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                sums[n].at[2 * half] *= before;
                sums[n].at[2 * half + 1] *= before;
            }
        }
        times<WIDTH, TILE>(sums, scores, values);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(~0u, total[half], 1);
        total[half] += __shfl_xor_sync(~0u, total[half], 2);
        int query = first + lane.strip + lane.row + 8 * half;
        if (lane.column == 0 && query < positions) {
            log_sums[(size_t)blockIdx.x * positions + query] = largest[half] / LOG2_E + logf(total[half]);
        }
    }
    write_strip<WIDTH>(sums, out + heads.out(start + first, head), heads.queries(), lane.strip + lane.row, positions - first,
                       lane.column, 1.0f / total[0], 1.0f / total[1]);
}

// The gradient of the queries. Blocks as in the forward pass.
template <int WIDTH>
__device__ void tensor_core_queries(const bf16* attended, const uint32_t* documents, const bf16* dout, const float* log_sums,
                                    const float* along, bf16* dattended, Heads heads) {
    constexpr int TILE = 32;
    DYNAMIC_SHARED(bf16, shared);
    int head = blockIdx.x % heads.heads, sequence = blockIdx.x / heads.heads, group = head / (heads.heads / heads.groups);
    int positions = heads.positions, start = sequence * positions, first = blockIdx.y * OWN_ROWS;
    if (documents) documents += start;
    constexpr int STRIDE = Rows<WIDTH>::STRIDE;
    Rows<WIDTH> queries{shared}, slopes{shared + OWN_ROWS * STRIDE}, keys{shared + 2 * OWN_ROWS * STRIDE},
        values{shared + (2 * OWN_ROWS + TILE) * STRIDE};
    queries.template fetch<OWN_ROWS>(attended + heads.query(start + first, head), heads.stride(), positions - first, WORKERS);
    slopes.template fetch<OWN_ROWS>(dout + heads.out(start + first, head), heads.queries(), positions - first, WORKERS);
    Lane lane;
    Result sums[WIDTH / 8];
    float log_sum[2] = {0, 0}, taken[2] = {0, 0};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int query = first + lane.strip + lane.row + 8 * half;
        if (query < positions) {
            log_sum[half] = log_sums[(size_t)blockIdx.x * positions + query];
            taken[half] = along[(size_t)blockIdx.x * positions + query];
        }
    }
    for (int tile = 0; tile < positions && tile < first + OWN_ROWS; tile += TILE) {
        if (!looks_back(first, tile, TILE, documents)) continue;
        __syncthreads();
        keys.template fetch<TILE>(attended + heads.key(start + tile, group), heads.stride(), positions - tile, WORKERS);
        values.template fetch<TILE>(attended + heads.value(start + tile, group), heads.stride(), positions - tile, WORKERS);
        __syncthreads();
        Result scores[TILE / 8], through[TILE / 8];
        times_rows<WIDTH, TILE>(scores, queries, lane.strip, keys);
        times_rows<WIDTH, TILE>(through, slopes, lane.strip, values);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int half = i / 2, query = first + lane.strip + lane.row + 8 * half, key = tile + n * 8 + lane.column + i % 2;
                float share = exp2f((scores[n].at[i] * heads.scale - log_sum[half]) * LOG2_E);
                bool seen = sees(query, key, positions, documents);
                scores[n].at[i] = seen ? share * (through[n].at[i] - taken[half]) * heads.scale : 0.0f;
            }
        }
        times<WIDTH, TILE>(sums, scores, keys);
    }
    write_strip<WIDTH>(sums, dattended + heads.query(start + first, head), heads.stride(), lane.strip + lane.row,
                       positions - first, lane.column, 1.0f, 1.0f);
}

// The gradients of keys and values, summed over the heads of their group. Blocks: sequences times groups, tiles of keys.
template <int WIDTH>
__device__ void tensor_core_keys(const bf16* attended, const uint32_t* documents, const bf16* dout, const float* log_sums,
                                 const float* along, bf16* dattended, Heads heads) {
    constexpr int TILE = 32;
    DYNAMIC_SHARED(bf16, shared);
    __shared__ float log_sum[TILE], taken[TILE];
    int group = blockIdx.x % heads.groups, sequence = blockIdx.x / heads.groups, shared_by = heads.heads / heads.groups;
    int positions = heads.positions, start = sequence * positions, first = blockIdx.y * OWN_ROWS;
    if (documents) documents += start;
    constexpr int STRIDE = Rows<WIDTH>::STRIDE;
    Rows<WIDTH> keys{shared}, values{shared + OWN_ROWS * STRIDE}, queries{shared + 2 * OWN_ROWS * STRIDE},
        slopes{shared + (2 * OWN_ROWS + TILE) * STRIDE};
    keys.template fetch<OWN_ROWS>(attended + heads.key(start + first, group), heads.stride(), positions - first, WORKERS);
    values.template fetch<OWN_ROWS>(attended + heads.value(start + first, group), heads.stride(), positions - first, WORKERS);
    Lane lane;
    Result dkeys[WIDTH / 8], dvalues[WIDTH / 8];
    int last = min(first + OWN_ROWS, positions) - 1;
    for (int head = group * shared_by; head < (group + 1) * shared_by; head++) {
        for (int tile = first; tile < positions; tile += TILE) {
            // Documents are numbered upwards: behind the last key's nobody looks back to any of these.
            if (!looks_back(tile, last, 1, documents)) break;
            __syncthreads();
            queries.template fetch<TILE>(attended + heads.query(start + tile, head), heads.stride(), positions - tile, WORKERS);
            slopes.template fetch<TILE>(dout + heads.out(start + tile, head), heads.queries(), positions - tile, WORKERS);
            if (threadIdx.x < TILE) {
                size_t place = ((size_t)sequence * heads.heads + head) * positions + tile + threadIdx.x;
                bool exists = tile + (int)threadIdx.x < positions;
                log_sum[threadIdx.x] = exists ? log_sums[place] : 0.0f;
                taken[threadIdx.x] = exists ? along[place] : 0.0f;
            }
            __syncthreads();
            Result shares[TILE / 8], through[TILE / 8];
            times_rows<WIDTH, TILE>(shares, keys, lane.strip, queries);
            times_rows<WIDTH, TILE>(through, values, lane.strip, slopes);
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int key = first + lane.strip + lane.row + i / 2 * 8, place = n * 8 + lane.column + i % 2;
                    float share = exp2f((shares[n].at[i] * heads.scale - log_sum[place]) * LOG2_E);
                    bool seen = sees(tile + place, key, positions, documents);
                    shares[n].at[i] = seen ? share : 0.0f;
                    through[n].at[i] = seen ? share * (through[n].at[i] - taken[place]) * heads.scale : 0.0f;
                }
            }
            times<WIDTH, TILE>(dvalues, shares, slopes);
            times<WIDTH, TILE>(dkeys, through, queries);
        }
    }
    int row = lane.strip + lane.row, exist = positions - first;
    write_strip<WIDTH>(dkeys, dattended + heads.key(start + first, group), heads.stride(), row, exist, lane.column, 1.0f, 1.0f);
    write_strip<WIDTH>(dvalues, dattended + heads.value(start + first, group), heads.stride(), row, exist, lane.column, 1.0f,
                       1.0f);
}

#define TENSOR_CORES(WIDTH)                                                                                              \
    KERNEL(attention_forward_##WIDTH, const bf16* attended, const uint32_t* documents, bf16* out, float* log_sums,       \
           int positions, int heads, int groups, int width, float scale) {                                               \
        tensor_core_forward<WIDTH>(attended, documents, out, log_sums, Heads{positions, heads, groups, width, scale});   \
    }                                                                                                                    \
    KERNEL(attention_queries_##WIDTH, const bf16* attended, const uint32_t* documents, const bf16* dout,                 \
           const float* log_sums, const float* along, bf16* dattended, int positions, int heads, int groups, int width,  \
           float scale) {                                                                                                \
        tensor_core_queries<WIDTH>(attended, documents, dout, log_sums, along, dattended,                                \
                                   Heads{positions, heads, groups, width, scale});                                       \
    }                                                                                                                    \
    KERNEL(attention_keys_##WIDTH, const bf16* attended, const uint32_t* documents, const bf16* dout,                    \
           const float* log_sums, const float* along, bf16* dattended, int positions, int heads, int groups, int width,  \
           float scale) {                                                                                                \
        tensor_core_keys<WIDTH>(attended, documents, dout, log_sums, along, dattended,                                   \
                                Heads{positions, heads, groups, width, scale});                                          \
    }
TENSOR_CORES(64)
TENSOR_CORES(128)
