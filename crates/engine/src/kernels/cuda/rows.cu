// Operators that go row by row: norms, and the mean over the rows of a sequence.
#include "quantize.cuh"

// Which norm, and what its statistics are.
enum Norm { LAYER, RMS, UNIT };

// The mean of a row, where its norm has one, and the factor on its elements, which for UNIT is their divisor.
struct Statistics {
    float mean, factor;
};

// The factor that comes of the sum of squares.
template <int NORM>
__device__ __forceinline__ float factor_of(float squares, uint32_t width, float eps) {
    if (NORM == UNIT) {
        float norm = root_rn(squares), least = bits_float(0x2b8cbcccu);
        return norm < least ? least : norm;
    }
    return divide_rn(1.0f, root_rn(add_rn(divide_rn(squares, from_int(static_cast<int>(width))), eps)));
}

template <int NORM>
__device__ __forceinline__ float normed(float x, Statistics of, const float *weight, const float *bias, uint32_t column) {
    if (NORM == LAYER) return store(fma_rn(mul_rn(sub_rn(x, of.mean), of.factor), weight[column], bias[column]));
    if (NORM == RMS) return store(mul_rn(mul_rn(x, of.factor), weight[column]));
    return store(divide_rn(x, of.factor));
}

// What a norm reads and writes.
struct NormRows {
    const float *x, *weight, *bias;
    float eps;
    float *out;
    uint32_t rows, width;
};

// Narrow rows: a team of half a warp has a row in its registers. Thread t holds elements 4t … 4t + 3 of every 64, so that
// it loads 16 bytes at once, and adds up the lanes 4t … 4t + 3 of a sum.
constexpr uint32_t TEAM = SUM_LANES / 4;
// Elements of every 64 that a thread may hold: rows of up to 1,024.
constexpr int TEAM_CHUNKS = 16;

// What four lanes have summed, folded with those of the rest of the team.
__device__ __forceinline__ float fold_team(const float (&lanes)[4]) {
    float v[4];
    for (int i = 0; i < 4; i++) v[i] = lanes[i];
    for (int mask = TEAM / 2; mask > 0; mask /= 2)
        for (int i = 0; i < 4; i++) v[i] = add_rn(v[i], __shfl_xor_sync(ALL_LANES, v[i], mask));
    return add_rn(add_rn(v[0], v[2]), add_rn(v[1], v[3]));
}

template <int NORM>
__device__ __forceinline__ void norm_by_team(const NormRows &of) {
    uint32_t teams = blockDim.x / TEAM, thread = threadIdx.x % TEAM;
    size_t row = static_cast<size_t>(blockIdx.x) * teams + threadIdx.x / TEAM;
    bool own = row < of.rows;
    // A team without a row of its own goes along with the last one: lanes exchange across the warp.
    const float *x = of.x + (own ? row : of.rows - 1) * of.width;
    bool whole = of.width % 4 == 0;
    float held[TEAM_CHUNKS][4];
#pragma unroll
    for (int chunk = 0; chunk < TEAM_CHUNKS; chunk++) {
        uint32_t first = chunk * SUM_LANES + thread * 4;
        if (whole && first < of.width) {
            float4 four = *reinterpret_cast<const float4 *>(x + first);
            held[chunk][0] = four.x, held[chunk][1] = four.y, held[chunk][2] = four.z, held[chunk][3] = four.w;
        } else {
            for (uint32_t i = 0; i < 4; i++) held[chunk][i] = first + i < of.width ? x[first + i] : 0.0f;
        }
    }
    Statistics statistics = {};
    if (NORM == LAYER) {
        // Zeros behind the row's end change no lane.
        float lanes[4] = {};
#pragma unroll
        for (int chunk = 0; chunk < TEAM_CHUNKS; chunk++)
            for (int i = 0; i < 4; i++) lanes[i] = add_rn(lanes[i], held[chunk][i]);
        statistics.mean = divide_rn(fold_team(lanes), from_int(static_cast<int>(of.width)));
    }
    float lanes[4] = {};
#pragma unroll
    for (int chunk = 0; chunk < TEAM_CHUNKS; chunk++)
        for (uint32_t i = 0; i < 4; i++) {
            float x = NORM == LAYER ? sub_rn(held[chunk][i], statistics.mean) : held[chunk][i];
            if (chunk * SUM_LANES + thread * 4 + i < of.width) lanes[i] = fma_rn(x, x, lanes[i]);
        }
    statistics.factor = factor_of<NORM>(fold_team(lanes), of.width, of.eps);
    if (!own) return;
    float *out = of.out + row * of.width;
#pragma unroll
    for (int chunk = 0; chunk < TEAM_CHUNKS; chunk++) {
        uint32_t first = chunk * SUM_LANES + thread * 4;
        if (first >= of.width) break;
        if (whole) {
            float4 four;
            four.x = normed<NORM>(held[chunk][0], statistics, of.weight, of.bias, first);
            four.y = normed<NORM>(held[chunk][1], statistics, of.weight, of.bias, first + 1);
            four.z = normed<NORM>(held[chunk][2], statistics, of.weight, of.bias, first + 2);
            four.w = normed<NORM>(held[chunk][3], statistics, of.weight, of.bias, first + 3);
            *reinterpret_cast<float4 *>(out + first) = four;
        } else {
            for (uint32_t i = 0; i < 4; i++)
                if (first + i < of.width)
                    out[first + i] = normed<NORM>(held[chunk][i], statistics, of.weight, of.bias, first + i);
        }
    }
}

// The sum of `value(i)` for a row's elements, or of their squares: a lane for each of the block's first threads. `lanes` is
// the block's, and not used for anything else before its next barrier.
template <bool SQUARES, typename Value>
__device__ __forceinline__ float sum64_by_block(float *lanes, uint32_t width, Value value) {
    if (threadIdx.x < SUM_LANES) {
        float lane = 0.0f;
#pragma unroll 8
        for (uint32_t i = threadIdx.x; i < width; i += SUM_LANES) {
            float x = value(i);
            lane = SQUARES ? fma_rn(x, x, lane) : add_rn(lane, x);
        }
        lanes[threadIdx.x] = lane;
    }
    __syncthreads();
    // Every warp folds for itself.
    float v = add_rn(lanes[threadIdx.x % 32], lanes[threadIdx.x % 32 + 32]);
    for (int mask = 16; mask > 0; mask /= 2) v = add_rn(v, __shfl_xor_sync(ALL_LANES, v, mask));
    return v;
}

// Wide rows: a block for each, which holds it in shared memory where `held` says that there is room.
template <int NORM>
__device__ __forceinline__ void norm_by_block(const NormRows &of, bool held) {
    DYNAMIC_SHARED(float, copy);
    __shared__ float lanes[2][SUM_LANES];
    const float *x = of.x + static_cast<size_t>(blockIdx.x) * of.width;
    if (held) {
        if (of.width % 4 == 0) {
            for (uint32_t i = threadIdx.x * 4; i < of.width; i += blockDim.x * 4)
                *reinterpret_cast<float4 *>(copy + i) = *reinterpret_cast<const float4 *>(x + i);
        } else {
            for (uint32_t i = threadIdx.x; i < of.width; i += blockDim.x) copy[i] = x[i];
        }
        __syncthreads();
        x = copy;
    }
    Statistics statistics = {};
    if (NORM == LAYER) {
        float sum = sum64_by_block<false>(lanes[0], of.width, [&](uint32_t i) { return x[i]; });
        statistics.mean = divide_rn(sum, from_int(static_cast<int>(of.width)));
    }
    float squares = sum64_by_block<true>(lanes[1], of.width, [&](uint32_t i) {
        return NORM == LAYER ? sub_rn(x[i], statistics.mean) : x[i];
    });
    statistics.factor = factor_of<NORM>(squares, of.width, of.eps);
    float *out = of.out + static_cast<size_t>(blockIdx.x) * of.width;
    for (uint32_t i = threadIdx.x; i < of.width; i += blockDim.x)
        out[i] = normed<NORM>(x[i], statistics, of.weight, of.bias, i);
}

// A row, normed and then quantized in groups of `len` columns: long ones by the block, others by a warp each.
template <int NORM>
__device__ __forceinline__ void norm_and_quantize(const NormRows &of, bool held, const Levels &levels, uint32_t len, bool by_block) {
    norm_by_block<NORM>(of, held);
    // What other threads of the block have written is there behind the barrier.
    __syncthreads();
    uint32_t groups = of.width / len;
    size_t first = static_cast<size_t>(blockIdx.x) * groups;
    if (by_block) {
        for (uint32_t group = 0; group < groups; group++) quantize_group<WIDE_WARPS>(of.out, levels, first + group, len);
    } else {
        for (uint32_t group = threadIdx.x / 32; group < groups; group += WIDE_WARPS)
            quantize_group<1>(of.out, levels, first + group, len);
    }
}

KERNEL_BOUNDS(layer_norm_narrow, 128, 4)
(const float *__restrict__ x, const float *__restrict__ weight, const float *__restrict__ bias, float eps,
 float *__restrict__ out, uint32_t rows, uint32_t width) {
    norm_by_team<LAYER>({x, weight, bias, eps, out, rows, width});
}
EXPORT(layer_norm_narrow)

KERNEL(layer_norm_wide)(const float *__restrict__ x, const float *__restrict__ weight, const float *__restrict__ bias,
                        float eps, float *__restrict__ out, uint32_t rows, uint32_t width, uint32_t held) {
    norm_by_block<LAYER>({x, weight, bias, eps, out, rows, width}, held != 0);
}
EXPORT(layer_norm_wide)

KERNEL_BOUNDS(rms_norm_narrow, 128, 4)
(const float *__restrict__ x, const float *__restrict__ weight, float eps, float *__restrict__ out, uint32_t rows,
 uint32_t width) {
    norm_by_team<RMS>({x, weight, nullptr, eps, out, rows, width});
}
EXPORT(rms_norm_narrow)

KERNEL(rms_norm_wide)(const float *__restrict__ x, const float *__restrict__ weight, float eps, float *__restrict__ out,
                      uint32_t rows, uint32_t width, uint32_t held) {
    norm_by_block<RMS>({x, weight, nullptr, eps, out, rows, width}, held != 0);
}
EXPORT(rms_norm_wide)

KERNEL(layer_norm_quantize)(const float *x, const float *weight, const float *bias, float eps, float *out, uint32_t rows,
                            uint32_t width, uint32_t held, int8_t *low, int8_t *high, float *scales, uint32_t len,
                            uint32_t by_block) {
    norm_and_quantize<LAYER>({x, weight, bias, eps, out, rows, width}, held != 0, {low, high, scales}, len, by_block != 0);
}
EXPORT(layer_norm_quantize)

KERNEL(rms_norm_quantize)(const float *x, const float *weight, float eps, float *out, uint32_t rows, uint32_t width,
                          uint32_t held, int8_t *low, int8_t *high, float *scales, uint32_t len, uint32_t by_block) {
    norm_and_quantize<RMS>({x, weight, nullptr, eps, out, rows, width}, held != 0, {low, high, scales}, len, by_block != 0);
}
EXPORT(rms_norm_quantize)

KERNEL_BOUNDS(normalize_narrow, 128, 4)
(const float *__restrict__ x, float *__restrict__ out, uint32_t rows, uint32_t width) {
    norm_by_team<UNIT>({x, nullptr, nullptr, 0.0f, out, rows, width});
}
EXPORT(normalize_narrow)

KERNEL(normalize_wide)(const float *__restrict__ x, float *__restrict__ out, uint32_t rows, uint32_t width, uint32_t held) {
    norm_by_block<UNIT>({x, nullptr, nullptr, 0.0f, out, rows, width}, held != 0);
}
EXPORT(normalize_wide)

// The mean of a sequence's rows, by columns. Threads in x take columns, those in y a block of 128 rows each at a time;
// sequence s has rows starts[s] … starts[s + 1] − 1.
constexpr uint32_t POOL_COLUMNS = 32;
constexpr uint32_t POOL_BLOCKS = 8;

KERNEL(mean_pool)(const float *__restrict__ x, const uint32_t *__restrict__ starts, float *__restrict__ out, uint32_t width) {
    __shared__ float partials[POOL_BLOCKS][POOL_COLUMNS];
    uint32_t column = blockIdx.y * POOL_COLUMNS + threadIdx.x % POOL_COLUMNS, team = threadIdx.x / POOL_COLUMNS;
    uint32_t first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float total = 0.0f;
    for (uint32_t group = first; group < end; group += POOL_BLOCKS * BLOCK) {
        uint32_t start = group + team * BLOCK, stop = start + BLOCK < end ? start + BLOCK : end;
        float partial = 0.0f;
        if (column < width) {
#pragma unroll 8
            for (uint32_t row = start; row < stop; row++)
                partial = add_rn(partial, x[static_cast<size_t>(row) * width + column]);
        }
        partials[team][threadIdx.x % POOL_COLUMNS] = partial;
        __syncthreads();
        // Blocks behind the end gave +0, which changes no total.
        if (team == 0)
            for (uint32_t i = 0; i < POOL_BLOCKS; i++) total = add_rn(total, partials[i][threadIdx.x % POOL_COLUMNS]);
        __syncthreads();
    }
    float count = from_int(static_cast<int>(end - first));
    if (team == 0 && column < width)
        out[static_cast<size_t>(blockIdx.x) * width + column] = store(divide_rn(total, count));
}
EXPORT(mean_pool)
