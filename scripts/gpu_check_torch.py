"""What PyTorch takes for the forward passes that gpu-check measures, in bf16, each as a line of JSON on stdout.

The shapes are those of crates/engine/examples/gpu_check/shape.rs, the weights random; attention is PyTorch's fused one.
Decode steps read keys and values that are already in place, as candle's do in that example.
"""

import json
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(json.dumps(dict(absent=str(error))))
    sys.exit()

SHAPES = {
    "llama 1B": dict(blocks=16, heads=32, kv_heads=8, head_dim=64, between=8192, vocabulary=128256),
    "llama 8B": dict(blocks=32, heads=32, kv_heads=8, head_dim=128, between=14336, vocabulary=128256),
}
CONTEXT = 256


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * shape[-1] ** -0.5


def rms_norm(x):
    return F.rms_norm(x, (x.shape[-1],), eps=1e-5)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Llama:
    def __init__(self, blocks, heads, kv_heads, head_dim, between, vocabulary):
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        hidden, kv = heads * head_dim, kv_heads * head_dim
        self.table, self.head = random(vocabulary, hidden), random(vocabulary, hidden)
        shapes = [(hidden + 2 * kv, hidden), (hidden, hidden), (2 * between, hidden), (hidden, between)]
        self.blocks = [[random(*shape) for shape in shapes] for _ in range(blocks)]
        self.angles = torch.rand(8192, head_dim // 2, device="cuda", dtype=torch.bfloat16)

    @torch.inference_mode()
    def forward(self, ids, cache=None):
        batch, tokens = ids.shape
        x = self.table[ids]
        cos = sin = self.angles[:tokens]
        for qkv, out, up, down in self.blocks:
            parts = F.linear(rms_norm(x), qkv).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
            q, k, v = parts.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            if cache is not None:
                k, v = cache
            y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None, enable_gqa=True)
            x = x + F.linear(y.transpose(1, 2).reshape(batch, tokens, -1), out)
            gate, value = F.linear(rms_norm(x), up).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * value, down)
        return F.linear(rms_norm(x[:, -1]), self.head)


def measure(shape, what, size, work, runs):
    times = []
    for _ in range(runs + 3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    seconds = statistics.median(times[3:])
    row = dict(shape=shape, what=what, size=size, seconds=seconds, times=runs, version=torch.__version__)
    print(json.dumps(row), flush=True)


def main():
    if not torch.cuda.is_available():
        print(json.dumps(dict(absent="PyTorch finds no device that it can use")))
        return
    for name, shape in SHAPES.items():
        model = Llama(**shape)
        for tokens in (512, 4096):
            ids = torch.randint(0, 1000, (1, tokens), device="cuda")
            measure(name, "prefill", tokens, lambda: model.forward(ids), 7)
        for batch in (1, 8, 32):
            ids = torch.randint(0, 1000, (batch, 1), device="cuda")
            cache = [random(batch, shape["kv_heads"], CONTEXT, shape["head_dim"]) for _ in range(2)]
            measure(name, "decode", batch, lambda: model.forward(ids, cache), 50)
        del model
        torch.cuda.empty_cache()
    for tokens in (512, 4096, 8192):
        q, k, v = (random(1, heads, tokens, 128) for heads in (32, 8, 8))
        attend = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        measure("llama 8B", "attention", tokens, attend, 20)


if __name__ == "__main__":
    main()
