// BLAKE3 of tensors where they lie, so that only hashes leave the device.
//
// A job's tensor comes in runs of bytes. A chunk of 1 KiB is hashed once a byte behind it is known: the last chunk of a tensor
// is hashed otherwise than the others, and so is the node above all. What is not yet hashed, up to a whole chunk, waits in the
// job's tail. A block hashes the chunks of one run that lie in one aligned group, and then their parents up to the group's
// root, as far as all chunks below a node are this run's. Of these nodes the topmost leave the block, from left to right.
#include "device.cuh"

constexpr int CHUNK_BYTES = 1024;
constexpr int CHUNK_WORDS = CHUNK_BYTES / 4;
// Chunks of a group, a thread each; height of a group's root.
constexpr int GROUP = 128;
constexpr int GROUP_HEIGHT = 7;
constexpr int CV_WORDS = 8;
// Words from one chaining value to the next in shared memory: odd, so that neighbours lie in other banks.
constexpr int CV_PITCH = CV_WORDS + 1;

constexpr uint32_t CHUNK_START = 1, CHUNK_END = 2, PARENT = 4;

// What a launch is told of a run, as 64-bit words.
enum RunWord { RUN_AT, RUN_BEFORE, RUN_BYTES, RUN_TAIL, RUN_OUT, RUN_WORDS };

__device__ __forceinline__ void set_initial(uint32_t (&cv)[CV_WORDS]) {
    constexpr uint32_t IV[CV_WORDS] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                       0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
#pragma unroll
    for (int i = 0; i < CV_WORDS; i++) cv[i] = IV[i];
}

__device__ __forceinline__ uint32_t rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }

__device__ __forceinline__ void mix(uint32_t &a, uint32_t &b, uint32_t &c, uint32_t &d, uint32_t m1, uint32_t m2) {
    a = a + b + m1;
    d = rotate(d ^ a, 16);
    c = c + d;
    b = rotate(b ^ c, 12);
    a = a + b + m2;
    d = rotate(d ^ a, 8);
    c = c + d;
    b = rotate(b ^ c, 7);
}

// The chaining value after a block of 64 bytes.
__device__ __forceinline__ void compress(uint32_t (&cv)[CV_WORDS], const uint32_t (&message)[16], uint64_t counter,
                                         uint32_t flags) {
    uint32_t v[16], m[16];
    uint32_t initial[CV_WORDS];
    set_initial(initial);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = cv[i];
#pragma unroll
    for (int i = 0; i < 4; i++) v[8 + i] = initial[i];
    v[12] = static_cast<uint32_t>(counter);
    v[13] = static_cast<uint32_t>(counter >> 32);
    v[14] = 64;
    v[15] = flags;
#pragma unroll
    for (int i = 0; i < 16; i++) m[i] = message[i];
#pragma unroll
    for (int round = 0; round < 7; round++) {
        mix(v[0], v[4], v[8], v[12], m[0], m[1]);
        mix(v[1], v[5], v[9], v[13], m[2], m[3]);
        mix(v[2], v[6], v[10], v[14], m[4], m[5]);
        mix(v[3], v[7], v[11], v[15], m[6], m[7]);
        mix(v[0], v[5], v[10], v[15], m[8], m[9]);
        mix(v[1], v[6], v[11], v[12], m[10], m[11]);
        mix(v[2], v[7], v[8], v[13], m[12], m[13]);
        mix(v[3], v[4], v[9], v[14], m[14], m[15]);
        uint32_t next[16] = {m[2],  m[6],  m[3], m[10], m[7], m[0],  m[4],  m[13],
                             m[1], m[11], m[12], m[5],  m[9], m[14], m[15], m[8]};
#pragma unroll
        for (int i = 0; i < 16; i++) m[i] = next[i];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) cv[i] = v[i] ^ v[i + 8];
}

// The chunks that are complete once so many bytes are known: those with a byte behind them.
__device__ __forceinline__ uint64_t complete_chunks(uint64_t bytes) { return bytes == 0 ? 0 : (bytes - 1) / CHUNK_BYTES; }

// A run, and where its chunks are: the first may begin in the tail.
struct Run {
    const unsigned char *at;
    uint64_t before, bytes;
    uint32_t *tail;
    uint64_t out, first_chunk, end_chunk;

    __device__ explicit Run(const uint64_t *words)
        : at(reinterpret_cast<const unsigned char *>(words[RUN_AT])), before(words[RUN_BEFORE]), bytes(words[RUN_BYTES]),
          tail(reinterpret_cast<uint32_t *>(words[RUN_TAIL])), out(words[RUN_OUT]), first_chunk(complete_chunks(before)),
          end_chunk(complete_chunks(before + bytes)) {}

    // The 16 words of a chunk from word `word` on.
    __device__ __forceinline__ void load(uint64_t chunk, int word, uint32_t (&m)[16]) const {
        if (chunk == first_chunk) {
            int in_tail = static_cast<int>((before - first_chunk * CHUNK_BYTES) / 4);
            const uint32_t *words = reinterpret_cast<const uint32_t *>(at);
#pragma unroll
            for (int i = 0; i < 16; i++) m[i] = word + i < in_tail ? tail[word + i] : words[word + i - in_tail];
            return;
        }
        const unsigned char *from = at + (chunk * CHUNK_BYTES - before) + word * 4;
        if (reinterpret_cast<uint64_t>(from) % 16 == 0) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint4 four = reinterpret_cast<const uint4 *>(from)[i];
                m[4 * i] = four.x;
                m[4 * i + 1] = four.y;
                m[4 * i + 2] = four.z;
                m[4 * i + 3] = four.w;
            }
        } else {
#pragma unroll
            for (int i = 0; i < 16; i++) m[i] = reinterpret_cast<const uint32_t *>(from)[i];
        }
    }

    __device__ __forceinline__ void hash(uint64_t chunk, uint32_t (&cv)[CV_WORDS]) const {
        uint32_t m[16], next[16];
        set_initial(cv);
        load(chunk, 0, next);
#pragma unroll 1
        for (int word = 0; word < CHUNK_WORDS; word += 16) {
#pragma unroll
            for (int i = 0; i < 16; i++) m[i] = next[i];
            if (word + 16 < CHUNK_WORDS) load(chunk, word + 16, next);
            uint32_t flags = (word == 0 ? CHUNK_START : 0) | (word + 16 == CHUNK_WORDS ? CHUNK_END : 0);
            compress(cv, m, chunk, flags);
        }
    }

    // Leaves in the tail what is not hashed: behind what is there, where no chunk has been completed.
    __device__ __forceinline__ void keep_tail() const {
        uint64_t start = end_chunk * CHUNK_BYTES;
        int old = end_chunk == first_chunk ? static_cast<int>((before - start) / 4) : 0;
        int end = static_cast<int>((before + bytes - start) / 4);
        const uint32_t *words = reinterpret_cast<const uint32_t *>(at + (start + old * 4 - before));
        for (int i = old + static_cast<int>(threadIdx.x); i < end; i += GROUP) tail[i] = words[i - old];
    }
};

// How many nodes the chunks from `first` to `end` of a group leave before the one that begins at `start`, if from left to
// right each is as high as place and number allow.
__device__ __forceinline__ uint32_t nodes_before(uint32_t first, uint32_t end, uint32_t start) {
    uint32_t count = 0;
    for (uint32_t at = first; at < start; count++) {
        uint32_t step = at == 0 ? GROUP : at & (0u - at);
        while (step > end - at) step >>= 1;
        at += step;
    }
    return count;
}

// A node of a group whose first chunk, of this run, is `first`, and the last `end - 1`.
__device__ __forceinline__ bool is_complete(uint32_t first, uint32_t end, uint32_t index, int height) {
    return first <= index << height && (index + 1) << height <= end;
}

// Hashes runs, a block for each run (x) and each group of its chunks (y). `out` has 8 words for each node.
KERNEL_BOUNDS(blake3_runs, GROUP, 4)(const uint64_t *__restrict__ runs, uint32_t *__restrict__ out) {
    __shared__ uint32_t cvs[GROUP * CV_PITCH];
    const Run run(runs + static_cast<size_t>(blockIdx.x) * RUN_WORDS);
    uint64_t first_group = run.first_chunk / GROUP, group = first_group + blockIdx.y;
    uint64_t group_chunk = group * GROUP;
    bool is_first = blockIdx.y == 0;
    if (!is_first && group_chunk >= run.end_chunk) return;

    auto within = [&](uint64_t chunk) {
        uint64_t past = chunk > group_chunk ? chunk - group_chunk : 0;
        return static_cast<uint32_t>(past < GROUP ? past : GROUP);
    };
    uint32_t first = within(run.first_chunk), end = within(run.end_chunk), lane = threadIdx.x;
    uint32_t cv[CV_WORDS];
    if (first <= lane && lane < end) run.hash(group_chunk + lane, cv);
    // The block of the first group is the only one that reads the tail.
    __syncthreads();
    if (is_first) run.keep_tail();

    // Nodes that groups before leave: of the first group one for each set bit of its number of chunks, of others one.
    uint64_t base = run.out;
    if (!is_first) base += __popc(GROUP - static_cast<uint32_t>(run.first_chunk % GROUP)) + blockIdx.y - 1;
#pragma unroll 1
    for (int height = 0; height <= GROUP_HEIGHT; height++) {
        if (lane < static_cast<uint32_t>(GROUP >> height) && is_complete(first, end, lane, height)) {
            uint32_t *own = cvs + (lane << height) * CV_PITCH;
            if (height > 0) {
                uint32_t children[16];
                const uint32_t *right = own + (CV_PITCH << (height - 1));
#pragma unroll
                for (int i = 0; i < CV_WORDS; i++) {
                    children[i] = own[i];
                    children[CV_WORDS + i] = right[i];
                }
                set_initial(cv);
                compress(cv, children, 0, PARENT);
            }
#pragma unroll
            for (int i = 0; i < CV_WORDS; i++) own[i] = cv[i];
            if (height == GROUP_HEIGHT || !is_complete(first, end, lane / 2, height + 1)) {
                uint4 *to = reinterpret_cast<uint4 *>(out + (base + nodes_before(first, end, lane << height)) * CV_WORDS);
                to[0] = make_uint4(cv[0], cv[1], cv[2], cv[3]);
                to[1] = make_uint4(cv[4], cv[5], cv[6], cv[7]);
            }
        }
        __syncthreads();
    }
}
EXPORT(blake3_runs)
