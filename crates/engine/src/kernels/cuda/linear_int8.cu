// Linear maps of the profile `exact-int8`: quantizing activations, and multiplying levels.
//
// Sums of a group are integers, exact in any order: only the scales that follow have one.
#include "linear.cuh"
#include "quantize.cuh"

// ---- Quantizing: a warp, or a block, for each group. ----

// Short groups: a warp each.
KERNEL(quantize_short)(const float *x, int8_t *low, int8_t *high, float *scales, uint64_t groups, uint32_t len) {
    uint64_t group = static_cast<uint64_t>(blockIdx.x) * WIDE_WARPS + threadIdx.x / 32;
    if (group < groups) quantize_group<1>(x, {low, high, scales}, group, len);
}
EXPORT(quantize_short)

// Long ones: a block each.
KERNEL(quantize_long)(const float *x, int8_t *low, int8_t *high, float *scales, uint64_t groups, uint32_t len) {
    if (blockIdx.x < groups) quantize_group<WIDE_WARPS>(x, {low, high, scales}, blockIdx.x, len);
}
EXPORT(quantize_long)

// ---- Multiplying: out = then(stored(t)), t = fma(f32(sum of a group), its scales' product, t) over the groups from the bias on.

// A map and the levels that it is applied to: low and high [rows][depth], weights [columns][depth], scales [rows][groups] and
// [columns][groups].
struct Int8Map {
    const int8_t *low, *high;
    const float *scales;
    const int8_t *weights;
    const float *weight_scales, *bias;
    uint32_t depth, group;
    Output output;

    __device__ __forceinline__ float first(size_t column) const { return bias == nullptr ? 0.0f : bias[column]; }
};

// The next `t`; `high` is read with levels of 16 bits alone.
template <bool SIXTEEN>
__device__ __forceinline__ float add_group(float t, int low, int high, float row_scale, float column_scale) {
    float sum = from_int(low);
    if constexpr (SIXTEEN) sum = fma_rn(from_int(high), 256.0f, sum);
    return fma_rn(sum, mul_rn(row_scale, column_scale), t);
}

// Which lane of a warp has what in `mma_s8`: rows of a and columns of b `QUARTER`, and further rows; four positions of a
// sixteen `PART`. Positions of a step of 64 may be permuted at will where a and b are alike: a lane's are 16 in a row, which
// are two words of each of two multiplications.
constexpr int MMA_STEP = 64;
__device__ __forceinline__ int quarter_of(int lane) { return lane / 4; }
__device__ __forceinline__ int part_of(int lane) { return lane % 4; }

// `sums += a · b` over a step; `a` are pieces of rows `quarter` and `quarter + 8`.
__device__ __forceinline__ void multiply_step(int (&sums)[4], const Piece (&a)[2], const Piece &b) {
    UNROLL for (int half = 0; half < 2; half++) {
        uint32_t of_a[4] = {a[0].words[2 * half], a[1].words[2 * half], a[0].words[2 * half + 1], a[1].words[2 * half + 1]};
        uint32_t of_b[2] = {b.words[2 * half], b.words[2 * half + 1]};
        mma_s8(sums, of_a, of_b);
    }
}

// ---- Few rows: as fast as the weights come. ----
//
// The weights are a's rows, so that eight rows of levels are a whole multiplication. The warps of a block share its columns
// and divide the depth; the groups' sums meet in shared memory. Weights go from memory to registers, those of the next
// chunk while this one's sums are scaled; scales come to shared memory a chunk ahead, for nothing hides how long they take.
constexpr int FEW_WARPS = 8, FEW_THREADS = FEW_WARPS * 32;

// A group by its index, and its slot among the sums that a block has at once. There is a slot for every group that a chunk
// can have a part of, and they are taken in turns.
struct Slot {
    uint32_t group, slot, slots;

    // Goes on by as many groups as a chunk has at most.
    __device__ __forceinline__ void advance(uint32_t by) {
        group += by;
        slot += by;
        if (slot >= slots) slot -= slots;
    }
};

template <int COLUMN_TILES, int ROW_TILES, int STEPS, bool SIXTEEN>
struct FewInt8 {
    static constexpr int COLUMNS = 16 * COLUMN_TILES;
    // Rows of digits, and of levels.
    static constexpr int DIGITS = 8 * ROW_TILES, ROWS = SIXTEEN ? DIGITS / 2 : DIGITS;
    static constexpr int SPAN = STEPS * MMA_STEP, CHUNK = FEW_WARPS * SPAN;
    static constexpr int SLOT = COLUMNS * DIGITS;
    // Columns and rows, which have a scale for each group.
    static constexpr int LINES = COLUMNS + ROWS;
    static constexpr int RESULTS = COLUMNS * ROWS, OF_THREAD = (RESULTS + FEW_THREADS - 1) / FEW_THREADS;

    const Int8Map &map;
    // [slots][COLUMNS][DIGITS]
    int *sums;
    uint32_t slots;
    size_t first_row, first_column;
    int lane, warp;

    // Where this lane's part of the rows of both operands begins. Beyond the last row it is that one again: the results are
    // not written.
    struct Sources {
        const int8_t *weights[COLUMN_TILES][2], *levels[ROW_TILES];
    };
    struct Operands {
        Piece weights[STEPS][COLUMN_TILES][2], levels[STEPS][ROW_TILES];
    };

    static __device__ __forceinline__ size_t within(size_t index, size_t count) { return index < count ? index : count - 1; }

    __device__ __forceinline__ uint32_t first_position() const { return warp * SPAN + part_of(lane) * 16; }

    __device__ __forceinline__ Sources sources() const {
        Sources from;
        UNROLL for (int tile = 0; tile < COLUMN_TILES; tile++)
            UNROLL for (int half = 0; half < 2; half++) {
                size_t column = within(first_column + tile * 16 + half * 8 + quarter_of(lane), map.output.columns);
                from.weights[tile][half] = map.weights + column * map.depth + first_position();
            }
        UNROLL for (int tile = 0; tile < ROW_TILES; tile++) {
            int digit = tile * 8 + quarter_of(lane);
            size_t row = within(first_row + digit % ROWS, map.output.rows);
            from.levels[tile] = (digit < ROWS ? map.low : map.high) + row * map.depth + first_position();
        }
        return from;
    }

    // Loads a chunk's operands; `CUT` where it may go beyond the end of a row.
    template <bool CUT>
    __device__ __forceinline__ void load(const Sources &from, uint32_t chunk, Operands &to) const {
        UNROLL for (int step = 0; step < STEPS; step++) {
            bool valid = !CUT || chunk + first_position() + step * MMA_STEP < map.depth;
            UNROLL for (int tile = 0; tile < COLUMN_TILES; tile++)
                UNROLL for (int half = 0; half < 2; half++)
                    to.weights[step][tile][half] = valid ? load_piece(from.weights[tile][half] + chunk + step * MMA_STEP) : Piece{};
            UNROLL for (int tile = 0; tile < ROW_TILES; tile++)
                to.levels[step][tile] = valid ? load_piece(from.levels[tile] + chunk + step * MMA_STEP) : Piece{};
        }
    }

    __device__ __forceinline__ void load(const Sources &from, uint32_t chunk, Operands &to) const {
        if (chunk + CHUNK <= map.depth) load<false>(from, chunk, to);
        else if (chunk < map.depth) load<true>(from, chunk, to);
    }

    // A digit's place among a column's. Lanes add to four digits of eight columns at once: where columns follow each other
    // too far apart to be in different banks, this is what parts them.
    static __device__ __forceinline__ int turned(int column, int digit) {
        int turn = column % 8 * ROW_TILES / 4;
        return digit ^ (turn % 2 | turn / 2 * 8);
    }

    __device__ __forceinline__ void give(uint32_t slot, int (&of)[COLUMN_TILES][ROW_TILES][4]) const {
        int quarter = quarter_of(lane), *to = sums + slot * SLOT + quarter * DIGITS;
        UNROLL for (int row = 0; row < ROW_TILES; row++)
            UNROLL for (int digit = 0; digit < 2; digit++) {
                int *at = to + turned(quarter, row * 8 + part_of(lane) * 2 + digit);
                UNROLL for (int column = 0; column < COLUMN_TILES; column++)
                    UNROLL for (int half = 0; half < 2; half++) {
                        int &sum = of[column][row][half * 2 + digit];
                        atomicAdd(at + (column * 16 + half * 8) * DIGITS, sum);
                        sum = 0;
                    }
            }
    }

    // Multiplies this warp's part of a chunk, which begins `offset` positions into the group of `at`.
    __device__ __forceinline__ void multiply(const Operands &operands, Slot at, uint32_t offset) const {
        int of[COLUMN_TILES][ROW_TILES][4] = {};
        UNROLL for (int step = 0; step < STEPS; step++) {
            UNROLL for (int column = 0; column < COLUMN_TILES; column++)
                UNROLL for (int row = 0; row < ROW_TILES; row++)
                    multiply_step(of[column][row], operands.weights[step][column], operands.levels[step][row]);
            offset += MMA_STEP;
            if (step + 1 == STEPS || offset >= map.group) {
                give(at.slot, of);
                // Beyond the end of a row all is zero, and may go anywhere.
                at.advance(1);
                offset = 0;
            }
        }
    }

    // Groups whose sums are complete behind a chunk.
    __device__ __forceinline__ uint32_t complete(uint32_t chunk) const {
        return (chunk + CHUNK < map.depth ? chunk + CHUNK : map.depth) / map.group;
    }

    // The scales of the groups that a chunk completes: [slots][LINES], for even chunks and for odd ones.
    __device__ __forceinline__ float *scales_of(uint32_t chunk) const {
        return reinterpret_cast<float *>(sums + slots * SLOT) + chunk / CHUNK % 2 * slots * LINES;
    }

    // Starts bringing them.
    __device__ __forceinline__ void bring_scales(uint32_t chunk) const {
        if (chunk >= map.depth) return;
        // Groups of a line that are copied by lanes side by side.
        constexpr uint32_t SIDE = 8;
        uint32_t groups = map.depth / map.group, begin = chunk / map.group, count = complete(chunk) - begin;
        float *to = scales_of(chunk);
        // Written out, the loops would take the registers of the weights.
        ROLL for (uint32_t i = threadIdx.x; i < LINES * SIDE; i += FEW_THREADS) {
            uint32_t line = i / SIDE;
            bool of_column = line < COLUMNS;
            size_t index = of_column ? first_column + line : first_row + line - COLUMNS;
            if (index >= (of_column ? map.output.columns : map.output.rows)) continue;
            const float *from = (of_column ? map.weight_scales : map.scales) + index * groups + begin;
            ROLL for (uint32_t group = i % SIDE; group < count; group += SIDE) copy4(to + group * LINES + line, from + group);
        }
    }

    // Goes on with this thread's results over the next groups, and empties what held their sums.
    __device__ __forceinline__ void scale(Slot next, uint32_t count, const float *scales, float (&totals)[OF_THREAD]) const {
        UNROLL for (int i = 0; i < OF_THREAD; i++) {
            int result = static_cast<int>(threadIdx.x) + i * FEW_THREADS;
            if (RESULTS % FEW_THREADS != 0 && result >= RESULTS) continue;
            int column = result / ROWS, row = result % ROWS;
            if (first_column + column >= map.output.columns || first_row + row >= map.output.rows) continue;
            const float *row_scales = scales + COLUMNS + row, *column_scales = scales + column;
            int *first = sums + column * DIGITS + turned(column, row), *end = first + slots * SLOT;
            int *sum = first + next.slot * SLOT, upper = turned(column, row + DIGITS - ROWS) - turned(column, row);
            float total = totals[i];
            for (uint32_t group = 0; group < count; group++) {
                int low = sum[0], high = SIXTEEN ? sum[upper] : 0;
                sum[0] = 0;
                if (SIXTEEN) sum[upper] = 0;
                total = add_group<SIXTEEN>(total, low, high, row_scales[group * LINES], column_scales[group * LINES]);
                sum += SLOT;
                if (sum == end) sum = first;
            }
            totals[i] = total;
        }
    }

    __device__ __forceinline__ void run() const {
        Sources from = sources();
        Operands operands;
        load(from, 0, operands);
        bring_scales(0);
        copies_end();
        float totals[OF_THREAD];
        UNROLL for (int i = 0; i < OF_THREAD; i++) {
            size_t column = first_column + (threadIdx.x + i * FEW_THREADS) / ROWS;
            totals[i] = column < map.output.columns ? map.first(column) : 0.0f;
        }
        for (uint32_t i = threadIdx.x; i < slots * SLOT; i += FEW_THREADS) sums[i] = 0;
        // Where this warp is, and what is not yet scaled.
        uint32_t whole = CHUNK / map.group, rest = CHUNK % map.group, offset = warp * SPAN % map.group;
        Slot at = {0, 0, slots}, next = at;
        at.advance(warp * SPAN / map.group);
        __syncthreads();
        for (uint32_t chunk = 0; chunk < map.depth; chunk += CHUNK) {
            // A warp multiplies as one, wherever its lanes have gone before.
            __syncwarp();
            multiply(operands, at, offset);
            load(from, chunk + CHUNK, operands);
            bring_scales(chunk + CHUNK);
            copies_end();
            at.advance(whole);
            offset += rest;
            if (offset >= map.group) {
                offset -= map.group;
                at.advance(1);
            }
            copies_wait<1>();
            __syncthreads();
            uint32_t count = complete(chunk) - next.group;
            scale(next, count, scales_of(chunk), totals);
            next.advance(count);
            __syncthreads();
        }
        UNROLL for (int i = 0; i < OF_THREAD; i++) {
            uint32_t result = threadIdx.x + i * FEW_THREADS;
            size_t column = first_column + result / ROWS, row = first_row + result % ROWS;
            if (result < RESULTS && column < map.output.columns && row < map.output.rows)
                map.output.write(row, column, totals[i]);
        }
    }
};

template <typename Few>
__device__ __forceinline__ void int8_few_block(const Int8Map &map, uint32_t slots, uint32_t block) {
    DYNAMIC_SHARED(int, sums);
    uint32_t row_groups = (map.output.rows + Few::ROWS - 1) / Few::ROWS;
    size_t first_row = static_cast<size_t>(block % row_groups) * Few::ROWS;
    size_t first_column = static_cast<size_t>(block / row_groups) * Few::COLUMNS;
    Few{map, sums, slots, first_row, first_column, static_cast<int>(threadIdx.x % 32), static_cast<int>(threadIdx.x / 32)}.run();
}

template <typename Few>
__device__ __forceinline__ void int8_few(const Int8Map &map, uint32_t slots) {
    int8_few_block<Few>(map, slots, blockIdx.x);
}

// A map of several that read the same levels. One without columns is none.
struct Int8Part {
    const int8_t *weights;
    const float *weight_scales, *bias;
    float *out;
    uint32_t columns;
    int then;
};

// Each of the maps has its own blocks. `map` has what they have in common.
template <typename Few>
__device__ __forceinline__ void int8_few_together(Int8Map map, const Int8Part (&parts)[3], uint32_t slots) {
    uint32_t row_groups = (map.output.rows + Few::ROWS - 1) / Few::ROWS, block = blockIdx.x;
    Int8Part own = parts[0];
    UNROLL for (int i = 0; i < 2; i++) {
        uint32_t blocks = (own.columns + Few::COLUMNS - 1) / Few::COLUMNS * row_groups;
        if (block < blocks) break;
        block -= blocks;
        own = parts[i + 1];
    }
    map.weights = own.weights;
    map.weight_scales = own.weight_scales;
    map.bias = own.bias;
    map.output.out = own.out;
    map.output.columns = own.columns;
    map.output.then = own.then;
    int8_few_block<Few>(map, slots, block);
}

// ---- Many rows: tiles of 128 rows of digits × 128 columns. ----
//
// Eight warps have 64 × 32 each; levels and weights come in stages of `DEPTH` positions, which divide a group or are part of
// a row's only one. With levels of 16 bits, half the rows of a tile are upper digits.
constexpr int TILE = 128, TILE_THREADS = 256, TILE_STAGES = 3;
constexpr int ROW_TILES = 4, COLUMN_TILES = 4;

template <bool SIXTEEN, bool GROUPED, int DEPTH>
struct TileInt8 {
    static constexpr int ROWS = SIXTEEN ? TILE / 2 : TILE;
    // Tiles of a warp that hold different rows.
    static constexpr int LEVEL_TILES = SIXTEEN ? ROW_TILES / 2 : ROW_TILES;
    static constexpr int PIECES = DEPTH / 16, STAGE_BYTES = 2 * TILE * DEPTH;
    // Floats from a row of results to the next: what a warp writes at once is in different banks.
    static constexpr int RESULT_STRIDE = TILE + 4;

    const Int8Map &map;
    unsigned char *stages;
    // Scales of the rows and columns, of a group and of those before and after it: [3][2 · TILE].
    float *scales;
    size_t first_row, first_column;
    int thread, lane, warp;

    using Sums = int[ROW_TILES][COLUMN_TILES][4];
    using Totals = float[LEVEL_TILES][COLUMN_TILES][4];

    // Lines that a thread copies of each operand, a piece of each.
    static constexpr int LINES = TILE * PIECES / TILE_THREADS;

    // What this thread copies of the first stage: offsets from the first row and the first column of the tile. Beyond the last
    // row it is that one again: the results are not written.
    struct Sources {
        uint32_t levels[LINES], weights[LINES];
    };

    // Where a piece of a row is: those that are read at once are in different banks.
    static __device__ __forceinline__ int placed(int row, int piece) {
        return row * DEPTH + (piece ^ (row / (8 / PIECES) % PIECES)) * 16;
    }

    __device__ __forceinline__ int line(int i) const { return (i * TILE_THREADS + thread) / PIECES; }
    __device__ __forceinline__ int piece() const { return thread % PIECES; }

    __device__ __forceinline__ Sources sources() const {
        Sources from;
        size_t rows = map.output.rows - first_row, columns = map.output.columns - first_column;
        UNROLL for (int i = 0; i < LINES; i++) {
            // Rows of a warp's half: lower digits, then upper ones.
            size_t row = SIXTEEN ? line(i) / 64 * 32 + line(i) % 32 : line(i), column = line(i);
            from.levels[i] = static_cast<uint32_t>(row < rows ? row : rows - 1) * map.depth + piece() * 16;
            from.weights[i] = static_cast<uint32_t>(column < columns ? column : columns - 1) * map.depth + piece() * 16;
        }
        return from;
    }

    __device__ __forceinline__ void copy(const Sources &from, uint32_t step) const {
        unsigned char *to = stages + step % TILE_STAGES * STAGE_BYTES;
        uint32_t k = step * DEPTH;
        bool valid = k + piece() * 16 < map.depth;
        size_t levels = first_row * map.depth + k, weights = first_column * map.depth + k;
        UNROLL for (int i = 0; i < LINES; i++) {
            bool upper = SIXTEEN && line(i) % 64 >= 32;
            int place = placed(line(i), piece());
            copy16(to + place, (upper ? map.high : map.low) + levels + from.levels[i], valid);
            copy16(to + TILE * DEPTH + place, map.weights + weights + from.weights[i], valid);
        }
    }

    __device__ __forceinline__ int warp_line() const { return warp / 4 * 64; }
    __device__ __forceinline__ int warp_row() const { return SIXTEEN ? warp / 4 * 32 : warp / 4 * 64; }
    __device__ __forceinline__ int warp_column() const { return warp % 4 * 32; }

    __device__ __forceinline__ void multiply(uint32_t step, Sums &sums) const {
        const unsigned char *a = stages + step % TILE_STAGES * STAGE_BYTES, *b = a + TILE * DEPTH;
        // Which row of which matrix this lane points to: a's are rows 0 … 7 and 8 … 15, twice; b's both sixteens of
        // positions of eight columns, then of the next eight.
        int matrix = lane / 8, a_line = warp_line() + matrix % 2 * 8 + lane % 8, b_line = warp_column() + matrix / 2 * 8 + lane % 8;
        UNROLL for (int part = 0; part < DEPTH / 32; part++) {
            uint32_t weights[COLUMN_TILES / 2][4];
            UNROLL for (int pair = 0; pair < COLUMN_TILES / 2; pair++)
                load_matrices(weights[pair], b + placed(b_line + pair * 16, part * 2 + matrix % 2));
            UNROLL for (int tile = 0; tile < ROW_TILES; tile++) {
                uint32_t levels[4];
                load_matrices(levels, a + placed(a_line + tile * 16, part * 2 + matrix / 2));
                UNROLL for (int column = 0; column < COLUMN_TILES; column++) {
                    uint32_t of_column[2] = {weights[column / 2][column % 2 * 2], weights[column / 2][column % 2 * 2 + 1]};
                    mma_s8(sums[tile][column], levels, of_column);
                }
            }
        }
    }

    __device__ __forceinline__ float *scales_of(uint32_t group) const { return scales + group % 3 * TILE_THREADS; }

    // The scale that this thread brings for all: of a row or of a column.
    __device__ __forceinline__ float scale_of(uint32_t group, uint32_t groups) const {
        size_t index = thread < TILE ? first_row + thread : first_column + thread - TILE;
        bool valid = group < groups && (thread < TILE ? thread < ROWS && index < map.output.rows : index < map.output.columns);
        return valid ? (thread < TILE ? map.scales : map.weight_scales)[index * groups + group] : 0.0f;
    }

    __device__ __forceinline__ void begin(Totals &totals) const {
        UNROLL for (int tile = 0; tile < COLUMN_TILES; tile++)
            UNROLL for (int i = 0; i < 2; i++) {
                size_t column = first_column + warp_column() + tile * 8 + part_of(lane) * 2 + i;
                float bias = column < map.output.columns ? map.first(column) : 0.0f;
                UNROLL for (int row = 0; row < LEVEL_TILES; row++) totals[row][tile][i] = totals[row][tile][i + 2] = bias;
            }
    }

    __device__ __forceinline__ void scale(const float *of_group, Sums &sums, Totals &totals) const {
        UNROLL for (int tile = 0; tile < LEVEL_TILES; tile++)
            UNROLL for (int half = 0; half < 2; half++) {
                float row_scale = of_group[warp_row() + tile * 16 + half * 8 + quarter_of(lane)];
                UNROLL for (int column = 0; column < COLUMN_TILES; column++)
                    UNROLL for (int i = 0; i < 2; i++) {
                        float column_scale = of_group[TILE + warp_column() + column * 8 + part_of(lane) * 2 + i];
                        float &total = totals[tile][column][half * 2 + i];
                        int &low = sums[tile][column][half * 2 + i], &high = sums[ROW_TILES - LEVEL_TILES + tile][column][half * 2 + i];
                        total = add_group<SIXTEEN>(total, low, high, row_scale, column_scale);
                        low = high = 0;
                    }
            }
    }

    // Results go through shared memory, so that rows are written in one go.
    __device__ __forceinline__ void write(const Totals &totals) const {
        auto results = reinterpret_cast<float *>(stages);
        __syncthreads();
        UNROLL for (int tile = 0; tile < LEVEL_TILES; tile++)
            UNROLL for (int column = 0; column < COLUMN_TILES; column++)
                UNROLL for (int half = 0; half < 2; half++) {
                    int row = warp_row() + tile * 16 + half * 8 + quarter_of(lane);
                    float *to = results + row * RESULT_STRIDE + warp_column() + column * 8 + part_of(lane) * 2;
                    *reinterpret_cast<float2 *>(to) = make_float2(totals[tile][column][half * 2], totals[tile][column][half * 2 + 1]);
                }
        __syncthreads();
        ROLL for (int index = thread; index < ROWS * TILE; index += TILE_THREADS) {
            size_t row = first_row + index / TILE, column = first_column + index % TILE;
            if (row < map.output.rows && column < map.output.columns)
                map.output.write(row, column, results[index / TILE * RESULT_STRIDE + index % TILE]);
        }
    }

    __device__ __forceinline__ void run() const {
        uint32_t groups = map.depth / map.group, steps = (map.depth + DEPTH - 1) / DEPTH, steps_of_group = map.group / DEPTH;
        Sources from = sources();
        Sums sums = {};
        Totals totals;
        if constexpr (GROUPED) begin(totals);
        float next_scale = scale_of(0, groups);
        UNROLL for (uint32_t step = 0; step + 1 < TILE_STAGES; step++) {
            if (step < steps) copy(from, step);
            copies_end();
        }
        // Four warps scale a group's sums when they have them, the other four before they go on, so that on each quarter of a
        // multiprocessor one warp multiplies while the other scales.
        bool early = warp < TILE_THREADS / 64, waits = false;
        uint32_t group = 0, left = steps_of_group;
        if constexpr (!GROUPED) scales[thread] = next_scale;
        for (uint32_t step = 0; step < steps; step++) {
            if (GROUPED && left == steps_of_group) {
                scales_of(group)[thread] = next_scale;
                next_scale = scale_of(group + 1, groups);
            }
            copies_wait<TILE_STAGES - 2>();
            __syncthreads();
            if (step + TILE_STAGES - 1 < steps) copy(from, step + TILE_STAGES - 1);
            copies_end();
            if (GROUPED && waits) scale(scales_of(group - 1), sums, totals);
            waits = false;
            __syncwarp();
            multiply(step, sums);
            if (GROUPED && --left == 0) {
                if (early) scale(scales_of(group), sums, totals);
                waits = !early;
                group++;
                left = steps_of_group;
            }
        }
        if (GROUPED && waits) scale(scales_of(group - 1), sums, totals);
        if constexpr (!GROUPED) {
            begin(totals);
            scale(scales, sums, totals);
        }
        write(totals);
    }
};

template <typename Tile>
__device__ __forceinline__ void int8_tile(const Int8Map &map, uint32_t) {
    DYNAMIC_SHARED(float, shared);
    uint32_t across = (map.output.columns + TILE - 1) / TILE;
    size_t first_row = static_cast<size_t>(blockIdx.x / across) * Tile::ROWS;
    size_t first_column = static_cast<size_t>(blockIdx.x % across) * TILE;
    int thread = static_cast<int>(threadIdx.x);
    auto stages = reinterpret_cast<unsigned char *>(shared + 3 * TILE_THREADS);
    Tile{map, stages, shared, first_row, first_column, thread, thread % 32, thread / 32}.run();
}

// ---- Any sizes: a thread for each result. ----
__device__ __forceinline__ void plain_result(const Int8Map &map, uint32_t) {
    size_t index = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    size_t row = index / map.output.columns, column = index % map.output.columns;
    if (row >= map.output.rows) return;
    uint32_t groups = map.depth / map.group;
    const int8_t *weights = map.weights + column * map.depth, *low = map.low + row * map.depth;
    const int8_t *high = map.high == nullptr ? nullptr : map.high + row * map.depth;
    float total = map.first(column);
    for (uint32_t group = 0; group < groups; group++) {
        int low_sum = 0, high_sum = 0;
        for (uint32_t k = group * map.group; k < (group + 1) * map.group; k++) {
            low_sum += low[k] * weights[k];
            if (high != nullptr) high_sum += high[k] * weights[k];
        }
        float row_scale = map.scales[row * groups + group], column_scale = map.weight_scales[column * groups + group];
        total = high == nullptr ? add_group<false>(total, low_sum, 0, row_scale, column_scale)
                                : add_group<true>(total, low_sum, high_sum, row_scale, column_scale);
    }
    map.output.write(row, column, total);
}

#define INT8(name, blocks, ...)                                                                                               \
    KERNEL_BOUNDS(name, 256, blocks)(const int8_t *low, const int8_t *high, const float *scales, const int8_t *weights,       \
                                     const float *weight_scales, const float *bias, const float *other, float *out,          \
                                     uint32_t rows, uint32_t columns, uint32_t depth, uint32_t group, int then,              \
                                     uint32_t slots) {                                                                       \
        __VA_ARGS__(Int8Map{low, high, scales, weights, weight_scales, bias, depth, group, {other, out, rows, columns, then}}, \
                    slots);                                                                                                  \
    }                                                                                                                        \
    EXPORT(name)

INT8(int8_few_8, 3, int8_few<FewInt8<1, 1, 4, false>>)
INT8(int8_few_16, 2, int8_few<FewInt8<1, 2, 4, false>>)
INT8(int8_few_32, 2, int8_few<FewInt8<2, 4, 2, false>>)
INT8(int8_few_8_digits, 3, int8_few<FewInt8<1, 1, 4, true>>)
INT8(int8_few_16_digits, 2, int8_few<FewInt8<1, 2, 4, true>>)
INT8(int8_few_32_digits, 2, int8_few<FewInt8<2, 4, 2, true>>)
INT8(int8_tile_whole, 2, int8_tile<TileInt8<false, false, 128>>)
INT8(int8_tile_grouped, 1, int8_tile<TileInt8<false, true, 128>>)
INT8(int8_tile_short, 1, int8_tile<TileInt8<false, true, 64>>)
INT8(int8_tile_whole_digits, 2, int8_tile<TileInt8<true, false, 128>>)
INT8(int8_tile_grouped_digits, 1, int8_tile<TileInt8<true, true, 128>>)
INT8(int8_tile_short_digits, 1, int8_tile<TileInt8<true, true, 64>>)
INT8(int8_plain, 1, plain_result)

#define TOGETHER(name, blocks, ...)                                                                                           \
    KERNEL_BOUNDS(name, 256, blocks)(const int8_t *low, const int8_t *high, const float *scales, uint32_t rows,               \
                                     uint32_t depth, uint32_t group, uint32_t slots, const int8_t *weights_0,                 \
                                     const float *scales_0, const float *bias_0, float *out_0, uint32_t columns_0,            \
                                     int then_0, const int8_t *weights_1, const float *scales_1, const float *bias_1,         \
                                     float *out_1, uint32_t columns_1, int then_1, const int8_t *weights_2,                   \
                                     const float *scales_2, const float *bias_2, float *out_2, uint32_t columns_2,            \
                                     int then_2) {                                                                            \
        const Int8Part parts[3] = {{weights_0, scales_0, bias_0, out_0, columns_0, then_0},                                   \
                                   {weights_1, scales_1, bias_1, out_1, columns_1, then_1},                                   \
                                   {weights_2, scales_2, bias_2, out_2, columns_2, then_2}};                                  \
        Int8Map map{low, high, scales, nullptr, nullptr, nullptr, depth, group, {nullptr, nullptr, rows, 0, 0}};              \
        int8_few_together<__VA_ARGS__>(map, parts, slots);                                                                    \
    }                                                                                                                         \
    EXPORT(name)

TOGETHER(int8_few_8_together, 3, FewInt8<1, 1, 4, false>)
TOGETHER(int8_few_16_together, 2, FewInt8<1, 2, 4, false>)
TOGETHER(int8_few_32_together, 2, FewInt8<2, 4, 2, false>)
TOGETHER(int8_few_8_digits_together, 3, FewInt8<1, 1, 4, true>)
TOGETHER(int8_few_16_digits_together, 2, FewInt8<1, 2, 4, true>)
TOGETHER(int8_few_32_digits_together, 2, FewInt8<2, 4, 2, true>)
