#!/usr/bin/env python3
"""Makes small language models with random weights by Hugging Face transformers, and what transformers computes with them.

    scripts/reference_models.py OUT [--size tiny|small] [--family NAME ...]

Each family becomes a folder with the files that a checkpoint of it has (config.json, weights in safetensors, tokenizer.json,
tokenizer_config.json, generation_config.json), and two of our own: `reference.json` (prompts with their greedy
continuations) and `reference.safetensors` (logits). Everything is computed by transformers in f32 on the CPU from the
weights as saved. The tiny models are committed under crates/engine/tests/fixtures/families, made by the versions below;
the small ones are made where they are wanted. Installs what it needs into .cache/reference-venv where this Python
does not have it.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".cache" / "reference-venv"
PACKAGES = ["torch==2.15.0", "transformers==5.23.0"]

#: Prompts with greedy continuations, and tokens of each continuation.
PROMPTS, CONTINUED = 100, 64
#: Prompts of which the logits are kept, and at how many of the last positions.
WITH_LOGITS, LAST_POSITIONS = 2, 12
#: Tokens of the long prompt; its logits are kept at the last position alone.
LONG = {"tiny": 8_100, "small": 2_000}

SIZES = {
    "tiny": dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, vocab_size=320),
    "small": dict(hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=8, vocab_size=4096),
}

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'].strip() + eos_token }}"
    "{% elif loop.first %}{{ message['content'] + '\\n' }}"
    "{% else %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}"
)

#: What differs from family to family. `legacy` writes the configuration as transformers 4 did.
FAMILIES = {
    "llama2": dict(
        kind="llama", dtype="float16", tokenizer="pieces", template=INSTRUCT,
        config=dict(num_key_value_heads=4, max_position_embeddings=512, rms_norm_eps=1e-5), legacy=True,
    ),
    "llama3": dict(
        kind="llama", dtype="bfloat16", tokenizer="bytes", template=CHATML, long=True, eos=[301, 302],
        config=dict(num_key_value_heads=2, max_position_embeddings=8192, rope_theta=500000.0, rope_scaling=LLAMA3_SCALING),
        legacy=True,
    ),
    "llama_linear": dict(
        kind="llama", dtype="float32", tokenizer="bytes", template=CHATML, long=True,
        config=dict(
            num_key_value_heads=2, max_position_embeddings=8192, attention_bias=True, mlp_bias=True,
            rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        ),
    ),
    "mistral": dict(
        kind="mistral", dtype="bfloat16", tokenizer="pieces", template=INSTRUCT, sharded=True,
        config=dict(num_key_value_heads=2, max_position_embeddings=1024, sliding_window=256),
    ),
    "qwen2": dict(
        kind="qwen2", dtype="bfloat16", tokenizer="bytes", template=CHATML,
        config=dict(num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, rope_theta=1000000.0),
        legacy=True,
    ),
    "qwen3": dict(
        kind="qwen3", dtype="bfloat16", tokenizer="bytes", template=CHATML, template_file=True,
        config=dict(num_key_value_heads=2, max_position_embeddings=1024, head_dim=12),
    ),
    "smollm2": dict(
        kind="llama", dtype="bfloat16", tokenizer="bytes", template=CHATML,
        config=dict(num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write the families to")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--family", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    arguments = parser.parse_args()
    if not in_environment():
        return in_own_environment()
    for name in arguments.family:
        make(name, FAMILIES[name], arguments.size, arguments.out.resolve() / name)
        print(f"{name}: {sum(f.stat().st_size for f in (arguments.out / name).iterdir()):,} bytes", flush=True)
    return 0


def in_environment() -> bool:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True


def in_own_environment() -> int:
    """Runs this script again with the packages installed."""
    python = VENV / "bin" / "python"
    if not python.exists():
        venv.create(VENV, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return subprocess.run([python, *sys.argv], check=False).returncode


def make(name: str, family: dict, size: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    vocabulary = SIZES[size]["vocab_size"]
    tokenizer = write_tokenizer(folder, family, vocabulary)
    model = random_model(name, family, size, tokenizer)
    model.to(getattr(torch, family["dtype"]))
    shards = {"max_shard_size": "40KB" if size == "tiny" else "8MB"} if family.get("sharded") else {}
    model.save_pretrained(folder, **shards)
    rewrite_configuration(folder, family)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    write_reference(folder, model, vocabulary, LONG[size] if family.get("long") else None)


def random_model(name: str, family: dict, size: str, tokenizer: dict):
    """A model whose activations keep their size from layer to layer, so that every weight has a say in the logits."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(sum(name.encode()))
    settings = SIZES[size] | {"bos_token_id": tokenizer["bos"], "eos_token_id": family.get("eos", tokenizer["eos"])}
    config = AutoConfig.for_model(family["kind"], **(settings | family["config"]))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith("norm.weight") or "layernorm" in key:
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            elif key.endswith("bias"):
                weight.copy_(0.2 * torch.randn_like(weight))
            elif "embed_tokens" in key:
                # Where the head is the same matrix, a token's own vector would otherwise win every time.
                weight.copy_((0.1 if config.tie_word_embeddings else 1) * torch.randn_like(weight))
            else:
                weight.copy_(1.5 * torch.randn_like(weight) / math.sqrt(weight.shape[-1]))
    return model


def write_tokenizer(folder: Path, family: dict, vocabulary: int) -> dict:
    """A tokenizer trained on this file, in one of the two forms that the families use."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    text = Path(__file__).read_text().splitlines() + ["naïve façade", "北京 東京タワー", "здравствуй мир", "😀 👩‍🚀"]
    if family["tokenizer"] == "bytes":
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        bos, eos = "<|endoftext|>", "<|im_end|>"
    else:
        special = ["<unk>", "<s>", "</s>"]
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        strip = decoders.Strip(content=" ", left=1, right=0)
        pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
        tokenizer.decoder = decoders.Sequence(pieces)
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special + fallback, limit_alphabet=40)
        bos, eos = "<s>", "</s>"
    tokenizer.train_from_iterator([line for line in text if line.isascii()] if vocabulary < 1000 else text, trainer)
    if family["tokenizer"] == "pieces":
        # Texts begin with the token that templates write out themselves: whoever applies both has it twice.
        first = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", first)
    data = json.loads(tokenizer.to_str())
    # The fallback bytes are ordinary entries of the vocabulary, as in the models that people use.
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False))
    settings = {"bos_token": bos, "eos_token": eos, "tokenizer_class": "PreTrainedTokenizerFast"}
    if family.get("template_file"):
        (folder / "chat_template.jinja").write_text(family["template"])
    else:
        settings["chat_template"] = family["template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    vocabulary_of = data["model"]["vocab"]
    return {"bos": vocabulary_of[bos], "eos": vocabulary_of[eos]}


def rewrite_configuration(folder: Path, family: dict) -> None:
    """The configuration as transformers 4 wrote it, where the family is to be read from that."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if family.get("legacy"):
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
        config["torch_dtype"] = config.pop("dtype", family["dtype"])
        config.pop("head_dim", None)
        config.pop("layer_types", None)
    path.write_text(json.dumps(config, indent=1) + "\n")


def prompts(count: int, vocabulary: int) -> list[list[int]]:
    """Prompts of 4 to 24 tokens from a small generator that anybody can repeat."""
    state, made = 12345, []
    for _ in range(count):
        tokens = []
        state = (1103515245 * state + 12345) % 2**31
        for _ in range(4 + (state >> 8) % 21):
            state = (1103515245 * state + 12345) % 2**31
            tokens.append((state >> 8) % vocabulary)
        made.append(tokens)
    return made


def long_prompt(length: int, vocabulary: int) -> list[int]:
    return [(index * index * 31 + index * 7919 + 13) % vocabulary for index in range(length)]


def write_reference(folder: Path, model, vocabulary: int, long: int | None) -> None:
    import torch
    from safetensors.torch import save_file

    tensors, continued = {}, []
    with torch.no_grad():
        for index, prompt in enumerate(prompts(PROMPTS, vocabulary)):
            ids = torch.tensor([prompt])
            answer = greedy(model, ids)
            continued.append({"prompt": prompt, "continuation": answer})
            if index < WITH_LOGITS:
                whole = torch.tensor([prompt + answer])
                tensors[f"tokens.{index}"] = whole[0].to(torch.int32)
                tensors[f"logits.{index}"] = model(whole).logits[0, -LAST_POSITIONS:].contiguous()
        if long:
            logits = model(torch.tensor([long_prompt(long, vocabulary)])).logits[0, -1:]
            tensors["logits.long"] = logits.contiguous()
    save_file(tensors, folder / "reference.safetensors")
    about = {"long_prompt_tokens": long, "prompts": continued}
    (folder / "reference.json").write_text(json.dumps(about, separators=(",", ":")) + "\n")


def greedy(model, ids) -> list[int]:
    """The continuation by the highest logit, whether or not it ends a text; the lowest id wins ties."""
    import torch

    answer, past, step = [], None, ids
    for _ in range(CONTINUED):
        out = model(step, past_key_values=past, use_cache=True)
        past = out.past_key_values
        token = int(torch.argmax(out.logits[0, -1]))
        answer.append(token)
        step = torch.tensor([[token]])
    return answer


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
