// The memory and the streams of a GPU that is not there.
//
// What is launched on a stream waits there until somebody waits for it: a host that reads a result without having waited
// reads what was there before. Copies from and to memory that is not pinned happen as a driver has them, at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace device {

using Address = uint64_t;

// Everything below is for one thread at a time.
std::recursive_mutex &lock();

// ---- Memory ----

struct Usage {
    uint64_t in_use, total;
};
Usage usage();
void limit(uint64_t bytes);

// An array of so many bytes, none of them zero by chance; 0 where the device has too few left. Its address is a host's.
Address allocate(uint64_t bytes);
// From here on the array is nobody's to name, but what was launched before may still use it.
bool retire(Address array);
// Makes what an array holds mean nothing.
void forget(Address array);
// Gives a retired array back. Ends the process where a kernel has written beside it.
void release(Address array);
// Whether the bytes lie within one array that has not been retired.
bool holds(Address at, uint64_t bytes);
// As `holds`, for work that was accepted before: a retired array still counts.
bool still_holds(Address at);
// Ends the process if there is a byte written before or behind the array that this address is in.
void check_surroundings(Address at, const char *kernel);

void *allocate_pinned(uint64_t bytes);
bool release_pinned(void *at);
bool is_pinned(const void *at);

// ---- Streams ----

using Work = std::function<void()>;

// What was captured from a stream, to be done as often as it is launched. Arrays that were allocated in it are its own.
struct Graph {
    std::vector<Work> works;
    std::vector<Address> arrays;
    std::set<Address> not_given_back;
    ~Graph();
};
using GraphAt = std::shared_ptr<Graph>;

struct Stream {
    std::deque<Work> waiting;
    // Where it is captured: what is given to it goes there.
    GraphAt capturing;
    // How much was given to the stream, and how much of it is done.
    uint64_t given = 0, done = 0;
};
using StreamAt = std::shared_ptr<Stream>;

// A place in a stream: what was given to it before.
struct Mark {
    std::weak_ptr<Stream> stream;
    uint64_t given = 0;
    bool reached() const;
};

void *new_stream();
// The stream of a handle, also of the handles that stand for the thread's own; null where there is none.
StreamAt stream(void *handle);
bool destroy_stream(void *handle);
void give(const StreamAt &stream, Work work);
// Does what the stream was given, up to a mark or all of it.
void finish(const Mark &mark);
void finish(const StreamAt &stream);
void finish_all();
Mark mark(const StreamAt &stream);

}  // namespace device
