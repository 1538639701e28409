// From logits to tokens: penalties and biases, and the draw.
#include "exact.cuh"

// How a token's logit is changed in the rows of a segment: cuda_launch::sampling::Changes.
struct Change {
    uint32_t token, flags, bias, first, end;
};
constexpr uint32_t CHANGE_WORDS = 5;
constexpr uint32_t IN_PROMPT = 1, BIASED = 2;

// Logits of a row that a block takes.
constexpr uint32_t PENALIZE_TOKENS = 8192;

// The first of the changes, from `first` to before `end` and in order of their tokens, whose token is not less.
__device__ __forceinline__ uint32_t change_from(const uint32_t *changes, uint32_t first, uint32_t end, uint32_t token) {
    while (first < end) {
        uint32_t middle = first + (end - first) / 2;
        if (changes[static_cast<size_t>(middle) * CHANGE_WORDS] < token) first = middle + 1;
        else end = middle;
    }
    return first;
}

// arithmetic::sampling::penalize. A row has six words: its first change and the end of its changes, the tokens of the answer
// before the one that it gives, and the three penalties.
KERNEL_BOUNDS(penalize, 512, 1)(const float *__restrict__ logits, const uint32_t *__restrict__ changes, const uint32_t *__restrict__ positions,
                 const uint32_t *__restrict__ rows, float *__restrict__ out, uint32_t width) {
    const uint32_t *row = rows + static_cast<size_t>(blockIdx.x) * 6;
    const float *from = logits + static_cast<size_t>(blockIdx.x) * width;
    float *to = out + static_cast<size_t>(blockIdx.x) * width;
    uint32_t begin = blockIdx.y * PENALIZE_TOKENS, end = width - begin < PENALIZE_TOKENS ? width : begin + PENALIZE_TOKENS;
#pragma unroll 4
    for (uint32_t token = begin + threadIdx.x; token < end; token += blockDim.x) to[token] = from[token];
    __syncthreads();
    uint32_t before = row[2];
    float repetition = bits_float(row[3]), presence = bits_float(row[4]), frequency = bits_float(row[5]);
    uint32_t first = change_from(changes, row[0], row[1], begin), last = change_from(changes, first, row[1], end);
    for (uint32_t index = first + threadIdx.x; index < last; index += blockDim.x) {
        const uint32_t *words = changes + static_cast<size_t>(index) * CHANGE_WORDS;
        Change change = {words[0], words[1], words[2], words[3], words[4]};
        // Positions in the answer ascend.
        uint32_t low = change.first, high = change.end;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (positions[middle] < before) low = middle + 1;
            else high = middle;
        }
        uint32_t count = low - change.first;
        bool seen = count > 0 || (change.flags & IN_PROMPT) != 0, is_biased = (change.flags & BIASED) != 0;
        if (!seen && !is_biased) continue;
        float logit = from[change.token];
        if (seen) logit = logit > 0.0f ? divide_rn(logit, repetition) : mul_rn(logit, repetition);
        if (count > 0) {
            logit = sub_rn(logit, mul_rn(from_int(static_cast<int>(count)), frequency));
            logit = sub_rn(logit, presence);
        }
        if (is_biased) logit = add_rn(logit, bits_float(change.bias));
        to[change.token] = store(logit);
    }
}
EXPORT(penalize)

constexpr uint32_t SAMPLE_THREADS = 1024;
constexpr uint32_t MOST_KEPT = 1024;
// Candidates that are put in order at once.
constexpr uint32_t MOST_SORTED = 4096;
// Bits of a rank by which candidates are counted at once: two counts for each thread.
constexpr uint32_t DIGIT_BITS = 11;
constexpr uint32_t DIGITS = 1u << DIGIT_BITS;

// A candidate as a number that is the greater the earlier it comes: by its float, NaN as −∞, and then by the lower token.
__device__ __forceinline__ uint64_t rank_of(float z, uint32_t token) {
    if (is_nan(z)) z = bits_float(0xff800000u);
    uint32_t bits = float_bits(z);
    // Both zeros are one.
    if (bits == 0x80000000u) bits = 0;
    uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return static_cast<uint64_t>(order) << 32 | static_cast<uint32_t>(~token);
}

__device__ __forceinline__ uint32_t token_of(uint64_t rank) { return ~static_cast<uint32_t>(rank); }

__device__ __forceinline__ float float_of(uint64_t rank) {
    uint32_t order = static_cast<uint32_t>(rank >> 32);
    return bits_float((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}

// arithmetic::sampling::argmax, of the whole block.
__device__ __forceinline__ uint32_t argmax_of(const float *logits, uint32_t width, uint64_t *greatest) {
    uint64_t best = 0;
#pragma unroll 8
    for (uint32_t token = threadIdx.x; token < width; token += SAMPLE_THREADS) {
        uint64_t rank = rank_of(logits[token], token);
        best = rank > best ? rank : best;
    }
    for (int mask = 16; mask > 0; mask /= 2) {
        uint64_t other = __shfl_xor_sync(ALL_LANES, best, mask);
        best = other > best ? other : best;
    }
    if (threadIdx.x % 32 == 0) greatest[threadIdx.x / 32] = best;
    __syncthreads();
    for (uint32_t warp = 0; warp < SAMPLE_THREADS / 32; warp++) best = greatest[warp] > best ? greatest[warp] : best;
    return token_of(best);
}

// Ranks whose bits from `shift` on are not below `prefix`: `above` of them have greater ones there, `inside` the same.
struct Bound {
    uint64_t prefix;
    uint32_t shift, above, inside;
};

// Finds the digit that the `wanted`-th greatest rank has, from the counts of digits among ranks with the bound's prefix, and
// adds it to the bound, which is shared. Every thread takes part and begins behind a barrier.
__device__ __forceinline__ void narrow_bound(const uint32_t *counts, uint32_t *warps, Bound *bound, uint32_t bits,
                                             uint32_t wanted) {
    // Thread t has the digits that come 2t-th and next from above.
    uint32_t digit = DIGITS - 1 - 2 * threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t upper = counts[digit], lower = counts[digit - 1], sum = upper + lower, above = bound->above;
    for (unsigned delta = 1; delta < 32; delta *= 2) {
        uint32_t before = __shfl_up_sync(ALL_LANES, sum, delta);
        if (lane >= delta) sum += before;
    }
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    uint32_t end = above + sum;
    for (uint32_t i = 0; i < warp; i++) end += warps[i];
    uint32_t begin = end - upper - lower;
    if (begin < wanted && wanted <= end) {
        bool in_upper = wanted <= begin + upper;
        bound->prefix = bound->prefix << bits | (in_upper ? digit : digit - 1);
        bound->shift -= bits;
        bound->above = in_upper ? begin : begin + upper;
        bound->inside = in_upper ? upper : lower;
    }
    __syncthreads();
}

// Puts `count` ranks in descending order; there is room for a power of two.
__device__ __forceinline__ void sort_descending(uint64_t *ranks, uint32_t count) {
    uint32_t size = 1;
    while (size < count) size *= 2;
    for (uint32_t i = count + threadIdx.x; i < size; i += SAMPLE_THREADS) ranks[i] = 0;
    __syncthreads();
    for (uint32_t run = 2; run <= size; run *= 2)
        for (uint32_t step = run / 2; step > 0; step /= 2) {
            for (uint32_t i = threadIdx.x; i < size / 2; i += SAMPLE_THREADS) {
                uint32_t low = i / step * step * 2 + i % step, high = low + step;
                bool descends = (low & run) == 0;
                uint64_t a = ranks[low], b = ranks[high];
                if ((a < b) == descends) ranks[low] = b, ranks[high] = a;
            }
            __syncthreads();
        }
}

// Philox4x32-10: its first word.
__device__ __forceinline__ uint32_t philox(uint32_t key0, uint32_t key1, uint32_t position, uint32_t choice) {
    uint32_t x0 = position, x1 = choice, x2 = 0, x3 = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = static_cast<uint64_t>(0xd2511f53u) * x0, product1 = static_cast<uint64_t>(0xcd9e8d57u) * x2;
        x0 = static_cast<uint32_t>(product1 >> 32) ^ x1 ^ key0;
        x1 = static_cast<uint32_t>(product1);
        x2 = static_cast<uint32_t>(product0 >> 32) ^ x3 ^ key1;
        x3 = static_cast<uint32_t>(product0);
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return x0;
}

// arithmetic::sampling::choose, of the whole block: the index of the chosen one of `kept` ranks in order. Sums are added one
// by one, by a warp whose lanes hold 32 weights at a time. `found` holds three numbers of the block.
__device__ __forceinline__ uint32_t choose(const uint64_t *ranks, uint32_t kept, float top_p, float min_p, float uniform,
                                           float *weights, float *sums, uint32_t *found) {
    if (threadIdx.x < 3) found[threadIdx.x] = kept;
    __syncthreads();
    float greatest = float_of(ranks[0]);
    for (uint32_t i = threadIdx.x; i < kept; i += SAMPLE_THREADS) {
        weights[i] = exp_exact(sub_rn(float_of(ranks[i]), greatest));
        if (weights[i] < min_p) atomicMin(&found[0], i);
    }
    __syncthreads();
    uint32_t count = found[0];
    if (threadIdx.x < 32) {
        float sum = 0.0f;
        for (uint32_t first = 0; first < count; first += 32) {
            float weight = first + threadIdx.x < count ? weights[first + threadIdx.x] : 0.0f, own = 0.0f;
#pragma unroll
            for (int i = 0; i < 32; i++) {
                // Behind the last one a zero is added, and the sum not read.
                sum = add_rn(sum, __shfl_sync(ALL_LANES, weight, i));
                own = static_cast<uint32_t>(i) == threadIdx.x ? sum : own;
            }
            sums[first + threadIdx.x] = own;
        }
    }
    __syncthreads();
    if (count == 0) return 0;
    float enough = mul_rn(top_p, sums[count - 1]);
    for (uint32_t i = threadIdx.x; i < count; i += SAMPLE_THREADS)
        if (sums[i] >= enough) atomicMin(&found[1], i);
    __syncthreads();
    uint32_t cut = found[1] < count ? found[1] : count - 1;
    float threshold = mul_rn(uniform, sums[cut]);
    for (uint32_t i = threadIdx.x; i < count; i += SAMPLE_THREADS)
        if (sums[i] > threshold) atomicMin(&found[2], i);
    __syncthreads();
    return found[2] < count ? found[2] : cut;
}

// The token drawn from each row of logits, a block for each. A row's draw has eight words: temperature, top_k, top_p, min_p,
// the seed from its low word, the position and the choice.
KERNEL_BOUNDS(sample, 1024, 1)(const float *__restrict__ logits, const uint32_t *__restrict__ draws, uint32_t *__restrict__ out,
                            uint32_t width) {
    alignas(16) __shared__ uint64_t ranks[MOST_SORTED];
    alignas(16) __shared__ uint32_t counts[DIGITS];
    __shared__ uint32_t warps[SAMPLE_THREADS / 32], found[3], collected;
    __shared__ Bound bound;
    const float *row = logits + static_cast<size_t>(blockIdx.x) * width;
    const uint32_t *draw = draws + static_cast<size_t>(blockIdx.x) * 8;
    float temperature = bits_float(draw[0]);
    if (!(temperature >= bits_float(0x3c000000u))) {
        uint32_t token = argmax_of(row, width, ranks);
        if (threadIdx.x == 0) out[blockIdx.x] = token;
        return;
    }
    uint32_t kept = draw[1] < 1 ? 1 : draw[1] > MOST_KEPT ? MOST_KEPT : draw[1];
    if (kept > width) kept = width;
    if (threadIdx.x == 0) {
        bound = {0, 64, 0, width};
        collected = 0;
    }
    __syncthreads();
    auto rank = [&](uint32_t token) { return rank_of(divide_rn(row[token], temperature), token); };
    // Ranks differ: with all bits the bound has just as many as are kept.
    while (bound.above + bound.inside > MOST_SORTED) {
        uint32_t shift = bound.shift, bits = shift < DIGIT_BITS ? shift : DIGIT_BITS;
        uint64_t prefix = bound.prefix;
        for (uint32_t i = threadIdx.x; i < DIGITS; i += SAMPLE_THREADS) counts[i] = 0;
        __syncthreads();
#pragma unroll 4
        for (uint32_t token = threadIdx.x; token < width; token += SAMPLE_THREADS) {
            uint64_t it = rank(token);
            if (shift == 64 || it >> shift == prefix) atomicAdd(&counts[it >> (shift - bits) & ((1u << bits) - 1)], 1u);
        }
        __syncthreads();
        narrow_bound(counts, warps, &bound, bits, kept);
    }
    uint64_t least = bound.shift == 64 ? 0 : bound.prefix << bound.shift;
#pragma unroll 4
    for (uint32_t token = threadIdx.x; token < width; token += SAMPLE_THREADS) {
        uint64_t it = rank(token);
        if (it >= least) ranks[atomicAdd(&collected, 1u)] = it;
    }
    __syncthreads();
    sort_descending(ranks, collected);
    // exp(z − z) is 1 for a finite z, and a NaN for any other.
    uint32_t chosen = 0;
    if (magnitude(float_of(ranks[0])) < bits_float(0x7f800000u)) {
        uint32_t word = philox(draw[4], draw[5], draw[6], draw[7]);
        float uniform = mul_rn(from_int(static_cast<int>(word >> 8)), bits_float(0x33800000u));
        float *weights = reinterpret_cast<float *>(counts);
        chosen = choose(ranks, kept, bits_float(draw[2]), bits_float(draw[3]), uniform, weights, weights + MOST_KEPT, found);
    }
    if (threadIdx.x == 0) out[blockIdx.x] = token_of(ranks[chosen]);
}
EXPORT(sample)
