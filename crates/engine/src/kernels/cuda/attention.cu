// Attention, of whole sequences or of new rows to a cache of keys and values. Four kernels that follow each other:
//
//   scores    q · k times the scale, for a tile of queries and a block of 128 keys
//   weights   a query's greatest score, the exponentials of the scores less it, in their place, and the sum of these
//   outputs   the products of the exponentials with the values: over all keys, or over one block of them
//   fold      where it was one block at a time, their sum in order
//
// The greatest score is known before the first exponential, and the exponentials are computed once: rescaling sums on the
// way would round differently. In between, scores are in scratch memory; the host cuts the work into portions that fit.
//
// A query is a row with one of the heads that share a head of keys: query i of a segment and a head of keys is row
// i / shared, head head · shared + i % shared, so that a tile reads keys once for all that share them.
#include "exact.cuh"

// Columns, or keys, that are in shared memory at once, and how far apart rows of them are: threads of a warp read four
// floats each of rows that follow each other, and meet in no bank.
constexpr int CHUNK = 32;
constexpr int PADDED = CHUNK + 4;

// A tile's work: cuda_launch::attention::Item.
struct Item {
    // Of the segment: its first row in the batch, and that row's position in the sequence.
    uint32_t row, first;
    // The tile's first query and how many there are, and how many keys the last of them attends to.
    uint32_t query, queries, keys;
    // Where the segment's pages begin in the table of pages, or the sequence's first row of keys.
    uint32_t source;
    // Head of keys.
    uint32_t head;
    // Blocks of scores before those of the tile.
    uint32_t place;

    __device__ __forceinline__ uint32_t blocks() const { return (keys + BLOCK - 1) / BLOCK; }
};

__device__ __forceinline__ Item item_of(const uint32_t *items, uint32_t index) {
    uint4 low = reinterpret_cast<const uint4 *>(items)[index * 2], high = reinterpret_cast<const uint4 *>(items)[index * 2 + 1];
    return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}

// Sizes of an attention.
struct Heads {
    uint32_t count, shared, width, causal;

    // Keys that a query of a tile attends to.
    __device__ __forceinline__ uint32_t keys_of(const Item &item, uint32_t query) const {
        return causal != 0 ? item.first + (item.query + query) / shared + 1 : item.keys;
    }

    // Where a query of a tile begins in the batch's queries, and its output in the outputs.
    __device__ __forceinline__ size_t place_of(const Item &item, uint32_t query) const {
        uint32_t in_segment = item.query + query;
        size_t row = item.row + in_segment / shared;
        return (row * count + item.head * shared + in_segment % shared) * width;
    }
};

// Keys or values: rows `stride` apart, of a batch, or of pages, where there is a table of them.
template <typename Element>
struct Source {
    const Element *at;
    const uint32_t *pages;
    // Elements of a page.
    uint64_t page;
    uint32_t stride;

    // The first row of a block of 128 keys, of the item's head.
    __device__ __forceinline__ const Element *block(const Item &item, uint32_t index, uint32_t width) const {
        if (pages != nullptr) {
            // Pages may lie before the one that is told of.
            int64_t number = static_cast<int32_t>(pages[item.source + index]);
            return at + number * static_cast<int64_t>(page) + static_cast<size_t>(item.head) * BLOCK * width;
        }
        return at + (item.source + static_cast<size_t>(index) * BLOCK) * stride + static_cast<size_t>(item.head) * width;
    }
};

__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(uint16_t x) { return widen_bf16(x); }

__device__ __forceinline__ void load_four(const float *from, float (&to)[4]) {
    float4 four = *reinterpret_cast<const float4 *>(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

__device__ __forceinline__ void load_four(const uint16_t *from, float (&to)[4]) {
    uint2 four = *reinterpret_cast<const uint2 *>(from);
    to[0] = widen_bf16(static_cast<uint16_t>(four.x)), to[1] = widen_bf16(static_cast<uint16_t>(four.x >> 16));
    to[2] = widen_bf16(static_cast<uint16_t>(four.y)), to[3] = widen_bf16(static_cast<uint16_t>(four.y >> 16));
}

// Elements `column` … `column + 3` of a row of `width`; zeros where it ends, or where there is none.
template <typename Element>
__device__ __forceinline__ void load_columns(const Element *row, bool there, uint32_t column, uint32_t width, float (&to)[4]) {
    for (int i = 0; i < 4; i++) to[i] = 0.0f;
    if (!there) return;
    if (width % 4 == 0) {
        if (column < width) load_four(row + column, to);
    } else {
        for (uint32_t i = 0; i < 4; i++)
            if (column + i < width) to[i] = widened(row[column + i]);
    }
}

// A part of a matrix on its way to shared memory, four floats at a time: `ROWS` rows of `FOURS` fours, by `THREADS` threads.
template <int ROWS, int FOURS, int THREADS>
struct Part {
    static constexpr int EACH = (ROWS * FOURS + THREADS - 1) / THREADS;
    float held[EACH][4];

    // `load(row, column, to)` gives the four that begin in a column.
    template <typename Load>
    __device__ __forceinline__ void fetch(Load load) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            uint32_t index = threadIdx.x + i * THREADS;
            if (ROWS * FOURS % THREADS == 0 || index < ROWS * FOURS) load(index / FOURS, index % FOURS * 4, held[i]);
        }
    }

    template <int STEP>
    __device__ __forceinline__ void put(float (&to)[ROWS][STEP]) const {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            uint32_t index = threadIdx.x + i * THREADS;
            if (ROWS * FOURS % THREADS == 0 || index < ROWS * FOURS)
                *reinterpret_cast<float4 *>(&to[index / FOURS][index % FOURS * 4]) =
                    make_float4(held[i][0], held[i][1], held[i][2], held[i][3]);
        }
    }
};

// A tile of scores: X · Y threads, each with TQ queries and 128 / X keys.
template <typename Element, int X, int Y, int TQ>
__device__ __forceinline__ void scores_tile(const float *q, const Source<Element> &source, const uint32_t *items, float *scores,
                                            const Heads &heads, float scale) {
    constexpr int THREADS = X * Y, QUERIES = Y * TQ, TK = BLOCK / X, FOURS = CHUNK / 4;
    alignas(16) __shared__ float queries[QUERIES][PADDED];
    alignas(16) __shared__ float keys[BLOCK][PADDED];
    __shared__ size_t places[QUERIES];
    Item item = item_of(items, blockIdx.x);
    uint32_t first_key = blockIdx.y * BLOCK, width = heads.width;
    if (first_key >= item.keys) return;
    if (threadIdx.x < QUERIES) places[threadIdx.x] = heads.place_of(item, threadIdx.x);
    __syncthreads();
    uint32_t x = threadIdx.x % X, y = threadIdx.x / X, count = item.keys - first_key;
    const Element *block = source.block(item, blockIdx.y, width);
    Part<QUERIES, FOURS, THREADS> next_queries;
    Part<BLOCK, FOURS, THREADS> next_keys;
    // Zeros behind the end of both make no difference: a block's sum that is −0 is added to +0.
    auto fetch = [&](uint32_t depth) {
        next_queries.fetch([&](uint32_t row, uint32_t column, float(&to)[4]) {
            load_columns(q + places[row], row < item.queries, depth + column, width, to);
        });
        next_keys.fetch([&](uint32_t row, uint32_t column, float(&to)[4]) {
            load_columns(block + static_cast<size_t>(row) * source.stride, row < count, depth + column, width, to);
        });
    };
    float partial[TQ][TK] = {};
    fetch(0);
    for (uint32_t depth = 0; depth < width; depth += CHUNK) {
        __syncthreads();
        next_queries.put(queries);
        next_keys.put(keys);
        __syncthreads();
        bool last = depth + CHUNK >= width;
        if (!last) fetch(depth + CHUNK);
#pragma unroll 4
        for (int four = 0; four < FOURS; four++) {
            float4 a[TQ];
#pragma unroll
            for (int i = 0; i < TQ; i++) a[i] = *reinterpret_cast<const float4 *>(&queries[y * TQ + i][four * 4]);
#pragma unroll
            for (int j = 0; j < TK; j++) {
                float4 b = *reinterpret_cast<const float4 *>(&keys[x + j * X][four * 4]);
#pragma unroll
                for (int i = 0; i < TQ; i++) {
                    partial[i][j] = fma_rn(a[i].x, b.x, partial[i][j]);
                    partial[i][j] = fma_rn(a[i].y, b.y, partial[i][j]);
                    partial[i][j] = fma_rn(a[i].z, b.z, partial[i][j]);
                    partial[i][j] = fma_rn(a[i].w, b.w, partial[i][j]);
                }
            }
        }
        if (last || (depth + CHUNK) % BLOCK == 0) {
            // Where heads are wider than a block, the sum of the blocks before waits in the score's place.
            bool first = depth < BLOCK;
#pragma unroll
            for (int i = 0; i < TQ; i++) {
                uint32_t query = y * TQ + i;
                if (query >= item.queries) break;
                size_t place = item.place + static_cast<size_t>(query) * item.blocks() + blockIdx.y;
                float *to = scores + place * BLOCK + x;
#pragma unroll
                for (int j = 0; j < TK; j++) {
                    float total = add_rn(first ? 0.0f : to[j * X], partial[i][j]);
                    to[j * X] = last ? mul_rn(total, scale) : total;
                    partial[i][j] = 0.0f;
                }
            }
        }
    }
}

// Scores to exponentials, a block for each query; `sums[item · tile + query]` is their sum. `held` has room for `room`
// exponentials, a multiple of 64.
KERNEL_BOUNDS(attention_weights, 1024, 1)(float *__restrict__ scores, const uint32_t *__restrict__ items, float *__restrict__ sums,
                          uint32_t shared, uint32_t causal, uint32_t room) {
    DYNAMIC_SHARED(float, held);
    __shared__ float greatest[32];
    Item item = item_of(items, blockIdx.x);
    uint32_t query = blockIdx.y;
    if (query >= item.queries) return;
    uint32_t count = Heads{0, shared, 0, causal}.keys_of(item, query);
    float *row = scores + (item.place + static_cast<size_t>(query) * item.blocks()) * BLOCK;
    float most = bits_float(0xff800000u);
#pragma unroll 8
    for (uint32_t key = threadIdx.x; key < count; key += blockDim.x) most = row[key] > most ? row[key] : most;
    for (int mask = 16; mask > 0; mask /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, most, mask);
        most = other > most ? other : most;
    }
    if (threadIdx.x % 32 == 0) greatest[threadIdx.x / 32] = most;
    __syncthreads();
    for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) most = greatest[warp] > most ? greatest[warp] : most;
    float lane = 0.0f;
    for (uint32_t start = 0; start < count; start += room) {
        uint32_t here = count - start < room ? count - start : room;
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < here; i += blockDim.x) {
            float e = exp_exact(sub_rn(row[start + i], most));
            row[start + i] = e;
            held[i] = e;
        }
        __syncthreads();
        if (threadIdx.x < SUM_LANES) {
#pragma unroll 8
            for (uint32_t i = threadIdx.x; i < here; i += SUM_LANES) lane = add_rn(lane, held[i]);
        }
        __syncthreads();
    }
    if (threadIdx.x < SUM_LANES) held[threadIdx.x] = lane;
    __syncthreads();
    if (threadIdx.x < 32) {
        float sum = add_rn(held[threadIdx.x], held[threadIdx.x + 32]);
        for (int mask = 16; mask > 0; mask /= 2) sum = add_rn(sum, __shfl_xor_sync(ALL_LANES, sum, mask));
        if (threadIdx.x == 0) sums[static_cast<size_t>(blockIdx.x) * gridDim.y + query] = sum;
    }
}
EXPORT(attention_weights)

// A tile of outputs: X · Y threads, each with TQ queries and TC columns. With `partials` it is the sums of one block of keys,
// that of the index of this block in z, and else of all of them.
template <typename Element, int X, int Y, int TQ, int TC>
__device__ __forceinline__ void outputs_tile(const float *weights, const Source<Element> &source, const uint32_t *items,
                                             const float *sums, float *partials, float *out, const Heads &heads) {
    constexpr int THREADS = X * Y, QUERIES = Y * TQ, COLUMNS = X * TC, FOURS = CHUNK / 4;
    // Columns side by side that a thread has: as many as it loads at once.
    constexpr int SIDE = TC % 4 == 0 ? 4 : 1;
    alignas(16) __shared__ float chunk_weights[QUERIES][PADDED];
    alignas(16) __shared__ float chunk_values[CHUNK][COLUMNS];
    __shared__ uint32_t attended[QUERIES];
    Item item = item_of(items, blockIdx.x);
    uint32_t begin = partials != nullptr ? blockIdx.z * BLOCK : 0, end = item.keys, width = heads.width;
    if (begin >= end) return;
    if (partials != nullptr && end - begin > BLOCK) end = begin + BLOCK;
    // Read behind the barriers of the first chunk.
    if (threadIdx.x < QUERIES) attended[threadIdx.x] = heads.keys_of(item, threadIdx.x);
    uint32_t x = threadIdx.x % X, y = threadIdx.x / X, first_column = blockIdx.y * COLUMNS;
    Part<QUERIES, FOURS, THREADS> next_weights;
    Part<CHUNK, COLUMNS / 4, THREADS> next_values;
    auto fetch = [&](uint32_t key) {
        next_weights.fetch([&](uint32_t row, uint32_t column, float(&to)[4]) {
            size_t place = item.place + static_cast<size_t>(row) * item.blocks();
            // A tile's scores are whole blocks.
            load_columns(weights + place * BLOCK + key, row < item.queries, column, CHUNK, to);
        });
        const Element *block = source.block(item, key / BLOCK, width) + static_cast<size_t>(key % BLOCK) * source.stride;
        next_values.fetch([&](uint32_t row, uint32_t column, float(&to)[4]) {
            load_columns(block + static_cast<size_t>(row) * source.stride, key + row < end, first_column + column, width, to);
        });
    };
    float total[TQ][TC] = {}, partial[TQ][TC] = {};
    uint32_t all_attend = heads.keys_of(item, 0);
    fetch(begin);
    for (uint32_t key = begin; key < end; key += CHUNK) {
        __syncthreads();
        next_weights.put(chunk_weights);
        next_values.put(chunk_values);
        __syncthreads();
        bool last = key + CHUNK >= end;
        if (!last) fetch(key + CHUNK);
        if (key + CHUNK <= all_attend) {
#pragma unroll 4
            for (int four = 0; four < FOURS; four++) {
                float a[TQ][4];
#pragma unroll
                for (int i = 0; i < TQ; i++) load_four(&chunk_weights[y * TQ + i][four * 4], a[i]);
#pragma unroll
                for (int k = 0; k < 4; k++)
#pragma unroll
                    for (int j = 0; j < TC; j += SIDE) {
                        float b[4];
                        const float *at = &chunk_values[four * 4 + k][x * SIDE + j * X];
                        if (SIDE == 4) load_four(at, b);
                        else b[0] = *at;
#pragma unroll
                        for (int i = 0; i < TQ; i++)
#pragma unroll
                            for (int c = 0; c < SIDE; c++) partial[i][j + c] = fma_rn(a[i][k], b[c], partial[i][j + c]);
                    }
            }
        } else {
            // Keys that some queries do not attend to. Their values may be NaN: a weight of zero would not do.
#pragma unroll 1
            for (int k = 0; k < CHUNK; k++)
#pragma unroll
                for (int i = 0; i < TQ; i++) {
                    if (key + k >= attended[y * TQ + i]) continue;
                    float weight = chunk_weights[y * TQ + i][k];
#pragma unroll
                    for (int j = 0; j < TC; j++) {
                        float value = chunk_values[k][x * SIDE + j / SIDE * SIDE * X + j % SIDE];
                        partial[i][j] = fma_rn(weight, value, partial[i][j]);
                    }
                }
        }
        if (last || (key + CHUNK) % BLOCK == 0) {
#pragma unroll
            for (int i = 0; i < TQ; i++)
                for (int j = 0; j < TC; j++) {
                    total[i][j] = add_rn(total[i][j], partial[i][j]);
                    partial[i][j] = 0.0f;
                }
        }
    }
    for (int i = 0; i < TQ; i++) {
        uint32_t query = y * TQ + i;
        if (query >= item.queries) break;
        float *to = out + heads.place_of(item, query);
        float sum = 0.0f;
        if (partials != nullptr)
            to = partials + (item.place + static_cast<size_t>(query) * item.blocks() + blockIdx.z) * width;
        else
            sum = sums[static_cast<size_t>(blockIdx.x) * QUERIES + query];
#pragma unroll
        for (int j = 0; j < TC; j++) {
            uint32_t column = first_column + x * SIDE + j / SIDE * SIDE * X + j % SIDE;
            if (column < width) to[column] = partials != nullptr ? total[i][j] : store(divide_rn(total[i][j], sum));
        }
    }
}

// The sums of blocks of keys, in order, over the sum of weights: a block for each query.
KERNEL(attention_fold)(const float *__restrict__ partials, const uint32_t *__restrict__ items, const float *__restrict__ sums,
                       float *__restrict__ out, uint32_t heads, uint32_t shared, uint32_t width) {
    // Sums that are loaded before the first of them is added.
    constexpr uint32_t AHEAD = 32;
    Item item = item_of(items, blockIdx.x);
    uint32_t query = blockIdx.y, blocks = item.blocks();
    if (query >= item.queries) return;
    const float *from = partials + (item.place + static_cast<size_t>(query) * blocks) * width;
    float *to = out + Heads{heads, shared, width, 0}.place_of(item, query);
    float sum = sums[static_cast<size_t>(blockIdx.x) * gridDim.y + query];
    for (uint32_t column = threadIdx.x; column < width; column += blockDim.x) {
        float total = 0.0f;
        for (uint32_t first = 0; first < blocks; first += AHEAD) {
            float held[AHEAD];
            // Zeros behind the last block change nothing: a total is never −0.
#pragma unroll
            for (uint32_t i = 0; i < AHEAD; i++)
                held[i] = first + i < blocks ? from[static_cast<size_t>(first + i) * width + column] : 0.0f;
#pragma unroll
            for (uint32_t i = 0; i < AHEAD; i++) total = add_rn(total, held[i]);
        }
        to[column] = store(divide_rn(total, sum));
    }
}
EXPORT(attention_fold)

#define SCORES(name, Element, X, Y, TQ)                                                                                     \
    KERNEL_BOUNDS(name, X *Y, X * Y < 256 ? 3 : 2)                                                                          \
    (const float *__restrict__ q, const Element *__restrict__ keys, const uint32_t *__restrict__ pages,                     \
     const uint32_t *__restrict__ items, float *__restrict__ scores, uint64_t page, uint32_t stride, uint32_t heads,        \
     uint32_t shared, uint32_t width, float scale) {                                                                        \
        scores_tile<Element, X, Y, TQ>(q, {keys, pages, page, stride}, items, scores, {heads, shared, width, 0}, scale);    \
    }                                                                                                                       \
    EXPORT(name)

// Many queries, and few.
SCORES(attention_scores_many_f32, float, 16, 16, 4)
SCORES(attention_scores_many_bf16, uint16_t, 16, 16, 4)
SCORES(attention_scores_few_f32, float, 128, 1, 8)
SCORES(attention_scores_few_bf16, uint16_t, 128, 1, 8)

#define OUTPUTS(name, Element, X, Y, TQ, TC)                                                                                \
    KERNEL_BOUNDS(name, X *Y, X * Y < 256 ? 3 : 2)                                                                          \
    (const float *__restrict__ weights, const Element *__restrict__ values, const uint32_t *__restrict__ pages,             \
     const uint32_t *__restrict__ items, const float *__restrict__ sums, float *__restrict__ partials,                      \
     float *__restrict__ out, uint64_t page, uint32_t stride, uint32_t heads, uint32_t shared, uint32_t width,              \
     uint32_t causal) {                                                                                                     \
        outputs_tile<Element, X, Y, TQ, TC>(weights, {values, pages, page, stride}, items, sums, partials, out,             \
                                            {heads, shared, width, causal});                                                \
    }                                                                                                                       \
    EXPORT(name)

// Many queries with wide and narrow heads, and few queries.
OUTPUTS(attention_outputs_wide_f32, float, 16, 16, 4, 8)
OUTPUTS(attention_outputs_wide_bf16, uint16_t, 16, 16, 4, 8)
OUTPUTS(attention_outputs_narrow_f32, float, 16, 16, 4, 4)
OUTPUTS(attention_outputs_narrow_bf16, uint16_t, 16, 16, 4, 4)
OUTPUTS(attention_outputs_few_f32, float, 128, 1, 8, 1)
OUTPUTS(attention_outputs_few_bf16, uint16_t, 128, 1, 8, 1)

__device__ __forceinline__ void narrow_to(float x, float *to) { *to = x; }
// The program has rounded what a cache of bfloat16 is given.
__device__ __forceinline__ void narrow_to(float x, uint16_t *to) { *to = static_cast<uint16_t>(float_bits(x) >> 16); }

// New rows of keys and values to their pages: row r to slots[r], which is its page times 128 plus its place in it. An
// attention's keys begin at `arena`, its values `values` elements behind.
template <typename Element>
__device__ __forceinline__ void append_rows(const float *k, const float *v, const uint32_t *slots, Element *arena,
                                            uint64_t page, uint64_t values, uint32_t rows, uint32_t heads, uint32_t width) {
    uint32_t row_width = heads * width;
    size_t count = static_cast<size_t>(rows) * row_width, step = static_cast<size_t>(gridDim.x) * blockDim.x;
    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        uint32_t row = static_cast<uint32_t>(i / row_width), column = static_cast<uint32_t>(i % row_width);
        int32_t slot = static_cast<int32_t>(slots[row]);
        uint32_t head = column / width, in_page = static_cast<uint32_t>(slot) % BLOCK;
        int64_t number = (slot - static_cast<int32_t>(in_page)) / static_cast<int32_t>(BLOCK);
        Element *to = arena + number * static_cast<int64_t>(page) + (static_cast<size_t>(head) * BLOCK + in_page) * width + column % width;
        narrow_to(k[i], to);
        narrow_to(v[i], to + values);
    }
}

KERNEL(attention_append_f32)(const float *__restrict__ k, const float *__restrict__ v, const uint32_t *__restrict__ slots,
                             float *__restrict__ arena, uint64_t page, uint64_t values, uint32_t rows, uint32_t heads,
                             uint32_t width) {
    append_rows<float>(k, v, slots, arena, page, values, rows, heads, width);
}
EXPORT(attention_append_f32)

KERNEL(attention_append_bf16)(const float *__restrict__ k, const float *__restrict__ v, const uint32_t *__restrict__ slots,
                              uint16_t *__restrict__ arena, uint64_t page, uint64_t values, uint32_t rows, uint32_t heads,
                              uint32_t width) {
    append_rows<uint16_t>(k, v, slots, arena, page, values, rows, heads, width);
}
EXPORT(attention_append_bf16)
