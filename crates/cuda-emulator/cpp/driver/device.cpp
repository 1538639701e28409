#include "device.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>
#include <utility>

namespace device {

namespace {

// Before and behind each array: bytes that no kernel has a reason to write.
constexpr size_t SURROUNDINGS = 256;
constexpr unsigned char UNTOUCHED = 0x5c;
// What an array holds before anything is written: as a float neither small nor a whole number, as an index far outside.
constexpr unsigned char UNWRITTEN = 0xc5;

struct Array {
    std::unique_ptr<unsigned char[]> block;
    uint64_t bytes;
    bool retired;
};

struct State {
    std::recursive_mutex lock;
    std::map<Address, Array> arrays;
    std::map<uintptr_t, std::pair<std::unique_ptr<unsigned char[]>, uint64_t>> pinned;
    std::map<void *, StreamAt> streams;
    std::map<std::thread::id, StreamAt> of_threads;
    uint64_t in_use = 0, total = 1ull << 30;
    uintptr_t next_stream = 0x1000;
};

// Never destroyed: threads may end after it would be.
State &state() {
    static State &it = *new State;
    return it;
}

[[noreturn]] void fail(const char *what, const char *kernel, uint64_t bytes) {
    std::fprintf(stderr, "emulated device: %s (kernel %s, array of %llu bytes)\n", what, kernel,
                 static_cast<unsigned long long>(bytes));
    std::abort();
}

std::map<Address, Array>::iterator containing(Address at) {
    auto &arrays = state().arrays;
    auto after = arrays.upper_bound(at);
    if (after == arrays.begin()) return arrays.end();
    auto found = std::prev(after);
    return at - found->first <= found->second.bytes ? found : arrays.end();
}

void check(Address start, const Array &array, const char *kernel) {
    auto *data = reinterpret_cast<const unsigned char *>(start);
    for (size_t i = 1; i <= SURROUNDINGS; i++)
        if (data[-static_cast<ptrdiff_t>(i)] != UNTOUCHED) fail("something was written before an array", kernel, array.bytes);
    for (size_t i = 0; i < SURROUNDINGS; i++)
        if (data[array.bytes + i] != UNTOUCHED) fail("something was written behind an array", kernel, array.bytes);
}

}  // namespace

std::recursive_mutex &lock() { return state().lock; }

Usage usage() { return {state().in_use, state().total}; }

void limit(uint64_t bytes) { state().total = bytes; }

Address allocate(uint64_t bytes) {
    State &s = state();
    if (bytes > s.total || s.in_use > s.total - bytes) return 0;
    // Arrays begin at multiples of 256 bytes, as a driver's do.
    std::unique_ptr<unsigned char[]> block(new unsigned char[bytes + 3 * SURROUNDINGS]);
    auto raw = reinterpret_cast<uintptr_t>(block.get());
    uintptr_t start = (raw + SURROUNDINGS + 255) / 256 * 256;
    auto *data = reinterpret_cast<unsigned char *>(start);
    std::memset(data - SURROUNDINGS, UNTOUCHED, SURROUNDINGS);
    std::memset(data, UNWRITTEN, bytes);
    std::memset(data + bytes, UNTOUCHED, SURROUNDINGS);
    s.arrays.emplace(start, Array{std::move(block), bytes, false});
    s.in_use += bytes;
    return start;
}

bool retire(Address at) {
    auto found = state().arrays.find(at);
    if (found == state().arrays.end() || found->second.retired) return false;
    found->second.retired = true;
    state().in_use -= found->second.bytes;
    return true;
}

void forget(Address at) {
    auto found = state().arrays.find(at);
    if (found != state().arrays.end()) std::memset(reinterpret_cast<void *>(at), UNWRITTEN, found->second.bytes);
}

Graph::~Graph() {
    for (Address at : not_given_back) retire(at);
    for (Address at : arrays) release(at);
}

void release(Address at) {
    auto found = state().arrays.find(at);
    check(at, found->second, "unknown");
    state().arrays.erase(found);
}

bool holds(Address at, uint64_t bytes) {
    auto found = containing(at);
    return found != state().arrays.end() && !found->second.retired && bytes <= found->second.bytes - (at - found->first);
}

bool still_holds(Address at) { return containing(at) != state().arrays.end(); }

void check_surroundings(Address at, const char *kernel) {
    auto found = containing(at);
    if (found != state().arrays.end()) check(found->first, found->second, kernel);
}

void *allocate_pinned(uint64_t bytes) {
    std::unique_ptr<unsigned char[]> block(new unsigned char[bytes]);
    std::memset(block.get(), UNWRITTEN, bytes);
    auto at = reinterpret_cast<uintptr_t>(block.get());
    state().pinned.emplace(at, std::make_pair(std::move(block), bytes));
    return reinterpret_cast<void *>(at);
}

bool release_pinned(void *at) { return state().pinned.erase(reinterpret_cast<uintptr_t>(at)) == 1; }

bool is_pinned(const void *at) {
    auto place = reinterpret_cast<uintptr_t>(at);
    auto after = state().pinned.upper_bound(place);
    if (after == state().pinned.begin()) return false;
    auto found = std::prev(after);
    return place - found->first < found->second.second;
}

bool Mark::reached() const {
    StreamAt of = stream.lock();
    return !of || of->done >= given;
}

void *new_stream() {
    auto *handle = reinterpret_cast<void *>(state().next_stream += 16);
    state().streams.emplace(handle, std::make_shared<Stream>());
    return handle;
}

StreamAt stream(void *handle) {
    State &s = state();
    // The default stream, and the two handles that a driver has for "the default" and "this thread's".
    auto number = reinterpret_cast<uintptr_t>(handle);
    if (number == 2) {
        StreamAt &own = s.of_threads[std::this_thread::get_id()];
        if (!own) own = std::make_shared<Stream>();
        return own;
    }
    if (number <= 1) {
        StreamAt &common = s.streams[nullptr];
        if (!common) common = std::make_shared<Stream>();
        return common;
    }
    auto found = s.streams.find(handle);
    return found == s.streams.end() ? nullptr : found->second;
}

bool destroy_stream(void *handle) {
    auto found = state().streams.find(handle);
    if (handle == nullptr || found == state().streams.end()) return false;
    finish(found->second);
    state().streams.erase(found);
    return true;
}

void give(const StreamAt &to, Work work) {
    if (to->capturing) {
        to->capturing->works.push_back(std::move(work));
        return;
    }
    to->waiting.push_back(std::move(work));
    to->given++;
}

void finish(const Mark &mark) {
    StreamAt of = mark.stream.lock();
    while (of && of->done < mark.given) {
        Work work = std::move(of->waiting.front());
        of->waiting.pop_front();
        work();
        of->done++;
    }
}

void finish(const StreamAt &stream) { finish(mark(stream)); }

void finish_all() {
    for (auto &[handle, stream] : state().streams) finish(stream);
    for (auto &[thread, stream] : state().of_threads) finish(stream);
}

Mark mark(const StreamAt &stream) { return {stream, stream->given}; }

}  // namespace device
