// The kernels of candle's that the trainer still calls on a GPU: copies of tensors that are not in one piece or of another type,
// and a number put everywhere.
#include <cstdint>
#include <cstring>
#include <map>
#include <string>

#include "emulated.h"
#include "gpu.h"

namespace {
using Bf16 = __nv_bfloat16;

template <class To, class From> To as(From x) { return (To)x; }
template <> Bf16 as(float x) { return __float2bfloat16_rn(x); }
template <> float as(Bf16 x) { return __bfloat162float(x); }

template <class T> T argument(const void* given) {
    T value;
    memcpy(&value, given, sizeof(T));
    return value;
}

// The place of the i-th element of a tensor that lies by these strides.
size_t place(size_t i, size_t dimensions, const size_t* shape, const size_t* strides) {
    size_t at = 0;
    for (size_t d = dimensions; d-- > 0; i /= shape[d]) at += i % shape[d] * strides[d];
    return at;
}

template <class From, class To> void copy(const void* const* given) {
    size_t count = argument<size_t>(given[0]), dimensions = argument<size_t>(given[1]);
    auto info = argument<const size_t*>(given[2]);
    auto from = argument<const From*>(given[3]);
    auto to = argument<To*>(given[4]);
    for (size_t i = 0; i < count; i++) to[i] = as<To>(from[info ? place(i, dimensions, info, info + dimensions) : i]);
}

template <class T> void set(const void* const* given) {
    size_t count = argument<size_t>(given[0]), dimensions = argument<size_t>(given[1]);
    auto info = argument<const size_t*>(given[2]);
    auto to = argument<T*>(given[4]);
    for (size_t i = 0; i < count; i++) to[info ? place(i, dimensions, info, info + dimensions) : i] = argument<T>(given[3]);
}

template <class T> void copy_rows(const void* const* given) {
    auto from = argument<const T*>(given[0]);
    auto to = argument<T*>(given[1]);
    auto number = [&](int i) { return argument<uint32_t>(given[i]); };
    for (uint32_t row = 0; row < number(2); row++) {
        memcpy(to + (size_t)row * number(5), from + (size_t)row * number(4), number(3) * sizeof(T));
    }
}
}  // namespace

namespace gpu {
const Kernel* kernel_of_candle(const char* name) {
    static const std::map<std::string, Kernel> all = {
        {"ucopy_f32", {{8, 8, 8, 8, 8}, copy<float, float>}},
        {"cast_f64_f32", {{8, 8, 8, 8, 8}, copy<double, float>}},
        {"cast_f32_bf16", {{8, 8, 8, 8, 8}, copy<float, Bf16>}},
        {"cast_bf16_f32", {{8, 8, 8, 8, 8}, copy<Bf16, float>}},
        {"const_set_f32", {{8, 8, 8, 4, 8}, set<float>}},
        {"const_set_f64", {{8, 8, 8, 8, 8}, set<double>}},
        {"copy2d_f32", {{8, 8, 4, 4, 4, 4}, copy_rows<float>}},
    };
    auto found = all.find(name);
    return found == all.end() ? nullptr : &found->second;
}
}  // namespace gpu
