// Rotary embedding in place: the pairs of a head are its two halves.
#include "common.cuh"

// The first `heads` heads of width `head` in each row of `stride` elements are turned by the angles of the row's position,
// counted within sequences of `positions`; backward they are turned the other way.
template <class T>
__device__ void rope(T* rows, const float* cosines, const float* sines, int count, int positions, int heads, int head,
                     int stride, float direction) {
    int half = head / 2, pairs = heads * half;
    size_t all = (size_t)count * pairs;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (size_t)gridDim.x * blockDim.x) {
        int row = i / pairs, pair = i % pairs, place = pair % half, angle = row % positions * half + place;
        T* first = rows + (size_t)row * stride + pair / half * head + place;
        float c = cosines[angle], s = sines[angle] * direction, x = number(first[0]), y = number(first[half]);
        first[0] = nearest<T>(x * c - y * s);
        first[half] = nearest<T>(y * c + x * s);
    }
}

#define ROPES(name, T)                                                                                               \
    KERNEL(rope_##name, T* rows, const float* cosines, const float* sines, int count, int positions, int heads,      \
           int head, int stride, float direction) {                                                                  \
        rope<T>(rows, cosines, sines, count, positions, heads, head, stride, direction);                             \
    }
FOR_EACH_TYPE(ROPES)
