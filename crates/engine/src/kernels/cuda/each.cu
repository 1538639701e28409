// Operators that go element by element, and those that move rows.
#include "exact.cuh"

// The index of the element that this thread begins with, and how far it is to its next.
__device__ __forceinline__ size_t first_element() { return static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ size_t stride_elements() { return static_cast<size_t>(gridDim.x) * blockDim.x; }

// out[i] = stored(then(x[i])), with other[i] for two operands.
KERNEL(each)(const float *__restrict__ x, const float *__restrict__ other, float *__restrict__ out, uint64_t count, int then) {
    for (size_t i = first_element(); i < count; i += stride_elements()) out[i] = then_stored(then, x[i], other, i);
}
EXPORT(each)

// x rotated by the angles of its row's position, in heads of `head` columns; cos and sin are [positions][head / 2].
KERNEL(rope)(const float *__restrict__ x, const float *__restrict__ cos, const float *__restrict__ sin,
             const uint32_t *__restrict__ positions, float *__restrict__ out, uint32_t rows, uint32_t width, uint32_t head) {
    uint32_t half = head / 2, pairs = width / 2;
    for (size_t i = first_element(); i < static_cast<size_t>(rows) * pairs; i += stride_elements()) {
        uint32_t row = static_cast<uint32_t>(i / pairs), pair = static_cast<uint32_t>(i % pairs);
        uint32_t column = pair % half;
        size_t first = static_cast<size_t>(row) * width + pair / half * head + column;
        size_t angle = static_cast<size_t>(positions[row]) * half + column;
        float x1 = x[first], x2 = x[first + half], c = cos[angle], s = sin[angle];
        out[first] = store(sub_rn(mul_rn(x1, c), mul_rn(x2, s)));
        out[first + half] = store(add_rn(mul_rn(x2, c), mul_rn(x1, s)));
    }
}
EXPORT(rope)

// Rows of a table. The host has checked that they are in it.
template <typename Element, float (*WIDEN)(Element)>
__device__ __forceinline__ void gather_rows(const Element *table, const uint32_t *rows, float *out, uint32_t count, uint32_t width) {
    for (size_t i = first_element(); i < static_cast<size_t>(count) * width; i += stride_elements())
        out[i] = WIDEN(table[static_cast<size_t>(rows[i / width]) * width + i % width]);
}

__device__ __forceinline__ float as_it_is(float x) { return x; }

KERNEL(gather_f32)(const float *__restrict__ table, const uint32_t *__restrict__ rows, float *__restrict__ out, uint32_t count,
                   uint32_t width) {
    gather_rows<float, as_it_is>(table, rows, out, count, width);
}
EXPORT(gather_f32)

KERNEL(gather_bf16)(const uint16_t *__restrict__ table, const uint32_t *__restrict__ rows, float *__restrict__ out,
                    uint32_t count, uint32_t width) {
    gather_rows<uint16_t, widen_bf16>(table, rows, out, count, width);
}
EXPORT(gather_bf16)

KERNEL(gather_f16)(const uint16_t *__restrict__ table, const uint32_t *__restrict__ rows, float *__restrict__ out,
                   uint32_t count, uint32_t width) {
    gather_rows<uint16_t, widen_f16>(table, rows, out, count, width);
}
EXPORT(gather_f16)
