// Linear maps of the profile `exact-f32`: out = then(stored(x · wᵀ + bias)), with x [rows][depth], w [columns][depth].
//
// A dot product is a chain of fma over each block of 128 positions, and the blocks' sums added up in order. Chains are what
// runs in parallel. Reading zeros beyond the end of a row changes no sum: a chain that is −0 by underflow may become +0,
// which a total, never −0, does not show.
#include "linear.cuh"

struct FloatMap {
    const float *x;
    const void *weights;
    const float *bias;
    uint32_t depth;
    Output output;

    __device__ __forceinline__ void finish(size_t row, size_t column, float total) const {
        output.write(row, column, bias == nullptr ? total : add_rn(total, bias[column]));
    }
};

// ---- Few rows: as fast as the weights come. ----
//
// A lane has a block of 128 positions of some columns, for all rows. The blocks of a chunk pass through shared memory in
// slices, some positions of every block at a time, in pieces of 16 bytes that are placed so that eight lanes in a row find
// theirs in different banks.
template <typename Format_, int ROWS_, int SPAN_, int COLUMNS_>
struct FewSizes {
    using Format = Format_;
    using Element = typename Format::Element;
    static constexpr int ROWS = ROWS_;
    // Blocks of a chunk, and so lanes of a column.
    static constexpr int SPAN = SPAN_;
    // Columns of a lane.
    static constexpr int COLUMNS = COLUMNS_;
    static constexpr int WARPS = 4, THREADS = 32 * WARPS, STAGES = 2;
    static constexpr int WARP_COLUMNS = COLUMNS * 32 / SPAN;
    static constexpr int BLOCK_COLUMNS = WARPS * WARP_COLUMNS;
    // Bytes of a block's weights in a slice; with many rows less, for the rows need room too.
    static constexpr int SEGMENT = ROWS == 8 ? 32 : 64;
    static constexpr int SLICE = SEGMENT / static_cast<int>(sizeof(Element));
    static constexpr int SLICES = BLOCK / SLICE;
    // Pieces of a block in a slice, and positions of a piece.
    static constexpr int W_PIECES = SEGMENT / 16, X_PIECES = SLICE / 4;
    static constexpr int W_PIECE = 16 / static_cast<int>(sizeof(Element)), X_PIECE = 4;
    static constexpr int WARP_BYTES = WARP_COLUMNS * SPAN * SEGMENT;
    static constexpr int STAGE_BYTES = WARPS * WARP_BYTES + ROWS * SPAN * SLICE * 4;
    // Sums that a warp finishes: a lane each.
    static constexpr int RESULTS = WARP_COLUMNS * ROWS;
    static_assert(RESULTS <= 32 && RESULTS * SPAN * 4 <= WARP_BYTES, "sums take the place of weights");
};

// Where a piece of a block is among the block's `PIECES`, in order that eight blocks in a row touch all banks.
template <int PIECES>
__device__ __forceinline__ int placed(int piece, int block) {
    return piece ^ (block / (8 / PIECES) & (PIECES - 1));
}

template <typename Sizes>
struct FewRows : Sizes {
    using Format = typename Sizes::Format;
    const FloatMap &map;
    unsigned char *stages;
    int lane, warp;
    size_t first_row, first_column;

    // Starts copying a slice of a chunk.
    __device__ __forceinline__ void copy(uint32_t step) const {
        unsigned char *stage = stages + step % Sizes::STAGES * Sizes::STAGE_BYTES;
        uint32_t chunk = step / Sizes::SLICES * Sizes::SPAN, slice = step % Sizes::SLICES * Sizes::SLICE;
        auto weights = static_cast<const typename Sizes::Element *>(map.weights);
        UNROLL for (int i = 0; i < Sizes::WARP_BYTES / 16 / 32; i++) {
            int index = i * 32 + lane, piece = index % Sizes::W_PIECES, segment = index / Sizes::W_PIECES;
            int block = segment % Sizes::SPAN;
            size_t column = first_column + segment / Sizes::SPAN;
            uint32_t k = (chunk + block) * BLOCK + slice + piece * Sizes::W_PIECE;
            int place = segment * Sizes::W_PIECES + placed<Sizes::W_PIECES>(piece, block);
            copy16(stage + warp * Sizes::WARP_BYTES + place * 16, weights + column * map.depth + k,
                   column < map.output.columns && k < map.depth);
        }
        constexpr int PIECES = Sizes::ROWS * Sizes::SPAN * Sizes::X_PIECES;
        UNROLL for (int first = 0; first < PIECES; first += Sizes::THREADS) {
            int index = first + warp * 32 + lane, piece = index % Sizes::X_PIECES, segment = index / Sizes::X_PIECES;
            int block = segment % Sizes::SPAN;
            size_t row = first_row + segment / Sizes::SPAN;
            uint32_t k = (chunk + block) * BLOCK + slice + piece * Sizes::X_PIECE;
            int place = segment * Sizes::X_PIECES + placed<Sizes::X_PIECES>(piece, block);
            if (index < PIECES)
                copy16(stage + Sizes::WARPS * Sizes::WARP_BYTES + place * 16, map.x + row * map.depth + k,
                       row < map.output.rows && k < map.depth);
        }
    }

    // Goes on with this lane's chains over a slice.
    __device__ __forceinline__ void multiply(uint32_t step, float (&chains)[Sizes::COLUMNS][Sizes::ROWS]) const {
        const unsigned char *stage = stages + step % Sizes::STAGES * Sizes::STAGE_BYTES;
        const unsigned char *w = stage + warp * Sizes::WARP_BYTES, *x = stage + Sizes::WARPS * Sizes::WARP_BYTES;
        int block = lane % Sizes::SPAN, column = lane / Sizes::SPAN * Sizes::COLUMNS;
        UNROLL for (int piece = 0; piece < Sizes::W_PIECES; piece++) {
            Piece weights[Sizes::COLUMNS];
            UNROLL for (int c = 0; c < Sizes::COLUMNS; c++) {
                int segment = (column + c) * Sizes::SPAN + block;
                weights[c] = load_piece(w + (segment * Sizes::W_PIECES + placed<Sizes::W_PIECES>(piece, block)) * 16);
            }
            constexpr int QUADS = Sizes::W_PIECE / 4;
            UNROLL for (int quad = 0; quad < QUADS; quad++) {
                float wide[Sizes::COLUMNS][4];
                UNROLL for (int c = 0; c < Sizes::COLUMNS; c++)
                    widen_four(Format(), weights[c].words + quad * 4 / QUADS, wide[c]);
                UNROLL for (int row = 0; row < Sizes::ROWS; row++) {
                    int place = placed<Sizes::X_PIECES>(piece * QUADS + quad, block);
                    Piece values = load_piece(x + ((row * Sizes::SPAN + block) * Sizes::X_PIECES + place) * 16);
                    UNROLL for (int k = 0; k < 4; k++)
                        UNROLL for (int c = 0; c < Sizes::COLUMNS; c++)
                            chains[c][row] = fma_rn(bits_float(values.words[k]), wide[c][k], chains[c][row]);
                }
            }
        }
    }

    // Adds the blocks' sums to this lane's total in order, through what held the warp's weights.
    __device__ __forceinline__ float add_up(uint32_t step, uint32_t blocks, float (&chains)[Sizes::COLUMNS][Sizes::ROWS],
                                            float total) const {
        auto sums = reinterpret_cast<float *>(stages + step % Sizes::STAGES * Sizes::STAGE_BYTES + warp * Sizes::WARP_BYTES);
        int block = lane % Sizes::SPAN, column = lane / Sizes::SPAN * Sizes::COLUMNS;
        __syncwarp();
        UNROLL for (int c = 0; c < Sizes::COLUMNS; c++)
            UNROLL for (int row = 0; row < Sizes::ROWS; row++) {
                int result = (column + c) * Sizes::ROWS + row;
                sums[result * Sizes::SPAN + (block ^ (result & (Sizes::SPAN - 1)))] = chains[c][row];
                chains[c][row] = 0.0f;
            }
        __syncwarp();
        uint32_t done = step / Sizes::SLICES * Sizes::SPAN;
        int count = blocks - done < Sizes::SPAN ? static_cast<int>(blocks - done) : Sizes::SPAN;
        if (lane < Sizes::RESULTS)
            for (int i = 0; i < count; i++)
                total = add_rn(total, sums[lane * Sizes::SPAN + (i ^ (lane & (Sizes::SPAN - 1)))]);
        return total;
    }

    __device__ __forceinline__ void run() const {
        uint32_t blocks = (map.depth + BLOCK - 1) / BLOCK;
        uint32_t steps = (blocks + Sizes::SPAN - 1) / Sizes::SPAN * Sizes::SLICES;
        float chains[Sizes::COLUMNS][Sizes::ROWS] = {};
        float total = 0.0f;
        copy(0);
        copies_end();
        for (uint32_t step = 0; step < steps; step++) {
            copies_wait<0>();
            __syncthreads();
            if (step + 1 < steps) copy(step + 1);
            copies_end();
            multiply(step, chains);
            if ((step + 1) % Sizes::SLICES == 0) total = add_up(step, blocks, chains, total);
        }
        size_t column = first_column + lane / Sizes::ROWS, row = first_row + lane % Sizes::ROWS;
        if (lane < Sizes::RESULTS && column < map.output.columns && row < map.output.rows) map.finish(row, column, total);
    }
};

// Blocks of threads that share columns, and so weights, follow each other.
template <typename Sizes>
__device__ __forceinline__ void linear_few(const FloatMap &map) {
    DYNAMIC_SHARED(unsigned char, stages);
    uint32_t row_groups = (map.output.rows + Sizes::ROWS - 1) / Sizes::ROWS;
    int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    size_t first_column = static_cast<size_t>(blockIdx.x / row_groups) * Sizes::BLOCK_COLUMNS + warp * Sizes::WARP_COLUMNS;
    size_t first_row = static_cast<size_t>(blockIdx.x % row_groups) * Sizes::ROWS;
    FewRows<Sizes>{{}, map, stages, lane, warp, first_row, first_column}.run();
}

// ---- Many rows: tiles of 64 rows × 128 columns. ----
//
// A thread has 8 × 8 chains in registers, and their totals in shared memory, where it alone comes.
constexpr int TILE_ROWS = 64, TILE_COLUMNS = 128, TILE_THREADS = 128;
// Positions of a stage.
constexpr int TILE_DEPTH = 16;
constexpr int MICRO = 8;
constexpr int TOTALS_BYTES = TILE_ROWS * TILE_COLUMNS * 4;

// `ALIGNED`: rows of x and of the weights begin at multiples of 16 bytes.
template <typename Format, bool ALIGNED>
struct Tile {
    using Element = typename Format::Element;
    static constexpr int SIZE = static_cast<int>(sizeof(Element));
    // Bytes from a row to the next in shared memory: eight rows in a row are in different banks.
    static constexpr int X_STRIDE = TILE_DEPTH * 4 + 16, W_STRIDE = TILE_DEPTH * SIZE + 16;
    static constexpr int STAGE_BYTES = TILE_ROWS * X_STRIDE + TILE_COLUMNS * W_STRIDE;
    static_assert(STAGE_BYTES % 16 == 0, "stages are aligned");

    const FloatMap &map;
    unsigned char *stages;
    float4 *totals;
    int thread;
    size_t first_row, first_column;

    // Brings rows of a matrix to a stage.
    template <typename T, int ROWS, int STRIDE>
    __device__ __forceinline__ void bring(unsigned char *to, const T *matrix, size_t first, size_t rows, uint32_t depth_done) const {
        constexpr int STEP = ALIGNED ? 16 / static_cast<int>(sizeof(T)) : 1, STEPS = TILE_DEPTH / STEP;
        auto bring_one = [&](int i) {
            int index = i * TILE_THREADS + thread, row = index / STEPS, column = index % STEPS * STEP;
            uint32_t k = depth_done + column;
            bool valid = first + row < rows && k < map.depth;
            auto place = reinterpret_cast<T *>(to + row * STRIDE) + column;
            const T *from = matrix + (first + row) * map.depth + k;
            if constexpr (ALIGNED) copy16(place, from, valid);
            else *place = valid ? *from : T(0);
        };
        constexpr int COUNT = ROWS * STEPS / TILE_THREADS;
        if constexpr (ALIGNED) {
            UNROLL for (int i = 0; i < COUNT; i++) bring_one(i);
        } else {
            // Written out, the values on their way would take the registers of the chains.
            ROLL for (int i = 0; i < COUNT; i++) bring_one(i);
        }
    }

    __device__ __forceinline__ void copy(uint32_t step) const {
        unsigned char *stage = stages + step % 2 * STAGE_BYTES;
        bring<float, TILE_ROWS, X_STRIDE>(stage, map.x, first_row, map.output.rows, step * TILE_DEPTH);
        bring<Element, TILE_COLUMNS, W_STRIDE>(stage + TILE_ROWS * X_STRIDE, static_cast<const Element *>(map.weights),
                                               first_column, map.output.columns, step * TILE_DEPTH);
    }

    // This thread's rows are `row() + 4·i`, its columns `column() + 8·j`.
    __device__ __forceinline__ int row() const { return thread / 64 * 32 + thread % 32 / 8; }
    __device__ __forceinline__ int column() const { return thread / 32 % 2 * 64 + thread % 8; }

    __device__ __forceinline__ void multiply(uint32_t step, float (&chains)[MICRO][MICRO]) const {
        const unsigned char *x = stages + step % 2 * STAGE_BYTES, *w = x + TILE_ROWS * X_STRIDE;
        UNROLL for (int quad = 0; quad < TILE_DEPTH / 4; quad++) {
            Piece values[MICRO];
            UNROLL for (int i = 0; i < MICRO; i++) values[i] = load_piece(x + (row() + 4 * i) * X_STRIDE + quad * 16);
            UNROLL for (int j = 0; j < MICRO; j++) {
                uint32_t words[SIZE];
                const unsigned char *from = w + (column() + 8 * j) * W_STRIDE + quad * 4 * SIZE;
                if constexpr (SIZE == 4) {
                    Piece piece = load_piece(from);
                    UNROLL for (int word = 0; word < 4; word++) words[word] = piece.words[word];
                } else {
                    uint2 pair = *reinterpret_cast<const uint2 *>(from);
                    words[0] = pair.x;
                    words[1] = pair.y;
                }
                float wide[4];
                widen_four(Format(), words, wide);
                UNROLL for (int k = 0; k < 4; k++)
                    UNROLL for (int i = 0; i < MICRO; i++)
                        chains[i][j] = fma_rn(bits_float(values[i].words[k]), wide[k], chains[i][j]);
            }
        }
    }

    // Ends a block of 128 positions.
    __device__ __forceinline__ void add_up(float (&chains)[MICRO][MICRO]) const {
        UNROLL for (int i = 0; i < MICRO; i++)
            UNROLL for (int j = 0; j < MICRO; j += 4) {
                float4 &total = totals[(i * 2 + j / 4) * TILE_THREADS + thread];
                float4 sum = total;
                sum.x = add_rn(sum.x, chains[i][j]);
                sum.y = add_rn(sum.y, chains[i][j + 1]);
                sum.z = add_rn(sum.z, chains[i][j + 2]);
                sum.w = add_rn(sum.w, chains[i][j + 3]);
                total = sum;
                UNROLL for (int k = 0; k < 4; k++) chains[i][j + k] = 0.0f;
            }
    }

    // Where the total of an element of the tile is: `add_up` the other way round.
    static __device__ __forceinline__ int place_of(int row, int column) {
        int of = row / 32 * 64 + column / 64 * 32 + row % 4 * 8 + column % 8, i = row % 32 / 4, j = column % 64 / 8;
        return ((i * 2 + j / 4) * TILE_THREADS + of) * 4 + j % 4;
    }

    __device__ __forceinline__ void run() const {
        float chains[MICRO][MICRO] = {};
        UNROLL for (int i = 0; i < 16; i++) totals[i * TILE_THREADS + thread] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        uint32_t steps = (map.depth + TILE_DEPTH - 1) / TILE_DEPTH;
        copy(0);
        copies_end();
        for (uint32_t step = 0; step < steps; step++) {
            copies_wait<0>();
            __syncthreads();
            if (step + 1 < steps) copy(step + 1);
            copies_end();
            multiply(step, chains);
            if ((step + 1) % (BLOCK / TILE_DEPTH) == 0 || step + 1 == steps) add_up(chains);
        }
        __syncthreads();
        auto all = reinterpret_cast<const float *>(totals);
        for (int index = thread; index < TILE_ROWS * TILE_COLUMNS; index += TILE_THREADS) {
            int row = index / TILE_COLUMNS, column = index % TILE_COLUMNS;
            if (first_row + row < map.output.rows && first_column + column < map.output.columns)
                map.finish(first_row + row, first_column + column, all[place_of(row, column)]);
        }
    }
};

template <typename Format, bool ALIGNED>
__device__ __forceinline__ void linear_tile(const FloatMap &map) {
    DYNAMIC_SHARED(unsigned char, shared);
    uint32_t across = (map.output.columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    size_t first_row = static_cast<size_t>(blockIdx.x / across) * TILE_ROWS;
    size_t first_column = static_cast<size_t>(blockIdx.x % across) * TILE_COLUMNS;
    Tile<Format, ALIGNED>{map, shared + TOTALS_BYTES, reinterpret_cast<float4 *>(shared), static_cast<int>(threadIdx.x), first_row,
                          first_column}
        .run();
}

#define LINEAR(name, ...)                                                                                                  \
    KERNEL_BOUNDS(name, 128, 3)(const float *x, const uint8_t *weights, const float *bias, const float *other, float *out, \
                                uint32_t rows, uint32_t columns, uint32_t depth, int then) {                              \
        __VA_ARGS__(FloatMap{x, weights, bias, depth, {other, out, rows, columns, then}});                                 \
    }                                                                                                                      \
    EXPORT(name)

#define LINEAR_FORMAT(format, Format)                                            \
    LINEAR(linear_deep_1_##format, linear_few<FewSizes<Format, 1, 32, 4>>)       \
    LINEAR(linear_deep_4_##format, linear_few<FewSizes<Format, 4, 32, 4>>)       \
    LINEAR(linear_deep_8_##format, linear_few<FewSizes<Format, 8, 32, 4>>)       \
    LINEAR(linear_middle_1_##format, linear_few<FewSizes<Format, 1, 16, 2>>)     \
    LINEAR(linear_middle_4_##format, linear_few<FewSizes<Format, 4, 16, 2>>)     \
    LINEAR(linear_middle_8_##format, linear_few<FewSizes<Format, 8, 16, 2>>)     \
    LINEAR(linear_shallow_1_##format, linear_few<FewSizes<Format, 1, 8, 1>>)     \
    LINEAR(linear_shallow_4_##format, linear_few<FewSizes<Format, 4, 8, 1>>)     \
    LINEAR(linear_shallow_8_##format, linear_few<FewSizes<Format, 8, 8, 1>>)     \
    LINEAR(linear_tile_##format, linear_tile<Format, true>)                      \
    LINEAR(linear_odd_##format, linear_tile<Format, false>)

LINEAR_FORMAT(f32, FormatF32)
LINEAR_FORMAT(bf16, FormatBf16)
LINEAR_FORMAT(f16, FormatF16)
