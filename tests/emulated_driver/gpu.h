// What the parts of the emulated driver have in common: streams of work that is not done before somebody waits for it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace gpu {
// As cuda.h numbers them.
enum Outcome {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    OUT_OF_RESOURCES = 701,
};

// Work of a stream. It answers whether it could be done.
using Work = std::function<bool()>;
struct Stream;

extern std::recursive_mutex lock;

// Puts work at the end of a stream.
void ask(Stream* stream, Work work);
// An error of the GPU itself, which all further calls answer with.
void fail(Outcome outcome);
// The words of $LRPATH_EMULATED_GPU: the number behind `name=`.
long long world(const char* name, long long otherwise);

// A kernel of candle's, by its name: the bytes of its arguments, and what it does. None if it has none of that name.
struct Kernel {
    std::vector<size_t> arguments;
    void (*run)(const void* const* arguments);
};
const Kernel* kernel_of_candle(const char* name);
}  // namespace gpu
