"""Trains one built-in model from `corpus.py`'s work folder: a llama-architecture decoder with tied embeddings.

The schedule is counted in steps, not minutes, and seeded. Matrices are trained by Muon, the rest by AdamW, in bfloat16
autocast; the learning rate warms up for 100 steps and then falls as a cosine to 1%. Windows are 512 tokens at first and
1,024 for the last 15% of the steps, so that the whole context is learned at less cost. The larger model sees each
page often enough to learn it by heart, so it trains with dropout on the embedding and on each layer's two branches.
"""

import argparse, json, math, pathlib, time
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SHAPES = {  # about 6 M and 1.3 M parameters
    "demo": dict(width=256, layers=6, heads=4, hidden=704, dropout=0.15),
    "demo-small": dict(width=128, layers=4, heads=4, hidden=352, dropout=0.0),
}
CONTEXT, VOCAB, ROPE_BASE, NORM_EPS = 1024, 4096, 10000.0, 1e-5


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, NORM_EPS)


def rotate(x, cos, sin):
    """Rotary position over interleaved pairs: the order GGML's llama graph expects, so export needs no permutation."""
    n = x.shape[2]
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[:n], sin[:n]
    return torch.stack((even * c - odd * s, even * s + odd * c), -1).flatten(-2).to(x.dtype)


class Layer(nn.Module):
    def __init__(self, width, heads, hidden, dropout, **_):
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.attn_norm, self.ffn_norm = RmsNorm(width), RmsNorm(width)
        self.attn_q, self.attn_k, self.attn_v = (linear(width, width) for _ in range(3))
        self.attn_output = linear(width, width)
        self.ffn_gate, self.ffn_up, self.ffn_down = linear(width, hidden), linear(width, hidden), linear(hidden, width)

    def forward(self, x, cos, sin):
        batch, n, width = x.shape
        split = lambda z: z.view(batch, n, self.heads, -1).transpose(1, 2)
        y = self.attn_norm(x)
        q, k = (rotate(split(f(y)), cos, sin) for f in (self.attn_q, self.attn_k))
        a = F.scaled_dot_product_attention(q, k, split(self.attn_v(y)), is_causal=True)
        x = x + self.drop(self.attn_output(a.transpose(1, 2).reshape(batch, n, width)))
        y = self.ffn_norm(x)
        return x + self.drop(self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y)))


class LanguageModel(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width, layers = shape["width"], shape["layers"]
        self.token_embd, self.drop = nn.Embedding(VOCAB, width), nn.Dropout(shape["dropout"])
        self.blk = nn.ModuleList(Layer(**shape) for _ in range(layers))
        self.output_norm = RmsNorm(width)
        d = width // shape["heads"]
        angle = torch.outer(torch.arange(CONTEXT).float(), ROPE_BASE ** (-torch.arange(0, d, 2).float() / d))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * layers) if residual else 1))

    def forward(self, ids):
        x = self.drop(self.token_embd(ids))
        for layer in self.blk:
            x = layer(x, self.cos, self.sin)
        return F.linear(self.output_norm(x), self.token_embd.weight)


def loss_of(model, windows):
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())


def batches(tokens, rng, length_at, tokens_per_batch):
    """Shuffled windows at a random offset, pass after pass; `length_at(step)` tokens a window."""
    step = 0
    while True:
        length = length_at(step)
        starts = np.arange(int(rng.integers(0, length)), len(tokens) - length - 1, length)
        rng.shuffle(starts)
        rows = tokens_per_batch // length
        for i in range(0, len(starts) - rows + 1, rows):
            yield torch.from_numpy(np.stack([tokens[s:s + length + 1] for s in starts[i:i + rows]]).astype(np.int64))
            step += 1
            if length_at(step) != length:
                break


@torch.no_grad()
def bits_per_byte(model, tokens, n_bytes, autocast, length=CONTEXT):
    """Over consecutive windows of `length` tokens, in the number format given: nats per token -> bits per byte."""
    total, count = 0.0, 0
    model.eval()
    for i in range(0, len(tokens) - 2, length):
        window = torch.from_numpy(tokens[i:i + length + 1].astype(np.int64))[None]
        with autocast():
            total += loss_of(model, window).item() * (window.shape[1] - 1)
        count += window.shape[1] - 1
    model.train()
    return total / count * len(tokens) / n_bytes / math.log(2)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--work", type=pathlib.Path, required=True)
    args.add_argument("--model", choices=SHAPES, required=True)
    args.add_argument("--steps", type=int, required=True)
    args.add_argument("--tokens-per-batch", type=int, default=4096)
    args.add_argument("--rate", type=float, default=2e-3)
    args.add_argument("--seed", type=int, default=7)
    args = args.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    train = np.fromfile(args.work / "train.bin", dtype=np.uint16)
    held = np.fromfile(args.work / "held_out.bin", dtype=np.uint16)
    n_bytes = json.loads((args.work / "corpus.json").read_text())["held_out_bytes"]

    shape = SHAPES[args.model]
    model = LanguageModel(shape)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "token_embd" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "token_embd" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=args.rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    compiled = torch.compile(model)
    length_at = lambda step: 512 if step < 0.85 * args.steps else CONTEXT
    source = batches(train, rng, length_at, args.tokens_per_batch)
    begun, average = time.time(), None
    print(f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters, {args.steps} steps", flush=True)
    for step in range(args.steps):
        rate = args.rate * min(1, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        with autocast():
            loss = loss_of(compiled, next(source))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average = loss.item() if average is None else 0.97 * average + 0.03 * loss.item()
        if step % 50 == 49:
            done = (step + 1) * args.tokens_per_batch
            row = dict(step=step + 1, minutes=round((time.time() - begun) / 60, 1), passes=round(done / len(train), 1),
                       loss=round(average, 3), tokens_per_s=int(done / (time.time() - begun)))
            if step % 500 == 499:
                row["held_out_bits_per_byte"] = round(bits_per_byte(model, held, n_bytes, autocast, length_at(step)), 4)
                save(args, shape, model, step + 1, row["held_out_bits_per_byte"], len(train))
            print(json.dumps(row), flush=True)
    final = bits_per_byte(model, held, n_bytes, lambda: torch.autocast("cpu", enabled=False))
    save(args, shape, model, args.steps, final, len(train))
    print(json.dumps({"held_out_bits_per_byte": round(final, 4)}), flush=True)


def save(args, shape, model, steps, held_out, n_train):
    torch.save({"shape": shape, "weights": model.state_dict(), "steps": steps, "seed": args.seed,
                "passes": steps * args.tokens_per_batch / n_train, "bits_per_byte": held_out}, args.work / f"{args.model}.pt")


if __name__ == "__main__":
    main()
