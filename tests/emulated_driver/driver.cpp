// NVIDIA's driver with a GPU that is this CPU, for machines without one: the calls, types and numbers of cuda.h (13) that the
// trainer and its bindings use. Kernels run as in the trainer's own tests, thread by thread.
//
// $LRPATH_EMULATED_GPU says what it is like, in words as `gpus=2`:
//
//   version     the newest CUDA that it knows; 13000
//   init        what starting it answers; 0
//   gpus        how many there are; 1
//   memory      bytes of each; 2^30
//   late        whether the work of a second stream is done as late as it can be, or as early; 0
//   fails_at    the launch at which the GPU fails, from 1; none
//   fails_with  what it says then; 719, a launch that failed
//   fails_on    which GPU does; all
//   tells       whether a process says at its end how many launches it made; 0
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gpu.h"

using Address = unsigned long long;

// The emulator of the trainer's tests.
extern "C" int emulated_arguments(const char* kernel);
extern "C" int emulated_launch(const char* kernel, unsigned columns, unsigned rows, unsigned threads, size_t shared,
                               const uint64_t* words, unsigned count, unsigned order);

namespace gpu {
std::recursive_mutex lock;

long long world(const char* name, long long otherwise) {
    const char* words = getenv("LRPATH_EMULATED_GPU");
    std::string all = std::string(" ") + (words ? words : ""), word = std::string(" ") + name + "=";
    size_t place = all.find(word);
    return place == std::string::npos ? otherwise : atoll(all.c_str() + place + word.size());
}

struct Stream {
    std::deque<Work> waiting;
    uint64_t done = 0, asked = 0;
    bool is_first;
};

namespace {
struct Event {
    Stream* stream = nullptr;
    uint64_t place = 0;
};

struct Function {
    std::string name;
    unsigned arguments = 0;
    const Kernel* of_candle = nullptr;
    size_t shared = 48 << 10;
};

// What lies behind each piece of memory.
constexpr size_t GUARD = 256;
constexpr unsigned char GUARDED = 0xa5;

Outcome failed = SUCCESS;
bool initialized = false;
size_t used = 0;
long long launches = 0;
int opened = 0;
void* current = nullptr;
std::vector<Stream*> streams;
std::map<std::string, Function> functions;
std::map<Address, size_t> memory;
int devices[64];

size_t size() { return (size_t)world("memory", 1ll << 30); }

// Does the work of a stream up to a place; false: some of it cannot be done yet.
bool run(Stream* stream, uint64_t until) {
    while (stream->done < until && failed == SUCCESS) {
        if (!stream->waiting.front()()) return false;
        stream->waiting.pop_front();
        stream->done++;
    }
    return true;
}

// Host code is in no hurry: it waits as long as the work does.
Outcome finish(Stream* stream) {
    while (!run(stream, stream->asked)) {
        lock.unlock();
        lock.lock();
    }
    return failed;
}

bool is_there(Address address, size_t bytes) {
    auto behind = memory.upper_bound(address);
    if (behind == memory.begin()) return false;
    auto piece = std::prev(behind);
    return address + bytes <= piece->first + piece->second;
}

Outcome touched(Address address, size_t bytes) {
    if (!is_there(address, bytes)) fail(ILLEGAL_ADDRESS);
    return failed;
}

void release(Address address) {
    auto piece = memory.find(address);
    auto bytes = reinterpret_cast<unsigned char*>(address);
    for (size_t i = 0; i < GUARD; i++) {
        if (bytes[piece->second + i] == GUARDED) continue;
        fprintf(stderr, "emulated GPU: something was written behind a piece of %zu bytes\n", piece->second);
        fail(ILLEGAL_ADDRESS);
        break;
    }
    memset(bytes, 0xff, piece->second);
    memory.erase(piece);
    free(bytes);
}

Outcome launch(Function& function, unsigned columns, unsigned rows, unsigned threads, size_t shared, Stream* stream, void** given) {
    bool is_the_one = world("fails_on", opened) == opened;
    if (++launches == world("fails_at", 0) && is_the_one) fail((Outcome)world("fails_with", 719));
    if (failed != SUCCESS) return failed;
    if (shared > function.shared || shared > 227 << 10 || threads == 0 || threads > 1024) return OUT_OF_RESOURCES;
    if (columns == 0 || columns > INT32_MAX || rows == 0 || rows > UINT16_MAX) return INVALID_VALUE;
    if (const Kernel* kernel = function.of_candle) {
        auto copies = std::make_shared<std::vector<std::vector<unsigned char>>>();
        for (size_t i = 0; i < kernel->arguments.size(); i++) {
            auto from = static_cast<unsigned char*>(given[i]);
            copies->emplace_back(from, from + kernel->arguments[i]);
        }
        ask(stream, [=] {
            std::vector<const void*> arguments;
            for (auto& copy : *copies) arguments.push_back(copy.data());
            kernel->run(arguments.data());
            return true;
        });
        return SUCCESS;
    }
    std::vector<uint64_t> words(function.arguments);
    for (size_t i = 0; i < words.size(); i++) memcpy(&words[i], given[i], 8);
    ask(stream, [=, name = function.name] {
        int outcome = emulated_launch(name.c_str(), columns, rows, threads, shared, words.data(), (unsigned)words.size(), 0);
        if (outcome != 0) {
            fprintf(stderr, "emulated GPU: %s ended with %d\n", name.c_str(), outcome);
            fail(ILLEGAL_ADDRESS);
        }
        return true;
    });
    return SUCCESS;
}
}  // namespace

void ask(Stream* stream, Work work) {
    stream->waiting.push_back(std::move(work));
    stream->asked++;
    if (!stream->is_first && !world("late", 0)) run(stream, stream->asked);
}

void fail(Outcome outcome) { failed = outcome; }
}  // namespace gpu

using namespace gpu;

#define LOCKED std::lock_guard<std::recursive_mutex> locked(lock)
// A call that a failed GPU does not answer any more.
#define ANSWERED                             \
    LOCKED;                                  \
    if (!initialized) return NOT_INITIALIZED; \
    if (failed != SUCCESS) return failed

extern "C" {
int cuDriverGetVersion(int* version) {
    *version = (int)world("version", 13000);
    return SUCCESS;
}

int cuInit(unsigned) {
    initialized = world("init", 0) == 0;
    return (int)world("init", 0);
}

int cuDeviceGetCount(int* count) {
    *count = (int)world("gpus", 1);
    if (const char* visible = getenv("CUDA_VISIBLE_DEVICES")) {
        std::string names = visible;
        int named = names.empty() ? 0 : 1 + (int)std::count(names.begin(), names.end(), ',');
        *count = std::min(*count, named);
    }
    return initialized ? SUCCESS : NOT_INITIALIZED;
}

int cuDeviceGet(int* device, int ordinal) {
    int count = 0;
    if (int outcome = cuDeviceGetCount(&count)) return outcome;
    *device = ordinal;
    return ordinal < count ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    enum { MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76, MEMORY_POOLS = 115 };
    switch (attribute) {
        case MAJOR: *value = 9; return SUCCESS;
        case MINOR: *value = 0; return SUCCESS;
        case MULTIPROCESSORS: *value = 132; return SUCCESS;
        case MEMORY_POOLS: *value = 1; return SUCCESS;
        default: fprintf(stderr, "emulated GPU: attribute %d is not known\n", attribute); return INVALID_VALUE;
    }
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = size();
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    LOCKED;
    opened = device;
    if (device == 0 && world("tells", 0)) atexit([] { fprintf(stderr, "emulated GPU: launches %lld\n", launches); });
    *context = &devices[device];
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void** context) {
    LOCKED;
    *context = current;
    return failed;
}
int cuCtxSetCurrent(void* context) {
    LOCKED;
    current = context;
    return failed;
}

int cuGetErrorName(int error, const char** name) {
    static const std::map<int, const char*> names = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
        {719, "CUDA_ERROR_LAUNCH_FAILED"},
    };
    auto found = names.find(error);
    *name = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
    return SUCCESS;
}
int cuGetErrorString(int error, const char** words) { return cuGetErrorName(error, words); }

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    ANSWERED;
    *total = size();
    *free = size() - used;
    return SUCCESS;
}

// Memory is taken at once, and given back in the order of the stream.
int cuMemAllocAsync(Address* address, size_t bytes, Stream*) {
    ANSWERED;
    if (bytes == 0) return INVALID_VALUE;
    if (used + bytes > size()) return OUT_OF_MEMORY;
    size_t rounded = (bytes + GUARD + 255) / 256 * 256;
    auto memory_of_it = static_cast<unsigned char*>(aligned_alloc(256, rounded));
    // It holds what it held.
    memset(memory_of_it, 0xff, bytes);
    memset(memory_of_it + bytes, GUARDED, GUARD);
    *address = reinterpret_cast<Address>(memory_of_it);
    memory[*address] = bytes;
    used += bytes;
    return SUCCESS;
}

int cuMemFreeAsync(Address address, Stream* stream) {
    ANSWERED;
    auto piece = memory.find(address);
    if (piece == memory.end()) return INVALID_VALUE;
    used -= piece->second;
    ask(stream, [=] {
        release(address);
        return true;
    });
    return SUCCESS;
}

int cuDeviceGetDefaultMemPool(void** pool, int device) {
    *pool = &devices[device];
    return SUCCESS;
}
int cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }

int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream* stream) {
    ANSWERED;
    // The host's memory is its own again when the call is over.
    auto first = static_cast<const unsigned char*>(from);
    auto copy = std::make_shared<std::vector<unsigned char>>(first, first + bytes);
    ask(stream, [=] {
        if (touched(to, bytes) == SUCCESS) memcpy(reinterpret_cast<void*>(to), copy->data(), bytes);
        return true;
    });
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream* stream) {
    ANSWERED;
    if (Outcome outcome = finish(stream)) return outcome;
    if (Outcome outcome = touched(from, bytes)) return outcome;
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
}

int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream* stream) {
    ANSWERED;
    ask(stream, [=] {
        if (touched(from, bytes) == SUCCESS && touched(to, bytes) == SUCCESS) {
            memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
        }
        return true;
    });
    return SUCCESS;
}

int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream* stream) {
    ANSWERED;
    ask(stream, [=] {
        if (touched(to, bytes) == SUCCESS) memset(reinterpret_cast<void*>(to), value, bytes);
        return true;
    });
    return SUCCESS;
}

int cuStreamCreate(Stream** stream, unsigned) {
    ANSWERED;
    *stream = new Stream;
    (*stream)->is_first = streams.empty();
    streams.push_back(*stream);
    return SUCCESS;
}
int cuStreamCreateWithPriority(Stream** stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
int cuStreamDestroy_v2(Stream* stream) {
    LOCKED;
    // Its work is done whenever it can be; nobody waits.
    run(stream, stream->asked);
    return failed;
}
int cuStreamSynchronize(Stream* stream) {
    ANSWERED;
    return finish(stream);
}
int cuStreamQuery(Stream* stream) {
    ANSWERED;
    if (!run(stream, stream->asked)) return NOT_READY;
    return failed;
}
int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    ANSWERED;
    Event of_now = *event;
    ask(stream, [=] { return run(of_now.stream, of_now.place); });
    return SUCCESS;
}
int cuStreamIsCapturing(Stream*, int* status) {
    *status = 0;
    return SUCCESS;
}

int cuEventCreate(Event** event, unsigned) {
    ANSWERED;
    *event = new Event;
    return SUCCESS;
}
int cuEventDestroy_v2(Event* event) {
    LOCKED;
    delete event;
    return failed;
}
int cuEventQuery(Event* event) {
    ANSWERED;
    if (!run(event->stream, event->place)) return NOT_READY;
    return failed;
}
int cuEventRecord(Event* event, Stream* stream) {
    ANSWERED;
    *event = {stream, stream->asked};
    return SUCCESS;
}
int cuCtxSynchronize() {
    ANSWERED;
    for (Stream* stream : streams) {
        if (Outcome outcome = finish(stream)) return outcome;
    }
    return SUCCESS;
}

int cuModuleLoadData(void** module, const void* image) {
    ANSWERED;
    if (!image) return INVALID_VALUE;
    static int modules;
    *module = &modules;
    return SUCCESS;
}
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(Function** function, void*, const char* name) {
    ANSWERED;
    Function found{name};
    found.of_candle = kernel_of_candle(name);
    int ours = emulated_arguments(name);
    if (ours > 0) found.arguments = (unsigned)ours;
    if (ours < 0 && !found.of_candle) {
        fprintf(stderr, "emulated GPU: there is no kernel %s\n", name);
        return NOT_FOUND;
    }
    *function = &functions.emplace(name, found).first->second;
    return SUCCESS;
}
int cuFuncSetAttribute(Function* function, int attribute, int value) {
    ANSWERED;
    enum { MOST_SHARED = 8 };
    if (attribute != MOST_SHARED || value < 0 || value > 227 << 10) return INVALID_VALUE;
    function->shared = (size_t)value;
    return SUCCESS;
}
int cuLaunchKernel(Function* function, unsigned columns, unsigned rows, unsigned deep, unsigned threads, unsigned y, unsigned z,
                   unsigned shared, Stream* stream, void** arguments, void**) {
    ANSWERED;
    if (deep != 1 || y != 1 || z != 1) return INVALID_VALUE;
    return launch(*function, columns, rows, threads, shared, stream, arguments);
}
}
