// Quantizing: groups of floats become levels, or two digits of them, and a scale for each group.
#pragma once

#include "linear.cuh"

struct Grid {
    float factor, scale;
    int limit;
};

// arithmetic::int8::Grid::from_greatest, of a magnitude's bits.
__device__ __forceinline__ Grid grid_of(uint32_t greatest, bool sixteen) {
    int limit = sixteen ? 32512 : 127;
    if (greatest >= 0x7f800000u) return {0.0f, bits_float(CANONICAL_NAN), limit};
    if (greatest < 0x0d800000u) return {0.0f, 0.0f, limit};
    float amax = bits_float(greatest), most = from_int(limit);
    return {divide_rn(most, amax), divide_rn(amax, most), limit};
}

// The level of x. Where the factor is 0 it is 0 whatever x is: a conversion of NaN gives 0.
__device__ __forceinline__ int level_of(const Grid &grid, float x) {
    int level = to_int(mul_rn(x, grid.factor));
    return level > grid.limit ? grid.limit : level < -grid.limit ? -grid.limit : level;
}

__device__ __forceinline__ int low_digit(int level) { return ((level + 128) & 255) - 128; }

__device__ __forceinline__ uint32_t magnitude_bits(float x) { return float_bits(x) & 0x7fffffffu; }

__device__ __forceinline__ uint32_t greater(uint32_t a, uint32_t b) { return a > b ? a : b; }

constexpr int WIDE_WARPS = 8;

// The greatest of a warp's values, or of a block's.
template <int WARPS>
__device__ __forceinline__ uint32_t greatest_of(uint32_t value) {
    for (int mask = 16; mask > 0; mask /= 2) value = greater(value, __shfl_xor_sync(ALL_LANES, value, mask));
    if constexpr (WARPS > 1) {
        __shared__ uint32_t all[WARPS];
        if (threadIdx.x % 32 == 0) all[threadIdx.x / 32] = value;
        __syncthreads();
        for (int i = 0; i < WARPS; i++) value = greater(value, all[i]);
        // Before the next group's values are there.
        __syncthreads();
    }
    return value;
}

struct Levels {
    int8_t *low, *high;
    float *scales;
};

// A group by `WARPS` warps. `group` is the index of the group among all of all rows, `len` its length.
template <int WARPS>
__device__ __forceinline__ void quantize_group(const float *x, const Levels &levels, size_t group, uint32_t len) {
    constexpr uint32_t THREADS = WARPS * 32;
    uint32_t thread = threadIdx.x % THREADS;
    size_t first = group * len;
    bool fours = len % 4 == 0, sixteen = levels.high != nullptr;
    uint32_t greatest = 0;
    if (fours) {
        for (uint32_t i = thread * 4; i < len; i += THREADS * 4) {
            Piece piece = load_piece(x + first + i);
            UNROLL for (int k = 0; k < 4; k++) greatest = greater(greatest, piece.words[k] & 0x7fffffffu);
        }
    } else {
        for (uint32_t i = thread; i < len; i += THREADS) greatest = greater(greatest, magnitude_bits(x[first + i]));
    }
    Grid grid = grid_of(greatest_of<WARPS>(greatest), sixteen);
    if (thread == 0) levels.scales[group] = grid.scale;
    if (fours) {
        for (uint32_t i = thread * 4; i < len; i += THREADS * 4) {
            Piece piece = load_piece(x + first + i);
            uint32_t low = 0, high = 0;
            UNROLL for (int k = 0; k < 4; k++) {
                int level = level_of(grid, bits_float(piece.words[k])), digit = low_digit(level);
                low |= (static_cast<uint32_t>(digit) & 0xffu) << 8 * k;
                high |= (static_cast<uint32_t>((level - digit) >> 8) & 0xffu) << 8 * k;
            }
            *reinterpret_cast<uint32_t *>(levels.low + first + i) = low;
            if (sixteen) *reinterpret_cast<uint32_t *>(levels.high + first + i) = high;
        }
    } else {
        for (uint32_t i = thread; i < len; i += THREADS) {
            int level = level_of(grid, x[first + i]), digit = low_digit(level);
            levels.low[first + i] = static_cast<int8_t>(digit);
            if (sixteen) levels.high[first + i] = static_cast<int8_t>((level - digit) >> 8);
        }
    }
}
