// Enough of CUDA's execution model to run kernels on the host: see emulator.cpp.
//
// A block's threads are coroutines of one host thread. They yield where they wait for each other, and who goes on then is
// drawn from a seed, or one warp goes before or after all others: a kernel that lacks a barrier gives another result under
// some seed. A barrier that not every thread reaches, a warp's exchange that not every lane takes part in, ends the program
// with a message.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

namespace emulator {

struct Dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// The coordinates of the thread that runs now.
struct Place {
    Dim3 thread, block, block_dim, grid_dim;
    unsigned lane;
};
extern thread_local Place here;

// Waits for all threads of the block that have not returned.
void block_barrier();
// Gives `value` to the lanes of this warp; `all[i]` is then what lane i gave. Every lane of the warp takes part.
void exchange(const void *value, unsigned bytes, void *all);
// Waits for all lanes of the warp.
void warp_barrier();
// The block's memory whose size the launch says.
void *dynamic_shared();
// Asynchronous copies: they happen when they are waited for, and not before.
void copy_later(void *to, const void *from, unsigned bytes, bool valid);
void end_copies();
// Ends the program where an address is not a multiple of so many bytes.
void check_aligned(const void *at, unsigned bytes);
void wait_copies(int groups_left);

// Makes a kernel known by its name. `types` has a byte for each parameter: the size of a value; for a pointer 64 more than
// the size of what it points to.
using Entry = void (*)(void **arguments);
struct Registration {
    Registration(const char *name, Entry entry, const unsigned char *types, unsigned parameters);
};

template <typename T>
constexpr unsigned char type_code = sizeof(T);
template <typename T>
constexpr unsigned char type_code<T *> = 64 + sizeof(T);

template <auto kernel>
struct Export;

template <typename... Parameters, void (*kernel)(Parameters...)>
struct Export<kernel> {
    template <size_t... Index>
    static void apply(void **arguments, std::index_sequence<Index...>) {
        kernel(*static_cast<Parameters *>(arguments[Index])...);
    }
    static void entry(void **arguments) { apply(arguments, std::index_sequence_for<Parameters...>()); }
    static constexpr unsigned char types[] = {type_code<Parameters>...};
    static constexpr unsigned parameters = sizeof...(Parameters);
};

template <typename T>
inline T shuffle(T value, unsigned source) {
    static_assert(sizeof(T) <= 8, "lanes exchange words");
    T all[32];
    exchange(&value, sizeof(T), all);
    return all[source & 31];
}

}  // namespace emulator

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Blocks of one host thread follow each other: what one leaves is what the next finds, as on a GPU.
#define __shared__ static thread_local
#define __constant__ static const

#define KERNEL(name) extern "C" void name
#define KERNEL_BOUNDS(name, threads, blocks) extern "C" void name
#define UNROLL
#define ROLL
#define EXPORT(name)                                                                       \
    static const emulator::Registration registration_##name(#name, emulator::Export<name>::entry, \
                                                            emulator::Export<name>::types,        \
                                                            emulator::Export<name>::parameters);
#define DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emulator::dynamic_shared())

#define threadIdx (emulator::here.thread)
#define blockIdx (emulator::here.block)
#define blockDim (emulator::here.block_dim)
#define gridDim (emulator::here.grid_dim)

constexpr unsigned ALL_LANES = 0xffffffffu;

struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp(unsigned = ALL_LANES) { emulator::warp_barrier(); }
template <typename T>
T __shfl_sync(unsigned, T value, int source) { return emulator::shuffle(value, source); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) { return emulator::shuffle(value, emulator::here.lane ^ mask); }
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta) {
    unsigned source = emulator::here.lane + delta;
    return emulator::shuffle(value, source < 32 ? source : emulator::here.lane);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
    return emulator::shuffle(value, emulator::here.lane >= delta ? emulator::here.lane - delta : emulator::here.lane);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
    int all[32];
    emulator::exchange(&predicate, sizeof predicate, all);
    unsigned mask = 0;
    for (unsigned lane = 0; lane < 32; lane++) mask |= static_cast<unsigned>(all[lane] != 0) << lane;
    return mask;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == ALL_LANES; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<uint64_t>(a) * b >> 32; }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
// Coroutines yield at barriers alone, so that nothing comes between.
template <typename T>
T atomicAdd(T *at, T value) { T old = *at; *at = old + value; return old; }
template <typename T>
T atomicMax(T *at, T value) { T old = *at; if (value > old) *at = value; return old; }
template <typename T>
T atomicMin(T *at, T value) { T old = *at; if (value < old) *at = value; return old; }
template <typename T>
T __ldg(const T *at) { return *at; }
inline void __threadfence() {}
inline void __threadfence_block() {}

inline float fma_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float add_rn(float a, float b) { return a + b; }
inline float sub_rn(float a, float b) { return a - b; }
inline float mul_rn(float a, float b) { return a * b; }
inline float divide_rn(float a, float b) { return a / b; }
inline float root_rn(float a) { return __builtin_sqrtf(a); }
inline float from_int(int a) { return static_cast<float>(a); }
inline uint32_t float_bits(float a) { uint32_t b; std::memcpy(&b, &a, 4); return b; }
inline float bits_float(uint32_t a) { float b; std::memcpy(&b, &a, 4); return b; }
// As the GPU's conversion: what does not fit saturates, NaN becomes 0.
inline int to_int(float a) {
    if (a != a) return 0;
    float nearest = __builtin_nearbyintf(a);
    if (nearest >= 2147483648.0f) return INT32_MAX;
    if (nearest <= -2147483648.0f) return INT32_MIN;
    return static_cast<int>(nearest);
}

inline float half_float(uint16_t bits) {
    uint32_t exponent = bits >> 10 & 0x1fu, fraction = bits & 0x3ffu;
    float y = exponent == 0      ? static_cast<float>(fraction) * 0x1p-24f
              : exponent == 0x1f ? bits_float(0x7f800000u | fraction << 13)
                                 : bits_float((exponent + 112u) << 23 | fraction << 13);
    return bits_float(float_bits(y) | static_cast<uint32_t>(bits >> 15) << 31);
}

inline int dot4(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += static_cast<int8_t>(a >> 8 * i) * static_cast<int8_t>(b >> 8 * i);
    return c;
}

// Which row and column of each matrix a lane's bytes are: the PTX manual's figures for mma.m16n8k32 with 8-bit integers.
inline void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    struct Operands { uint32_t a[4], b[2]; } own, all[32];
    std::memcpy(own.a, a, sizeof own.a);
    std::memcpy(own.b, b, sizeof own.b);
    emulator::exchange(&own, sizeof own, all);
    auto byte = [](uint32_t word, int i) { return static_cast<int>(static_cast<int8_t>(word >> 8 * i)); };
    for (int out = 0; out < 4; out++) {
        int row = emulator::here.lane / 4 + (out >= 2 ? 8 : 0), column = emulator::here.lane % 4 * 2 + (out & 1);
        int sum = d[out];
        for (int k = 0; k < 32; k++) {
            const Operands &of_a = all[row % 8 * 4 + k % 16 / 4], &of_b = all[column * 4 + k % 16 / 4];
            sum += byte(of_a.a[(row >= 8 ? 1 : 0) + (k >= 16 ? 2 : 0)], k % 4) * byte(of_b.b[k >= 16 ? 1 : 0], k % 4);
        }
        d[out] = sum;
    }
}

inline void load_matrices(uint32_t (&d)[4], const void *row) {
    const char *rows[32];
    emulator::check_aligned(row, 16);
    emulator::exchange(&row, sizeof row, rows);
    for (unsigned matrix = 0; matrix < 4; matrix++)
        std::memcpy(&d[matrix], rows[matrix * 8 + emulator::here.lane / 4] + emulator::here.lane % 4 * 4, 4);
}

inline void copy16(void *to, const void *from, bool valid) { emulator::copy_later(to, from, 16, valid); }
inline void copy4(void *to, const void *from) { emulator::copy_later(to, from, 4, true); }
inline void copies_end() { emulator::end_copies(); }
template <int GROUPS>
void copies_wait() { emulator::wait_copies(GROUPS); }
