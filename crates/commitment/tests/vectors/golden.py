"""Writes golden.json: what this crate must produce, computed without it.

BLAKE3 follows its paper, Ed25519 follows RFC 8032; both are written for reading, not for speed.
Run: python3 golden.py > golden.json
"""

import hashlib
import json
import struct

# BLAKE3

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64
MASK = 0xFFFFFFFF
COLUMNS_DIAGONALS = [
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
]


def rotate(x, n):
    return (x >> n | x << 32 - n) & MASK


def compress(key, block, counter, length, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = key + IV[:4] + [counter & MASK, counter >> 32, length, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(COLUMNS_DIAGONALS):
            for word, (r, s) in zip(m[2 * i : 2 * i + 2], ((16, 12), (8, 7))):
                v[a] = (v[a] + v[b] + word) & MASK
                v[d] = rotate(v[d] ^ v[a], r)
                v[c] = (v[c] + v[d]) & MASK
                v[b] = rotate(v[b] ^ v[c], s)
        m = [m[p] for p in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def words(data):
    return list(struct.unpack("<8I", data))


def raw(value):
    return struct.pack("<8I", *value)


def node(data, first_chunk, key, flags, root):
    """Hash of the subtree over `data`, which starts at `first_chunk`."""
    if len(data) > 1024:
        left = 1024
        while left * 2 < len(data):
            left *= 2
        children = node(data[:left], first_chunk, key, flags, 0) + node(
            data[left:], first_chunk + left // 1024, key, flags, 0
        )
        return raw(compress(key, children, 0, 64, flags | PARENT | root))
    value = key
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    for i, block in enumerate(blocks):
        start = CHUNK_START if i == 0 else 0
        end = CHUNK_END | root if i == len(blocks) - 1 else 0
        value = compress(value, block, first_chunk, len(block), flags | start | end)
    return raw(value)


def blake3(data):
    return node(data, 0, IV, 0, ROOT)


def derive_key(context, data):
    key = node(context.encode(), 0, IV, CONTEXT, ROOT)
    return node(data, 0, words(key), MATERIAL, ROOT)


assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

# Ed25519

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2
    return ((x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P)


def times(n, point):
    result = (0, 1)
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


BASE_Y = 4 * pow(5, -1, P) % P
X2 = (BASE_Y * BASE_Y - 1) * pow(D * BASE_Y * BASE_Y + 1, -1, P) % P
BASE_X = pow(X2, (P + 3) // 8, P)
if BASE_X * BASE_X % P != X2:
    BASE_X = BASE_X * pow(2, (P - 1) // 4, P) % P
if BASE_X & 1:
    BASE_X = P - BASE_X
BASE = (BASE_X, BASE_Y)


def pack(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def sha512(data):
    return int.from_bytes(hashlib.sha512(data).digest(), "little")


def ed25519(seed, message):
    """Public key and signature."""
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & (2**254 - 8) | 2**254
    public = pack(times(scalar, BASE))
    nonce = sha512(digest[32:] + message) % Q
    point = pack(times(nonce, BASE))
    s = (nonce + sha512(point + public + message) * scalar) % Q
    return public, point + s.to_bytes(32, "little")


RFC_8032_TEST_1 = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
assert ed25519(RFC_8032_TEST_1, b"")[0].hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


# The vectors


def counted(data):
    return struct.pack("<I", len(data)) + data


def sample(tag, flag, small, count, balance, weight_bits, owner, note, body, ids, parent):
    """The message of tests/commitment/sample.rs."""
    return b"".join([
        struct.pack("<BB?HIqQI", 1, tag, flag, small, count, balance, count * count, weight_bits),
        owner,
        counted(note.encode()),
        counted(body),
        struct.pack("<I", len(ids)) + b"".join(struct.pack("<I", i) for i in ids),
        b"\0" if parent is None else b"\1" + parent,
    ])


SAMPLES = [
    sample(0, False, 0, 0, 0, 0, bytes(32), "", b"", [], None),
    sample(1, True, 0x1234, 0x89ABCDEF, -1, 0x80000000, bytes(range(32)), "naïve ∑", b"\0\xff", [1, 2**32 - 1], b"\7" * 32),
    sample(2, True, 65535, 3, -(2**63), 0x7FC00001, b"\xff" * 32, "x", bytes(range(200)), list(range(40)), None),
]


def message(encoding, seed):
    digest = derive_key("gainsay v1 test sample", encoding)
    public, signature = ed25519(seed, digest)
    return {
        "encoding": encoding.hex(),
        "digest": digest.hex(),
        "seed": seed.hex(),
        "signer": public.hex(),
        "signature": signature.hex(),
    }


def levels(data):
    """All nodes below the root, level by level, a lone last node standing for its parent too."""
    chunks = [data[i : i + 1024] for i in range(0, len(data), 1024)]
    level = [node(chunk, i, IV, 0, 0) for i, chunk in enumerate(chunks)]
    result = [level]
    while len(level) > 2:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [raw(compress(IV, b"".join(p), 0, 64, PARENT)) if len(p) == 2 else p[0] for p in pairs]
        result.append(level)
    return result


def tree(size):
    data = bytes(i % 251 for i in range(size))
    case = {"bytes": size, "commitment": blake3(data).hex()}
    if size > 1024:
        case["levels"] = [b"".join(level).hex() for level in levels(data)]
    return case


SIZES = [0, 1, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4097, 5121, 7168, 65535, 65536, 65537]

print(json.dumps({
    "messages": [message(encoding, bytes([i + 1]) * 32) for i, encoding in enumerate(SAMPLES)],
    "trees": [tree(size) for size in SIZES],
}, indent=1))
