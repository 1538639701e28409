// What the linear maps share: how weights are widened, and what becomes of a finished sum.
#pragma once

#include "exact.cuh"

// How weights of a format become floats. A NaN keeps its bits here: every result goes through the storing rule.
struct FormatF32 {
    using Element = float;
    static __device__ __forceinline__ float widen(float x) { return x; }
};
struct FormatBf16 {
    using Element = uint16_t;
    static __device__ __forceinline__ float widen(uint16_t bits) { return bits_float(static_cast<uint32_t>(bits) << 16); }
};
struct FormatF16 {
    using Element = uint16_t;
    static __device__ __forceinline__ float widen(uint16_t bits) { return half_float(bits); }
};

// Four weights in a row from the words that hold them: four words, or two.
__device__ __forceinline__ void widen_four(FormatF32, const uint32_t *words, float (&out)[4]) {
    UNROLL for (int i = 0; i < 4; i++) out[i] = bits_float(words[i]);
}
template <typename Format>
__device__ __forceinline__ void widen_four(Format, const uint32_t *words, float (&out)[4]) {
    UNROLL for (int i = 0; i < 2; i++) {
        out[2 * i] = Format::widen(static_cast<uint16_t>(words[i] & 0xffffu));
        out[2 * i + 1] = Format::widen(static_cast<uint16_t>(words[i] >> 16));
    }
}

// Sixteen bytes, as words.
struct Piece {
    uint32_t words[4];
};
__device__ __forceinline__ Piece load_piece(const void *from) {
    uint4 all = *static_cast<const uint4 *>(from);
    return {{all.x, all.y, all.z, all.w}};
}

// Where results go, [rows][columns], and what happens to them on the way.
struct Output {
    const float *other;
    float *out;
    uint32_t rows, columns;
    int then;

    __device__ __forceinline__ void write(size_t row, size_t column, float y) const {
        size_t index = row * columns + column;
        out[index] = then_stored(then, store(y), other, index);
    }
};
