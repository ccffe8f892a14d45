"""Writes the trained models as GGUF, and what tests compare llambo's engine with.

  OUT/demo.gguf         Q8_0        OUT/demo-small.gguf   F16
  OUT/reference.json    for each model: prompts with the token ids of this tokenizer, and the greedy continuation that
                        PyTorch computes in float32 from the *exported* (rounded) weights
  OUT/figures.json      steps, passes, held-out bits per byte, digests

Chat template: the last user message becomes a section heading and the model writes the section; that is the form of its
training text. Default sampling (`general.sampling.*`) is temperature 0.7 and a repeat penalty of 1.1.
"""

import argparse, hashlib, json, pathlib
import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Quantization, TokenType
from tokenizers import Tokenizer
from train import CONTEXT, NORM_EPS, ROPE_BASE, SHAPES, VOCAB, LanguageModel

FORMATS = {"demo": Quantization.Q8_0, "demo-small": Quantization.F16}
TITLES = {"demo": "llambo demo", "demo-small": "llambo demo small"}
CHAT = ("{%- for message in messages -%}"
        "{%- if message['role'] == 'assistant' -%}{{ message['content'] + '<|endoftext|>' }}"
        "{%- elif message['role'] == 'system' -%}{{ message['content'] + '\n\n' }}"
        "{%- else -%}{{ '# ' + message['content'] + '\n\n' }}{%- endif -%}"
        "{%- endfor -%}")
PROMPTS = ["# What Is Ownership?\n\n", "The `Vec` type is", "# Error handling\n\nIn Rust,", "When you run `cargo build`,",
           "A trait object", "naïve café 日本語 🦀 x\u0301", "two  spaces\n\n\nand lines", "fn main() { println!(\"{}\", 1 << 3); }"]
N_GREEDY = 32


def rounded(name, tensor, quantization):
    """The tensor as it is stored, and what storing made of its values."""
    x = tensor.float().numpy()
    if x.ndim == 1:
        return x.astype(np.float32), None, x
    if quantization == Quantization.F16:
        half = x.astype(np.float16)
        return half, None, half.astype(np.float32)
    packed = gguf.quants.quantize(x, quantization)
    return packed, quantization, gguf.quants.dequantize(packed, quantization)


def write(path, name, checkpoint, tokenizer):
    shape, weights = checkpoint["shape"], checkpoint["weights"]
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(TITLES[name])
    w.add_license("Apache-2.0 OR MIT")
    w.add_description("Tiny stand-in trained from scratch on the Rust documentation; shows that the path works, knows nothing")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(shape["width"])
    w.add_block_count(shape["layers"])
    w.add_feed_forward_length(shape["hidden"])
    w.add_head_count(shape["heads"])
    w.add_head_count_kv(shape["heads"])
    w.add_rope_dimension_count(shape["width"] // shape["heads"])
    w.add_rope_freq_base(ROPE_BASE)
    w.add_layer_norm_rms_eps(NORM_EPS)
    w.add_vocab_size(VOCAB)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if FORMATS[name] == Quantization.Q8_0 else gguf.LlamaFileType.MOSTLY_F16)
    w.add_float32("general.sampling.temp", 0.7)
    w.add_float32("general.sampling.penalty_repeat", 1.1)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokenizer["tokens"])
    w.add_token_types([TokenType.CONTROL] + [TokenType.NORMAL] * (VOCAB - 1))
    w.add_token_merges(tokenizer["merges"])
    w.add_bos_token_id(0)
    w.add_eos_token_id(0)
    w.add_eot_token_id(0)
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(False)
    w.add_chat_template(CHAT)
    kept = {}
    for key, tensor in weights.items():
        data, raw, values = rounded(key, tensor, FORMATS[name])
        w.add_tensor(key, data, raw_dtype=raw)
        kept[key] = torch.from_numpy(np.ascontiguousarray(values))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    model = LanguageModel(shape)
    model.load_state_dict(kept)
    return model.eval()


@torch.no_grad()
def greedy(model, ids):
    ids, out = list(ids), []
    for _ in range(N_GREEDY):
        out.append(model(torch.tensor([ids]))[0, -1].argmax().item())
        ids.append(out[-1])
    return out


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--work", type=pathlib.Path, required=True)
    args.add_argument("--out", type=pathlib.Path, required=True)
    args = args.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    raw = json.loads((args.work / "tokenizer.json").read_text())["model"]
    tokens = [t for t, _ in sorted(raw["vocab"].items(), key=lambda item: item[1])]
    merges = [m if isinstance(m, str) else " ".join(m) for m in raw["merges"]]
    reference, figures = {}, {}
    for name in SHAPES:
        checkpoint = torch.load(args.work / f"{name}.pt")
        path = args.out / f"{name}.gguf"
        model = write(path, name, checkpoint, {"tokens": tokens, "merges": merges})
        rows = []
        for prompt in PROMPTS:
            ids = [0, *tokenizer.encode(prompt).ids]
            rows.append({"prompt": prompt, "tokens": ids, "greedy": greedy(model, ids)})
        reference[f"builtin:{name}"] = rows
        figures[name] = {
            "parameters": sum(p.numel() for p in model.parameters()), "bytes": path.stat().st_size,
            "steps": checkpoint["steps"], "passes": round(checkpoint["passes"], 2), "seed": checkpoint["seed"],
            "held_out_bits_per_byte": round(checkpoint["bits_per_byte"], 4),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    (args.out / "reference.json").write_text(json.dumps(reference, ensure_ascii=True, indent=1) + "\n")
    (args.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
