// libcuda.so.1 without a GPU: those functions of CUDA's driver interface that the engine's libraries call, by the names and
// the numbers that cuda.h gives them. Kernels are found by name among those compiled for the host; which machine code a
// module holds is not looked at.
#include "../emulator.hpp"
#include "device.hpp"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#define DRIVER extern "C" __attribute__((visibility("default")))

extern "C" int emulator_parameters(const char *name, const unsigned char **types);
extern "C" int emulator_launch(const char *name, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes,
                               void **arguments, uint64_t seed);

namespace {

using device::Address;
using Guard = std::lock_guard<std::recursive_mutex>;

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_UNMATCHED = 903,
};

constexpr unsigned POINTER = 64;
// A block's dynamic shared memory, unless the function was told that it may have more; and the most.
constexpr unsigned SHARED_BYTES = 48 << 10;
constexpr unsigned MOST_SHARED_BYTES = 227 << 10;

struct Function {
    std::string name;
    std::vector<unsigned char> types;
    unsigned shared_bytes = SHARED_BYTES;
};

struct Event {
    device::Mark mark;
};

struct Counts {
    uint64_t launches, waits, graphs;
};
Counts counts;

std::map<std::string, Function> functions;
std::set<Event *> events;
int context;
thread_local void *current_context = nullptr;

int refuse(Result result, const char *what, const char *name = "") {
    std::fprintf(stderr, "emulated driver: %s %s\n", what, name);
    return result;
}

bool in_context() { return current_context != nullptr; }

// Whether a stream is captured, where what was asked for is done at once or not at all.
bool refuses_capture(const device::StreamAt &stream, const char *what) {
    if (stream->capturing) refuse(CAPTURE_UNSUPPORTED, "a stream is captured that is asked for", what);
    return stream->capturing != nullptr;
}

// Waits of the host, not those of one stream for another.
void wait(const device::StreamAt &stream) {
    counts.waits++;
    device::finish(stream);
}

void run(const Function &function, const unsigned (&grid)[3], const unsigned (&block)[3], unsigned shared,
         std::vector<uint64_t> words, uint64_t seed) {
    const char *name = function.name.c_str();
    std::vector<void *> arguments;
    for (size_t i = 0; i < words.size(); i++) {
        arguments.push_back(&words[i]);
        if (function.types[i] >= POINTER && words[i] != 0 && !device::still_holds(words[i])) {
            refuse(ILLEGAL_ADDRESS, "an array was given back on another stream before this kernel ran:", name);
            std::abort();
        }
    }
    // What is replayed runs in another order each time.
    if (emulator_launch(name, grid, block, shared, arguments.data(), seed + counts.graphs * 1000003) != 0) std::abort();
    for (size_t i = 0; i < words.size(); i++)
        if (function.types[i] >= POINTER) device::check_surroundings(words[i], name);
}

int copy(Address to, Address from, uint64_t bytes, void *handle) {
    device::StreamAt stream = device::stream(handle);
    if (!stream) return INVALID_HANDLE;
    device::give(stream, [=] { std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes); });
    return SUCCESS;
}

int to_device(Address to, const void *from, uint64_t bytes, void *handle) {
    if (!in_context()) return INVALID_CONTEXT;
    if (bytes == 0) return SUCCESS;
    if (!device::holds(to, bytes)) return refuse(INVALID_VALUE, "a copy to the device leaves its array");
    if (device::is_pinned(from)) return copy(to, reinterpret_cast<Address>(from), bytes, handle);
    device::StreamAt stream = device::stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (refuses_capture(stream, "a copy from memory that may be gone")) return CAPTURE_UNSUPPORTED;
    auto *start = static_cast<const unsigned char *>(from);
    device::give(stream, [to, staged = std::vector<unsigned char>(start, start + bytes)] {
        std::memcpy(reinterpret_cast<void *>(to), staged.data(), staged.size());
    });
    return SUCCESS;
}

int to_host(void *to, Address from, uint64_t bytes, void *handle) {
    if (!in_context()) return INVALID_CONTEXT;
    if (bytes == 0) return SUCCESS;
    if (!device::holds(from, bytes)) return refuse(INVALID_VALUE, "a copy from the device leaves its array");
    device::StreamAt stream = device::stream(handle);
    if (stream && !device::is_pinned(to) && refuses_capture(stream, "a copy that is waited for")) return CAPTURE_UNSUPPORTED;
    int result = copy(reinterpret_cast<Address>(to), from, bytes, handle);
    if (result == SUCCESS && !device::is_pinned(to)) wait(device::stream(handle));
    return result;
}

int fill(Address to, unsigned value, unsigned width, uint64_t count, void *handle) {
    if (!in_context()) return INVALID_CONTEXT;
    if (count == 0) return SUCCESS;
    if (!device::holds(to, count * width)) return refuse(INVALID_VALUE, "a fill leaves its array");
    device::StreamAt stream = device::stream(handle);
    if (!stream) return INVALID_HANDLE;
    device::give(stream, [=] {
        auto *at = reinterpret_cast<unsigned char *>(to);
        for (uint64_t i = 0; i < count; i++) std::memcpy(at + i * width, &value, width);
    });
    return SUCCESS;
}

}  // namespace

// ---- What tests ask ----

DRIVER void emulated_device_limit(uint64_t bytes) {
    Guard guard(device::lock());
    device::limit(bytes);
}

DRIVER void emulated_device_usage(uint64_t out[5]) {
    Guard guard(device::lock());
    out[0] = device::usage().in_use;
    out[1] = device::usage().total;
    out[2] = counts.launches;
    out[3] = counts.waits;
    out[4] = counts.graphs;
}

// ---- Devices and contexts ----

DRIVER int cuInit(unsigned) { return SUCCESS; }

DRIVER int cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}

DRIVER int cuDeviceGetCount(int *count) {
    *count = 1;
    return SUCCESS;
}

DRIVER int cuDeviceGet(int *out, int ordinal) {
    *out = ordinal;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

DRIVER int cuDeviceGetName(char *name, int room, int) {
    std::snprintf(name, static_cast<size_t>(room), "Emulated GPU");
    return SUCCESS;
}

DRIVER int cuDeviceGetUuid_v2(void *uuid, int) {
    std::memset(uuid, 0xe0, 16);
    return SUCCESS;
}

DRIVER int cuDeviceGetUuid(void *uuid, int number) { return cuDeviceGetUuid_v2(uuid, number); }

DRIVER int cuDeviceTotalMem_v2(size_t *bytes, int) {
    Guard guard(device::lock());
    *bytes = device::usage().total;
    return SUCCESS;
}

DRIVER int cuDeviceGetAttribute(int *value, int attribute, int) {
    static const std::map<int, int> ATTRIBUTES = {
        {1, 1024},                // threads of a block
        {2, 1024},  {3, 1024}, {4, 64},
        {5, INT32_MAX}, {6, 65535}, {7, 65535},
        {8, SHARED_BYTES},        // shared memory of a block
        {10, 32},                 // threads of a warp
        {16, 2},                  // multiprocessors
        {39, 2048},               // threads of a multiprocessor
        {75, 9},    {76, 0},      // compute capability
        {81, 228 << 10},          // shared memory of a multiprocessor
        {97, MOST_SHARED_BYTES},  // shared memory of a block that asks for it
        {115, 1},                 // memory pools
    };
    auto found = ATTRIBUTES.find(attribute);
    if (found == ATTRIBUTES.end())
        return refuse(INVALID_VALUE, "has no attribute", std::to_string(attribute).c_str());
    *value = found->second;
    return SUCCESS;
}

DRIVER int cuDevicePrimaryCtxRetain(void **out, int number) {
    if (number != 0) return INVALID_DEVICE;
    *out = &context;
    return SUCCESS;
}

DRIVER int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

DRIVER int cuCtxGetCurrent(void **out) {
    *out = current_context;
    return SUCCESS;
}

DRIVER int cuCtxSetCurrent(void *to) {
    current_context = to;
    return SUCCESS;
}

DRIVER int cuCtxSetFlags(unsigned) { return SUCCESS; }

DRIVER int cuCtxSynchronize() {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    counts.waits++;
    device::finish_all();
    return SUCCESS;
}

// ---- Streams and events ----

DRIVER int cuStreamCreate(void **stream, unsigned) {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    *stream = device::new_stream();
    return SUCCESS;
}

DRIVER int cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

DRIVER int cuStreamDestroy_v2(void *stream) {
    Guard guard(device::lock());
    return device::destroy_stream(stream) ? SUCCESS : INVALID_HANDLE;
}

DRIVER int cuStreamSynchronize(void *handle) {
    Guard guard(device::lock());
    device::StreamAt stream = device::stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (refuses_capture(stream, "a wait")) return CAPTURE_UNSUPPORTED;
    wait(stream);
    return SUCCESS;
}

DRIVER int cuStreamQuery(void *handle) {
    Guard guard(device::lock());
    device::StreamAt stream = device::stream(handle);
    if (!stream) return INVALID_HANDLE;
    return stream->waiting.empty() ? SUCCESS : NOT_READY;
}

DRIVER int cuStreamIsCapturing(void *handle, int *status) {
    Guard guard(device::lock());
    device::StreamAt stream = device::stream(handle);
    if (!stream) return INVALID_HANDLE;
    *status = stream->capturing ? 1 : 0;
    return SUCCESS;
}

DRIVER int cuStreamBeginCapture_v2(void *handle, int) {
    Guard guard(device::lock());
    device::StreamAt stream = device::stream(handle);
    if (!stream || reinterpret_cast<uintptr_t>(handle) <= 2) return INVALID_HANDLE;
    if (refuses_capture(stream, "another capture")) return CAPTURE_UNSUPPORTED;
    stream->capturing = std::make_shared<device::Graph>();
    return SUCCESS;
}

// A graph, and what it is made of when it can be launched, are the same here.
DRIVER int cuStreamEndCapture(void *handle, void **graph) {
    Guard guard(device::lock());
    device::StreamAt stream = device::stream(handle);
    *graph = nullptr;
    if (!stream) return INVALID_HANDLE;
    if (!stream->capturing) return refuse(CAPTURE_UNMATCHED, "no capture ends");
    *graph = new device::GraphAt(std::move(stream->capturing));
    stream->capturing = nullptr;
    return SUCCESS;
}

DRIVER int cuGraphInstantiateWithFlags(void **out, void *handle, uint64_t flags) {
    Guard guard(device::lock());
    auto &graph = *static_cast<device::GraphAt *>(handle);
    // A driver would refuse the second launch.
    if (!graph->not_given_back.empty()) return refuse(INVALID_VALUE, "a captured array is not given back in its graph");
    if (flags != 0) return refuse(INVALID_VALUE, "has no such flags of graphs");
    *out = new device::GraphAt(graph);
    return SUCCESS;
}

DRIVER int cuGraphLaunch(void *handle, void *stream_handle) {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    device::StreamAt stream = device::stream(stream_handle);
    if (!stream) return INVALID_HANDLE;
    if (refuses_capture(stream, "a graph within a graph")) return CAPTURE_UNSUPPORTED;
    counts.launches++;
    counts.graphs++;
    device::give(stream, [graph = *static_cast<device::GraphAt *>(handle)] {
        for (const device::Work &work : graph->works) work();
    });
    return SUCCESS;
}

DRIVER int cuGraphDestroy(void *handle) {
    Guard guard(device::lock());
    delete static_cast<device::GraphAt *>(handle);
    return SUCCESS;
}

DRIVER int cuGraphExecDestroy(void *handle) { return cuGraphDestroy(handle); }

DRIVER int cuStreamWaitEvent(void *handle, void *event, unsigned) {
    Guard guard(device::lock());
    device::StreamAt stream = device::stream(handle);
    auto *it = static_cast<Event *>(event);
    if (!stream || events.count(it) == 0) return INVALID_HANDLE;
    device::give(stream, [mark = it->mark] { device::finish(mark); });
    return SUCCESS;
}

DRIVER int cuEventCreate(void **event, unsigned) {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    auto *it = new Event;
    events.insert(it);
    *event = it;
    return SUCCESS;
}

DRIVER int cuEventDestroy_v2(void *event) {
    Guard guard(device::lock());
    auto *it = static_cast<Event *>(event);
    if (events.erase(it) == 0) return INVALID_HANDLE;
    delete it;
    return SUCCESS;
}

DRIVER int cuEventRecord(void *event, void *handle) {
    Guard guard(device::lock());
    device::StreamAt stream = device::stream(handle);
    auto *it = static_cast<Event *>(event);
    if (!stream || events.count(it) == 0) return INVALID_HANDLE;
    it->mark = device::mark(stream);
    return SUCCESS;
}

DRIVER int cuEventQuery(void *event) {
    Guard guard(device::lock());
    auto *it = static_cast<Event *>(event);
    if (events.count(it) == 0) return INVALID_HANDLE;
    return it->mark.reached() ? SUCCESS : NOT_READY;
}

DRIVER int cuEventSynchronize(void *event) {
    Guard guard(device::lock());
    auto *it = static_cast<Event *>(event);
    if (events.count(it) == 0) return INVALID_HANDLE;
    counts.waits++;
    device::finish(it->mark);
    return SUCCESS;
}

DRIVER int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    Guard guard(device::lock());
    for (void *event : {start, end})
        if (events.count(static_cast<Event *>(event)) == 0) return INVALID_HANDLE;
    *milliseconds = 0.0f;
    return SUCCESS;
}

DRIVER int cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
    return cuEventElapsedTime(milliseconds, start, end);
}

// ---- Memory ----

DRIVER int cuMemGetInfo_v2(size_t *free, size_t *total) {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    device::Usage usage = device::usage();
    *free = usage.in_use < usage.total ? usage.total - usage.in_use : 0;
    *total = usage.total;
    return SUCCESS;
}

DRIVER int cuMemAlloc_v2(Address *out, size_t bytes) {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    *out = device::allocate(bytes);
    return *out == 0 ? OUT_OF_MEMORY : SUCCESS;
}

DRIVER int cuMemAllocAsync(Address *out, size_t bytes, void *stream) {
    Guard guard(device::lock());
    device::StreamAt on = device::stream(stream);
    if (!on) return INVALID_HANDLE;
    *out = 0;
    if (bytes == 0) return SUCCESS;
    int result = cuMemAlloc_v2(out, bytes);
    if (result == SUCCESS && on->capturing) {
        on->capturing->arrays.push_back(*out);
        on->capturing->not_given_back.insert(*out);
        device::give(on, [at = *out] { device::forget(at); });
    }
    return result;
}

DRIVER int cuMemFree_v2(Address at) {
    Guard guard(device::lock());
    if (at == 0) return SUCCESS;
    if (!device::retire(at)) return refuse(INVALID_VALUE, "what is given back was not allocated");
    device::finish_all();
    device::release(at);
    return SUCCESS;
}

DRIVER int cuMemFreeAsync(Address at, void *handle) {
    Guard guard(device::lock());
    device::StreamAt stream = device::stream(handle);
    if (!stream) return INVALID_HANDLE;
    if (at == 0) return SUCCESS;
    if (stream->capturing && stream->capturing->not_given_back.erase(at) == 0)
        return refuse(INVALID_VALUE, "what is given back in a graph was allocated elsewhere");
    if (!device::retire(at)) return refuse(INVALID_VALUE, "what is given back was not allocated");
    if (stream->capturing) device::give(stream, [at] { device::forget(at); });
    else device::give(stream, [at] { device::release(at); });
    return SUCCESS;
}

DRIVER int cuMemHostAlloc(void **out, size_t bytes, unsigned) {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    *out = device::allocate_pinned(bytes);
    return SUCCESS;
}

DRIVER int cuMemFreeHost(void *at) {
    Guard guard(device::lock());
    device::finish_all();
    return device::release_pinned(at) ? SUCCESS : INVALID_VALUE;
}

DRIVER int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
    Guard guard(device::lock());
    return to_device(to, from, bytes, stream);
}

DRIVER int cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) {
    Guard guard(device::lock());
    device::finish_all();
    int result = to_device(to, from, bytes, nullptr);
    wait(device::stream(nullptr));
    return result;
}

DRIVER int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
    Guard guard(device::lock());
    return to_host(to, from, bytes, stream);
}

DRIVER int cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) {
    Guard guard(device::lock());
    device::finish_all();
    int result = to_host(to, from, bytes, nullptr);
    device::finish_all();
    return result;
}

DRIVER int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    if (bytes == 0) return SUCCESS;
    if (!device::holds(to, bytes) || !device::holds(from, bytes))
        return refuse(INVALID_VALUE, "a copy within the device leaves its array");
    return copy(to, from, bytes, stream);
}

DRIVER int cuMemcpyDtoD_v2(Address to, Address from, size_t bytes) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
}

DRIVER int cuMemsetD8Async(Address to, unsigned char value, size_t count, void *stream) {
    Guard guard(device::lock());
    return fill(to, value, 1, count, stream);
}

DRIVER int cuMemsetD32Async(Address to, unsigned value, size_t count, void *stream) {
    Guard guard(device::lock());
    return fill(to, value, 4, count, stream);
}

DRIVER int cuMemsetD8_v2(Address to, unsigned char value, size_t count) { return cuMemsetD8Async(to, value, count, nullptr); }

DRIVER int cuMemsetD32_v2(Address to, unsigned value, size_t count) { return cuMemsetD32Async(to, value, count, nullptr); }

DRIVER int cuDeviceGetDefaultMemPool(void **pool, int) {
    *pool = &context;
    return SUCCESS;
}

DRIVER int cuDeviceGetMemPool(void **pool, int number) { return cuDeviceGetDefaultMemPool(pool, number); }

DRIVER int cuMemPoolSetAttribute(void *, int, void *) { return SUCCESS; }

DRIVER int cuMemPoolTrimTo(void *, size_t) { return SUCCESS; }

// ---- Kernels ----

DRIVER int cuModuleLoadData(void **module, const void *image) {
    if (!in_context()) return INVALID_CONTEXT;
    if (image == nullptr) return INVALID_VALUE;
    *module = &context;
    return SUCCESS;
}

DRIVER int cuModuleLoadDataEx(void **module, const void *image, unsigned, int *, void **) {
    return cuModuleLoadData(module, image);
}

DRIVER int cuModuleUnload(void *) { return SUCCESS; }

DRIVER int cuModuleGetFunction(void **out, void *, const char *name) {
    Guard guard(device::lock());
    const unsigned char *types = nullptr;
    int count = emulator_parameters(name, &types);
    if (count < 0) return refuse(NOT_FOUND, "has no kernel", name);
    auto &function = functions[name];
    function.name = name;
    function.types.assign(types, types + count);
    *out = &function;
    return SUCCESS;
}

DRIVER int cuFuncSetAttribute(void *function, int attribute, int value) {
    Guard guard(device::lock());
    constexpr int DYNAMIC_SHARED_BYTES = 8, CARVEOUT = 9;
    if (attribute == CARVEOUT) return SUCCESS;
    if (attribute != DYNAMIC_SHARED_BYTES || value < 0 || static_cast<unsigned>(value) > MOST_SHARED_BYTES)
        return refuse(INVALID_VALUE, "sets no such attribute of a kernel");
    static_cast<Function *>(function)->shared_bytes = static_cast<unsigned>(value);
    return SUCCESS;
}

DRIVER int cuLaunchKernel(void *handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared, void *stream_handle, void **arguments,
                          void **) {
    Guard guard(device::lock());
    if (!in_context()) return INVALID_CONTEXT;
    device::StreamAt stream = device::stream(stream_handle);
    if (!stream || handle == nullptr) return INVALID_HANDLE;
    const Function &function = *static_cast<Function *>(handle);
    uint64_t threads = static_cast<uint64_t>(block_x) * block_y * block_z;
    bool fits = threads > 0 && threads <= 1024 && block_z <= 64 && grid_x > 0 && grid_y > 0 && grid_z > 0 &&
                grid_x <= INT32_MAX && grid_y < 65536 && grid_z < 65536;
    if (!fits) return refuse(INVALID_VALUE, "no GPU launches this shape:", function.name.c_str());
    if (shared > function.shared_bytes)
        return refuse(INVALID_VALUE, "more shared memory than was asked for:", function.name.c_str());
    std::vector<uint64_t> words;
    for (size_t i = 0; i < function.types.size(); i++) {
        uint64_t word = 0;
        bool pointer = function.types[i] >= POINTER;
        std::memcpy(&word, arguments[i], pointer ? sizeof word : function.types[i]);
        if (pointer && word != 0 && !device::holds(word, 0))
            return refuse(ILLEGAL_ADDRESS, "an argument is outside of all arrays:", function.name.c_str());
        words.push_back(word);
    }
    uint64_t seed = counts.launches++;
    device::give(stream, [=, &function] {
        run(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, words, seed);
    });
    return SUCCESS;
}

// ---- Errors ----

DRIVER int cuGetErrorName(int error, const char **name) {
    static const std::map<int, const char *> NAMES = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"},
    };
    auto found = NAMES.find(error);
    *name = found == NAMES.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
    return SUCCESS;
}

DRIVER int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }
