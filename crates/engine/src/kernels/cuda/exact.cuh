// The arithmetic that kernels share: crates/arithmetic, function by function.
#pragma once

#include "device.cuh"

// Keys of a dot product's block.
constexpr int BLOCK = 128;
// Lanes of a sum of a row.
constexpr int SUM_LANES = 64;

constexpr uint32_t CANONICAL_NAN = 0x7fc00000u;

// The storing rule: NaN is canonical, less than the least normal number is +0.
__device__ __forceinline__ float store(float y) {
    uint32_t magnitude = float_bits(y) & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return bits_float(CANONICAL_NAN);
    return magnitude < 0x00800000u ? 0.0f : y;
}

// arithmetic::exp.
__device__ __forceinline__ float exp_exact(float x) {
    if ((float_bits(x) & 0x7fffffffu) > 0x7f800000u) return bits_float(CANONICAL_NAN);
    if (x < bits_float(0xc2ae999au)) return 0.0f;
    if (x > bits_float(0x42b17217u)) return bits_float(0x7f800000u);
    float shift = bits_float(0x4b400000u);
    float k = fma_rn(x, bits_float(0x3fb8aa3bu), shift);
    float n = sub_rn(k, shift);
    float r = fma_rn(n, bits_float(0xbf317218u), x);
    r = fma_rn(n, bits_float(0x3102e308u), r);
    float p = bits_float(0x3ab51e88u);
    p = fma_rn(p, r, bits_float(0x3c091c2bu));
    p = fma_rn(p, r, bits_float(0x3d2aac5fu));
    p = fma_rn(p, r, bits_float(0x3e2aaa4au));
    p = fma_rn(p, r, bits_float(0x3efffffeu));
    p = fma_rn(p, r, 1.0f);
    p = fma_rn(p, r, 1.0f);
    return bits_float(float_bits(p) + (float_bits(k) << 23));
}

// Sign bits.
__device__ __forceinline__ float negate(float x) { return bits_float(float_bits(x) ^ 0x80000000u); }
__device__ __forceinline__ float magnitude(float x) { return bits_float(float_bits(x) & 0x7fffffffu); }
__device__ __forceinline__ float with_sign(float x, float of) {
    return bits_float((float_bits(x) & 0x7fffffffu) | (float_bits(of) & 0x80000000u));
}
__device__ __forceinline__ bool is_nan(float x) { return (float_bits(x) & 0x7fffffffu) > 0x7f800000u; }

// arithmetic::erf.
__device__ __forceinline__ float erf_exact(float x) {
    float a = magnitude(x), y;
    if (a < bits_float(0x3f980000u)) {
        float s = fma_rn(a, a, bits_float(0xbf000000u));
        float p = bits_float(0xb708fb77u);
        p = fma_rn(p, s, bits_float(0x38a37b76u));
        p = fma_rn(p, s, bits_float(0xba132ee7u));
        p = fma_rn(p, s, bits_float(0x3b6417bdu));
        p = fma_rn(p, s, bits_float(0xbc95c832u));
        p = fma_rn(p, s, bits_float(0x3da2a1b4u));
        p = fma_rn(p, s, bits_float(0xbe8fe8b1u));
        p = fma_rn(p, s, bits_float(0xbd0d70a7u));
        y = fma_rn(a, p, a);
    } else {
        if (a > bits_float(0x40800000u)) a = bits_float(0x40800000u);
        float s = sub_rn(a, bits_float(0x40240000u));
        float p = bits_float(0xb5d204f2u);
        p = fma_rn(p, s, bits_float(0x37148c46u));
        p = fma_rn(p, s, bits_float(0xb696396bu));
        p = fma_rn(p, s, bits_float(0xb89863deu));
        p = fma_rn(p, s, bits_float(0x395f559bu));
        p = fma_rn(p, s, bits_float(0xb916a5c2u));
        p = fma_rn(p, s, bits_float(0xba2a55e2u));
        p = fma_rn(p, s, bits_float(0x3b26c4b1u));
        p = fma_rn(p, s, bits_float(0xbba77ce9u));
        p = fma_rn(p, s, bits_float(0x3be1081au));
        p = fma_rn(p, s, bits_float(0xbbd2665du));
        p = fma_rn(p, s, bits_float(0x3b854e07u));
        p = fma_rn(p, s, bits_float(0xbad01092u));
        p = fma_rn(p, s, bits_float(0x3998210cu));
        y = sub_rn(1.0f, p);
    }
    return with_sign(y, x);
}

__device__ __forceinline__ float gelu_exact(float x) {
    return mul_rn(mul_rn(0.5f, x), add_rn(1.0f, erf_exact(mul_rn(x, bits_float(0x3f3504f3u)))));
}

__device__ __forceinline__ float silu_exact(float x) { return divide_rn(x, add_rn(1.0f, exp_exact(negate(x)))); }

// The nearest bfloat16, as its bits.
__device__ __forceinline__ uint32_t round_bf16(float x) {
    uint32_t bits = float_bits(x);
    if (is_nan(x)) return 0x7fc0u;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

__device__ __forceinline__ float widen_bf16(uint16_t bits) {
    float y = bits_float(static_cast<uint32_t>(bits) << 16);
    return is_nan(y) ? bits_float(CANONICAL_NAN) : y;
}

__device__ __forceinline__ float widen_f16(uint16_t bits) {
    uint32_t exponent = bits >> 10 & 0x1fu, fraction = bits & 0x3ffu, sign = static_cast<uint32_t>(bits >> 15) << 31;
    if (exponent == 0) {
        float y = mul_rn(from_int(static_cast<int>(fraction)), bits_float(0x33800000u));
        return bits_float(float_bits(y) | sign);
    }
    if (exponent == 0x1fu) return fraction == 0 ? bits_float(0x7f800000u | sign) : bits_float(CANONICAL_NAN);
    return bits_float((exponent + 112u) << 23 | fraction << 13 | sign);
}

// What follows a linear map or stands alone: the codes that launches give.
enum Then { NOTHING = 0, GELU = 1, SILU = 2, ROUND_BF16 = 3, ADD = 4, MUL = 5 };

// The stored result of what follows the stored value `y`; `other` is read for ADD and MUL alone.
__device__ __forceinline__ float then_stored(int then, float y, const float *other, size_t index) {
    switch (then) {
        case GELU: return store(gelu_exact(y));
        case SILU: return store(silu_exact(y));
        case ROUND_BF16: return store(bits_float(round_bf16(y) << 16));
        case ADD: return store(add_rn(y, other[index]));
        case MUL: return store(mul_rn(y, other[index]));
        default: return y;
    }
}
