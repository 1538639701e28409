// Runs a kernel's blocks one after another, the threads of a block as coroutines.
#include "emulator.hpp"

#include "coroutine.hpp"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#ifdef __x86_64__
asm(R"(
    .text
    .globl emulator_change_stack
    .hidden emulator_change_stack
    .type emulator_change_stack, @function
emulator_change_stack:
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
    .size emulator_change_stack, . - emulator_change_stack
)");
#endif

namespace emulator {

thread_local Place here;

namespace {

constexpr unsigned WARP = 32;
constexpr unsigned MOST_EXCHANGED = 32;
// What shared memory holds before it is written to, and how many bytes behind it have to hold it still.
constexpr unsigned char UNWRITTEN = 0xc5;
constexpr unsigned SHARED_GUARD = 1024;

struct Kernel {
    Entry entry;
    const unsigned char *types;
    unsigned parameters;
};

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, Returned };

struct Copy {
    void *to;
    const void *from;
    unsigned bytes;
    bool valid;
};

struct Thread {
    Coroutine coroutine;
    Place place;
    State state = State::Ready;
    // Groups of copies that are under way, the last one open.
    std::vector<std::vector<Copy>> copies;
};

struct Warp {
    // What lanes exchange, twice: a fast lane may give its next value while slow ones still read.
    alignas(16) unsigned char given[2][WARP][MOST_EXCHANGED];
    unsigned turn[WARP] = {};
    // Lanes at the warp's barrier.
    unsigned waiting = 0;
};

// In which order threads go on where nothing but the seed says so.
enum class Order {
    // Any.
    Random,
    // One warp before all others, as far as barriers let it.
    Ahead,
    // One warp after all others.
    Behind,
};

struct Block {
    Entry entry;
    void **arguments;
    const char *name;
    Coroutine scheduler;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<unsigned char> shared;
    unsigned shared_bytes = 0;
    unsigned running = 0;
    uint64_t random = 0;
    Order order = Order::Random;
    // The warp that goes before or after all others.
    unsigned chosen_warp = 0;
};

thread_local Block *block = nullptr;

[[noreturn]] void fail(const char *what) {
    std::fprintf(stderr, "emulated kernel %s, block (%u, %u, %u), thread (%u, %u, %u): %s\n", block ? block->name : "?",
                 here.block.x, here.block.y, here.block.z, here.thread.x, here.thread.y, here.thread.z, what);
    std::abort();
}

Thread &current() { return block->threads[block->running]; }

void yield(State state) {
    Thread &thread = current();
    thread.state = state;
    Coroutine::change(thread.coroutine, block->scheduler);
}

[[noreturn]] void run_thread() {
    block->entry(block->arguments);
    // On a GPU a thread that ends does not take back its copies.
    wait_copies(0);
    yield(State::Returned);
    std::abort();
}

// xorshift64*.
unsigned draw(unsigned below) {
    uint64_t &x = block->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return static_cast<unsigned>((x * 0x2545f4914f6cdd1dull >> 33) % below);
}

// The place among those that are ready of the one that goes on.
unsigned choose(const std::vector<unsigned> &ready) {
    auto count = static_cast<unsigned>(ready.size());
    unsigned first = draw(count);
    if (block->order == Order::Random) return first;
    for (unsigned i = 0; i < count; i++) {
        unsigned place = (first + i) % count;
        if ((ready[place] / WARP == block->chosen_warp) == (block->order == Order::Ahead)) return place;
    }
    return first;
}

// Lets a warp go on whose lanes have all come, whatever other warps do.
void release_warp(unsigned index, std::vector<unsigned> &ready) {
    Warp &warp = block->warps[index];
    if (++warp.waiting < WARP) return;
    warp.waiting = 0;
    for (unsigned i = index * WARP; i < (index + 1) * WARP; i++) {
        block->threads[i].state = State::Ready;
        ready.push_back(i);
    }
}

// Lets all go on once all have come.
void release_block(std::vector<unsigned> &ready) {
    const Thread *waits_in_vain = nullptr;
    for (unsigned i = 0; i < block->threads.size(); i++) {
        Thread &thread = block->threads[i];
        if (thread.state == State::AtWarpBarrier) waits_in_vain = &thread;
        if (thread.state == State::AtBlockBarrier) ready.push_back(i);
    }
    if (waits_in_vain != nullptr) {
        here = waits_in_vain->place;
        fail("some threads wait where others never come: a barrier or an exchange within a branch?");
    }
    for (unsigned i : ready) block->threads[i].state = State::Ready;
}

// Fails if a block has written beyond the shared memory that it was given.
void check_guard() {
    auto end = static_cast<const unsigned char *>(dynamic_shared()) + block->shared_bytes;
    for (unsigned i = 0; i < SHARED_GUARD; i++)
        if (end[i] != UNWRITTEN) fail("the block has written beyond its shared memory");
}

void run_block(const Place &first, unsigned threads) {
    block->warps.assign((threads + WARP - 1) / WARP, Warp());
    block->chosen_warp = draw(static_cast<unsigned>(block->warps.size()));
    std::vector<unsigned> ready;
    for (unsigned i = 0; i < threads; i++) {
        Thread &thread = block->threads[i];
        thread.place = first;
        thread.place.thread = {i % first.block_dim.x, i / first.block_dim.x % first.block_dim.y,
                               i / (first.block_dim.x * first.block_dim.y)};
        thread.place.lane = i % WARP;
        thread.state = State::Ready;
        thread.copies.assign(1, {});
        thread.coroutine.start(run_thread);
        ready.push_back(i);
    }
    while (true) {
        while (!ready.empty()) {
            unsigned chosen = choose(ready);
            block->running = ready[chosen];
            ready[chosen] = ready.back();
            ready.pop_back();
            Thread &thread = block->threads[block->running];
            here = thread.place;
            Coroutine::change(block->scheduler, thread.coroutine);
            if (thread.state == State::AtWarpBarrier) release_warp(block->running / WARP, ready);
        }
        release_block(ready);
        if (ready.empty()) break;
    }
    check_guard();
}

}  // namespace

Registration::Registration(const char *name, Entry entry, const unsigned char *types, unsigned parameters) {
    if (!kernels().emplace(name, Kernel{entry, types, parameters}).second) {
        std::fprintf(stderr, "two kernels are called %s\n", name);
        std::abort();
    }
}

void block_barrier() { yield(State::AtBlockBarrier); }

void warp_barrier() { yield(State::AtWarpBarrier); }

void exchange(const void *value, unsigned bytes, void *all) {
    if (bytes > MOST_EXCHANGED) fail("lanes exchange too much at once");
    unsigned warp_index = block->running / WARP, lane = here.lane;
    Warp &warp = block->warps[warp_index];
    auto &given = warp.given[warp.turn[lane]++ & 1];
    std::memcpy(given[lane], value, bytes);
    warp_barrier();
    for (unsigned i = 0; i < WARP; i++) std::memcpy(static_cast<char *>(all) + i * bytes, given[i], bytes);
}

void *dynamic_shared() { return block->shared.data() + (16 - reinterpret_cast<uintptr_t>(block->shared.data()) % 16) % 16; }

void check_aligned(const void *at, unsigned bytes) {
    if (reinterpret_cast<uintptr_t>(at) % bytes != 0) fail("an address is not aligned");
}

void copy_later(void *to, const void *from, unsigned bytes, bool valid) {
    check_aligned(to, bytes);
    // A GPU asks it of an address that it does not read, too.
    check_aligned(from, bytes);
    current().copies.back().push_back({to, from, bytes, valid});
}

void end_copies() { current().copies.emplace_back(); }

void wait_copies(int groups_left) {
    auto &groups = current().copies;
    // The open group is not among those that are waited for, unless all are.
    size_t closed = groups.size() - 1, wait_for = closed > static_cast<size_t>(groups_left) ? closed - groups_left : 0;
    for (size_t group = 0; group < wait_for; group++)
        for (const Copy &copy : groups[group]) {
            if (copy.valid) std::memcpy(copy.to, copy.from, copy.bytes);
            else std::memset(copy.to, 0, copy.bytes);
        }
    groups.erase(groups.begin(), groups.begin() + static_cast<long>(wait_for));
}

}  // namespace emulator

using namespace emulator;

// The parameters of a kernel, and in `types` the code of each; −1 where there is no kernel of this name.
extern "C" int emulator_parameters(const char *name, const unsigned char **types) {
    auto found = kernels().find(name);
    if (found == kernels().end()) return -1;
    *types = found->second.types;
    return static_cast<int>(found->second.parameters);
}

// Runs a kernel: 0, or −1 where there is none of this name, −2 for a shape that no GPU launches.
extern "C" int emulator_launch(const char *name, const unsigned grid[3], const unsigned block_dim[3], unsigned shared_bytes,
                               void **arguments, uint64_t seed) {
    auto found = kernels().find(name);
    if (found == kernels().end()) return -1;
    unsigned threads = block_dim[0] * block_dim[1] * block_dim[2];
    bool fits = threads > 0 && threads <= 1024 && shared_bytes <= 227 * 1024 && grid[0] > 0 && grid[1] > 0 && grid[2] > 0 &&
                grid[1] < 65536 && grid[2] < 65536;
    if (!fits) return -2;
    Block run;
    run.entry = found->second.entry;
    run.arguments = arguments;
    run.name = name;
    run.threads = std::vector<Thread>(threads);
    // Not zero: a kernel that reads what it has not written shall not find what it wants.
    run.shared.assign(16 + shared_bytes + SHARED_GUARD, UNWRITTEN);
    run.shared_bytes = shared_bytes;
    run.random = seed * 2 + 1;
    run.order = seed % 4 == 1 ? Order::Ahead : seed % 4 == 2 ? Order::Behind : Order::Random;
    block = &run;
    Place place;
    place.grid_dim = {grid[0], grid[1], grid[2]};
    place.block_dim = {block_dim[0], block_dim[1], block_dim[2]};
    for (place.block.z = 0; place.block.z < grid[2]; place.block.z++)
        for (place.block.y = 0; place.block.y < grid[1]; place.block.y++)
            for (place.block.x = 0; place.block.x < grid[0]; place.block.x++) run_block(place, threads);
    block = nullptr;
    return 0;
}
