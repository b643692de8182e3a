// How attention's operands lie: query, key and value of a token side by side in a row, heads next to each other.
#pragma once
#include "common.cuh"

struct Heads {
    int positions, heads, groups, width;
    float scale;

    __device__ int queries() const { return heads * width; }
    __device__ int keys() const { return groups * width; }
    __device__ int stride() const { return queries() + 2 * keys(); }
    __device__ size_t query(int token, int head) const { return (size_t)token * stride() + head * width; }
    __device__ size_t key(int token, int group) const { return (size_t)token * stride() + queries() + group * width; }
    __device__ size_t value(int token, int group) const { return key(token, group) + keys(); }
    __device__ size_t out(int token, int head) const { return (size_t)token * queries() + head * width; }
};

// Whether a query sees a key, both positions of the sequence whose documents these are.
__device__ __forceinline__ bool sees(int query, int key, int positions, const uint32_t* documents) {
    return key <= query && query < positions && (!documents || documents[query] == documents[key]);
}
