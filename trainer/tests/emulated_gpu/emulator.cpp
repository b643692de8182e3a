// Runs the kernels on a CPU, block by block, and multiplies matrices in loops. x86-64 only.
#include "emulated.h"

#include <map>
#include <string>
#include <vector>

#include "all.cu"

Index threadIdx, blockIdx, blockDim, gridDim;

// Saves where the present thread is, and goes on where another one was.
extern "C" void emulated_switch(void** from, void* to);
asm(R"(
.text
.globl emulated_switch
emulated_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

namespace emulated {
namespace {
constexpr size_t STACK = 1 << 17, GUARD = 1024;
// The stacks of a warp's threads begin at different places of a page: those at the same one would share a few lines of the cache.
constexpr size_t APART = 64 * 5;

struct Known {
    Call call;
    unsigned arguments;
};
std::map<std::string, Known>& known() {
    static std::map<std::string, Known> all;
    return all;
}

// A barrier of some threads: the last one to come lets all go on.
struct Barrier {
    unsigned arrived = 0, times = 0;
};

struct Thread {
    void* place = nullptr;
    std::vector<unsigned char> stack = std::vector<unsigned char>(STACK);
    bool ended = false;
    unsigned exchanges = 0;
};

struct Warp {
    Barrier barrier;
    uint64_t words[2][32];
};

struct Machine {
    std::vector<Thread> threads = std::vector<Thread>(1024);
    std::vector<Warp> warps = std::vector<Warp>(32);
    std::vector<unsigned char> shared;
    Barrier block;
    void* scheduler = nullptr;
    unsigned present = 0;
    // The threads of the present warp in the order of their turns, and whose turn it is.
    unsigned turns[32];
    unsigned turn = 0;
    unsigned ended = 0;
    size_t progress = 0;
    Call call = nullptr;
    Words words = nullptr;
} machine;

// From where `from` saves it to the next of the warp's threads that has not ended, or to the scheduler after the last one.
void go_on_with_next(void** from) {
    while (machine.turn < 32) {
        unsigned place = machine.turns[machine.turn++];
        if (machine.threads[place].ended) continue;
        threadIdx.x = machine.present = place;
        return emulated_switch(from, machine.threads[place].place);
    }
    emulated_switch(from, machine.scheduler);
}

void let_others_go_on() { go_on_with_next(&machine.threads[machine.present].place); }

void wait(Barrier& barrier, unsigned count) {
    machine.progress++;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        barrier.times++;
        return;
    }
    for (unsigned before = barrier.times; barrier.times == before;) let_others_go_on();
}

void thread_body() {
    machine.call(machine.words);
    machine.progress++;
    machine.ended++;
    machine.threads[machine.present].ended = true;
    let_others_go_on();
    __builtin_trap();
}

void begin(unsigned place) {
    Thread& thread = machine.threads[place];
    thread.ended = false;
    thread.exchanges = 0;
    auto top = reinterpret_cast<uintptr_t>(thread.stack.data() + STACK - place % 32 * APART) & ~(uintptr_t)15;
    auto words = reinterpret_cast<void**>(top);
    // Where a function is entered, the stack is 8 bytes off a multiple of 16.
    words[-2] = reinterpret_cast<void*>(&thread_body);
    for (int i = -8; i < -2; i++) words[i] = nullptr;
    thread.place = words - 8;
}
}  // namespace

Registered::Registered(const char* name, Call call, unsigned arguments) { known()[name] = {call, arguments}; }

void wait_for_block() { wait(machine.block, blockDim.x); }

const uint64_t* exchange(uint64_t value) {
    Warp& warp = machine.warps[threadIdx.x / 32];
    // Nobody begins the exchange after the next one before all have ended this one.
    uint64_t* words = warp.words[machine.threads[machine.present].exchanges++ % 2];
    words[threadIdx.x % 32] = value;
    wait(warp.barrier, 32);
    return words;
}

void* shared_memory() { return machine.shared.data(); }

namespace {
enum Outcome { DONE, UNKNOWN, ARGUMENTS, THREADS, STUCK, OUTSIDE };

// The place of the i-th of `count` things whose turns are taken forwards, backwards, or mixed up.
unsigned turn(unsigned i, unsigned count, unsigned order) {
    if (order == 0) return i;
    if (order == 1) return count - 1 - i;
    // 7919 is a prime, and no block or grid here is a multiple of it.
    return (unsigned)((uint64_t)i * 7919 % count);
}

// Lets the threads of a warp go on until all have ended or wait for the block; returns how many ended.
unsigned run_warp(unsigned warp, unsigned order) {
    for (unsigned i = 0; i < 32; i++) machine.turns[i] = warp * 32 + turn(i, 32, order);
    machine.ended = 0;
    for (size_t before = machine.progress - 1; before != machine.progress;) {
        before = machine.progress;
        machine.turn = 0;
        go_on_with_next(&machine.scheduler);
    }
    return machine.ended;
}

// A warp is as far ahead of the others as it can be: what it writes too early is there when they read.
Outcome run_block(unsigned threads, size_t shared, unsigned order) {
    unsigned warps = threads / 32;
    machine.shared.assign(shared + GUARD, 0xff);
    machine.block = {};
    for (unsigned warp = 0; warp < warps; warp++) machine.warps[warp].barrier = {};
    for (unsigned i = 0; i < threads; i++) begin(i);
    for (unsigned left = threads; left > 0;) {
        size_t before = machine.progress;
        for (unsigned i = 0; i < warps; i++) left -= run_warp(turn(i, warps, order), order);
        if (machine.progress == before) return STUCK;
    }
    for (size_t i = shared; i < shared + GUARD; i++) {
        if (machine.shared[i] != 0xff) return OUTSIDE;
    }
    return DONE;
}
}  // namespace
}  // namespace emulated

using namespace emulated;

// How many arguments a kernel has, or -1 where there is none of that name.
extern "C" int emulated_arguments(const char* kernel) {
    auto found = known().find(kernel);
    return found == known().end() ? -1 : (int)found->second.arguments;
}

extern "C" int emulated_launch(const char* kernel, unsigned columns, unsigned rows, unsigned threads, size_t shared,
                               Words words, unsigned count, unsigned order) {
    auto found = known().find(kernel);
    if (found == known().end()) return UNKNOWN;
    if (found->second.arguments != count) return ARGUMENTS;
    if (threads == 0 || threads % 32 != 0 || threads > 1024) return THREADS;
    machine.call = found->second.call;
    machine.words = words;
    blockDim = {threads, 1};
    gridDim = {columns, rows};
    for (unsigned i = 0; i < columns * rows; i++) {
        unsigned block = turn(i, columns * rows, order);
        blockIdx = {block % columns, block / columns};
        if (Outcome outcome = run_block(threads, shared, order)) return outcome;
    }
    return DONE;
}

namespace {
template <class T> float element(const void* of, size_t row, size_t column, size_t rows, size_t columns, int transposed) {
    const T* all = static_cast<const T*>(of);
    return number(all[transposed ? column * rows + row : row * columns + column]);
}

template <class T, class O>
void multiply(const void* a, int a_transposed, const void* b, int b_transposed, O* c, size_t m, size_t n, size_t k, int add) {
    std::vector<float> left(k), right(n * k);
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < k; i++) right[j * k + i] = element<T>(b, i, j, k, n, b_transposed);
    }
    for (size_t row = 0; row < m; row++) {
        for (size_t i = 0; i < k; i++) left[i] = element<T>(a, row, i, m, k, a_transposed);
        for (size_t column = 0; column < n; column++) {
            float sum = 0;
            for (size_t i = 0; i < k; i++) sum += left[i] * right[column * k + i];
            O& to = c[row * n + column];
            to = nearest<O>(add ? number(to) + sum : sum);
        }
    }
}
}  // namespace

// c (m, n) = or += a (m, k) b (k, n), each stored by rows, or by columns where it is transposed.
extern "C" void emulated_product(const void* a, int a_transposed, const void* b, int b_transposed, void* c, size_t m, size_t n,
                                 size_t k, int bf16_in, int bf16_out, int add) {
    if (bf16_in && bf16_out) multiply<bf16>(a, a_transposed, b, b_transposed, static_cast<bf16*>(c), m, n, k, add);
    if (bf16_in && !bf16_out) multiply<bf16>(a, a_transposed, b, b_transposed, static_cast<float*>(c), m, n, k, add);
    if (!bf16_in && !bf16_out) multiply<float>(a, a_transposed, b, b_transposed, static_cast<float*>(c), m, n, k, add);
}
