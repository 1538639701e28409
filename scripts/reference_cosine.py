#!/usr/bin/env python3
"""Compares the engine's embeddings with those of Hugging Face transformers (PyTorch, CPU, f32).

    scripts/reference_cosine.py [--model DIR]

A hundred generated texts, from one word to 512 tokens, are tokenized by the model's own tokenizer (truncation at
512, no padding), embedded by both, and compared. Fails where a cosine is below 0.99999. Installs torch and
transformers into .cache/reference-venv where this Python does not have them.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".cache" / "reference-venv"
PACKAGES = ["torch==2.15.0", "transformers==5.23.0"]
MAX_TOKENS = 512
TEXTS = 100
LEAST_COSINE = 0.99999

FRAGMENTS = [
    "the", "river", "crossed", "under", "a", "bridge", "of", "iron", "while", "merchants", "argued", "about", "prices",
    "committee", "photosynthesis", "eigenvalue", "unsatisfactorily", "blockchain", "Reykjavik", "O'Connor", "can't",
    "3.14159", "-273.15", "1,000,000", "2024-02-29", "e-mail@example.org", "https://example.org/a?b=c#d", "C++", "rust::Vec<u8>",
    "if (x != NULL) { return x->next; }", "SELECT * FROM t WHERE id = 7;", "München", "naïve", "façade", "Ωmega", "北京", "東京タワー",
    "здравствуй", "مرحبا", "😀", "👩‍🚀", "…", "—", "“quoted”", "(aside)", "!!!", "?!", ";", ":", "\t", "\n",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GAINSAY_MODEL_DIR", ROOT / ".cache/models/all-MiniLM-L6-v2")
    parser.add_argument("--model", type=Path, default=Path(default), help="folder of all-MiniLM-L6-v2")
    model = parser.parse_args().model.resolve()
    if not (model / "model.safetensors").is_file():
        print(f"no model in {model}: fetch it with `cargo xtask fetch-model`, or say --model", file=sys.stderr)
        return 2
    use_packages()
    ids = tokenize(model, [text(i) for i in range(TEXTS)])
    expected = reference(model, ids)
    found = engine(model, ids)
    cosines = [cosine(a, b) for a, b in zip(expected, found, strict=True)]
    largest = max(abs(a - b) for x, y in zip(expected, found) for a, b in zip(x, y))
    lengths = sorted(len(sequence) for sequence in ids)
    print(
        f"{TEXTS} texts of {lengths[0]} to {lengths[-1]} tokens ({lengths.count(MAX_TOKENS)} of {MAX_TOKENS}): "
        f"least cosine {min(cosines):.12f}, largest difference of an element {largest:.2e}"
    )
    return 0 if min(cosines) >= LEAST_COSINE else 1


def use_packages() -> None:
    """Goes on where torch and transformers can be imported, else in a virtual environment that has them."""
    try:
        import torch, transformers  # noqa: F401, E401
    except ImportError:
        python = VENV / "bin" / "python"
        if Path(sys.prefix) == VENV:
            raise
        if not python.exists():
            venv.create(VENV, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        os.execv(python, [str(python), *sys.argv])


def text(seed: int) -> str:
    """The same text for the same seed: a few short ones, most of middling length, some over 512 tokens."""
    state = seed * 2654435761 + 1
    words = [1, 2, 5, 12, 25, 60, 120, 250, 420, 600][seed % 10] + seed // 10
    chosen = []
    for _ in range(words):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        chosen.append(FRAGMENTS[(state >> 33) % len(FRAGMENTS)])
    return " ".join(chosen)


def tokenize(model: Path, texts: list[str]) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def reference(model: Path, ids: list[list[int]]) -> list[list[float]]:
    """Mean of the last hidden states, normalized: what sentence-transformers computes for this model."""
    import torch
    from transformers import AutoModel

    bert = AutoModel.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
    vectors = []
    with torch.no_grad():
        for sequence in ids:
            hidden = bert(input_ids=torch.tensor([sequence])).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).tolist())
    return vectors


def engine(model: Path, ids: list[list[int]]) -> list[list[float]]:
    command = ["cargo", "run", "--quiet", "--release", "--package", "gainsay-engine", "--example", "embed"]
    environment = os.environ | {"GAINSAY_MODEL_DIR": str(model)}
    answer = subprocess.run(
        command, cwd=ROOT, env=environment, input=json.dumps(ids), text=True, stdout=subprocess.PIPE, check=True
    )
    return json.loads(answer.stdout)


def cosine(a: list[float], b: list[float]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


if __name__ == "__main__":
    sys.exit(main())
