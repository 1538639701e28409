// What the kernels use of the language beyond plain C++.
//
// The same sources are compiled twice: by nvcc for GPUs, and by the host's compiler for an emulator that runs a block's
// threads as coroutines (crates/cuda-emulator), so that an error of index or order shows up where there is no GPU. What
// differs between the two is in this file and in the emulator's.
//
// Every rounding is written out: `fma_rn`, `add_rn`, `sub_rn`, `mul_rn`, `divide_rn`, `root_rn`. Nothing else may compute with floats: the
// operators `+ - * /` leave it to a compiler's flags whether two of them are contracted to one rounding.
#pragma once

#include <cstdint>

#ifdef __CUDACC__

// A kernel by its name: `KERNEL(name)(parameters) { ... }`, then `EXPORT(name)`.
#define KERNEL(name) extern "C" __global__ void name
// As KERNEL, with the most threads of a block and the fewest blocks of a multiprocessor that it is compiled for.
#define KERNEL_BOUNDS(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name
#define EXPORT(name)

// Before a loop whose every pass is written out, so that what it indexes can stay in registers.
#define UNROLL _Pragma("unroll")
// Before a loop that stays one.
#define ROLL _Pragma("unroll 1")

// Memory of a block whose size the launch says, aligned to 16 bytes.
#define DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    type *name = reinterpret_cast<type *>(dynamic_shared)

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ float add_rn(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub_rn(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float mul_rn(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float divide_rn(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float root_rn(float a) { return __fsqrt_rn(a); }
__device__ __forceinline__ float from_int(int a) { return __int2float_rn(a); }
// The nearest integer, ties to even.
__device__ __forceinline__ int to_int(float a) { return __float2int_rn(a); }
__device__ __forceinline__ float bits_float(uint32_t a) { return __uint_as_float(a); }
__device__ __forceinline__ uint32_t float_bits(float a) { return __float_as_uint(a); }

// A binary16 by its bits, exactly; NaN stays some NaN.
__device__ __forceinline__ float half_float(uint16_t bits) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
    return y;
}

// `c + a·b` over four signed bytes.
__device__ __forceinline__ int dot4(int a, int b, int c) { return __dp4a(a, b, c); }

// `d += a · b` for a tile of 16 × 8 with a depth of 32 signed bytes, spread over a warp as `mma.m16n8k32` says.
__device__ __forceinline__ void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four matrices of 8 rows of 16 bytes from shared memory: lane i says where row i % 8 of matrix i / 8 is, and gets word i % 4 of
// row i / 4 of each matrix: `ldmatrix.m8n8.x4`.
__device__ __forceinline__ void load_matrices(uint32_t (&d)[4], const void *row) {
    uint32_t place = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(place)
                 : "memory");
}

// Starts copying 16 bytes to shared memory; with `valid` false the 16 bytes become zero and `from` is not read.
__device__ __forceinline__ void copy16(void *to, const void *from, bool valid) {
    uint32_t place = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(bytes) : "memory");
}

// Starts copying 4 bytes to shared memory.
__device__ __forceinline__ void copy4(void *to, const void *from) {
    uint32_t place = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(place), "l"(from) : "memory");
}

// Ends a group of copies.
__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all of this thread's groups of copies but the last `GROUPS` have arrived; a barrier shows them to others.
template <int GROUPS>
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

#else
#include "emulator.hpp"
#endif
