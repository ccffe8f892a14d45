"""Corpus and tokenizer of the built-in models.

Reads the prose of the Rust toolchain's own HTML documentation (`rustc --print sysroot`/share/doc/rust/html), drops code,
tables and navigation, and writes into the work folder:

  train.bin / held_out.bin   token ids, uint16, sections separated by token 0 (`<|endoftext|>`)
  tokenizer.json             byte-level BPE, 4,096 entries, GPT-2 pre-tokenization
  corpus.json                per source: documents, bytes; held-out bytes; a digest of all text

Sources are those whose text is MIT OR Apache-2.0. The Embedded Rust Book is left out: its prose is CC-BY-SA.
Every 25th document (by sorted path) is held out, whole.
"""

import argparse, hashlib, json, pathlib, re, subprocess
import numpy as np
from lxml import html
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
VOCAB = 4096
# source -> how often its training text is seen per pass: prose that teaches counts for more than reference entries
BOOKS = {
    "book": 3, "rust-by-example": 3, "nomicon": 3, "edition-guide": 3, "cargo": 2, "reference": 2, "rustc": 2,
    "rustdoc": 2, "style-guide": 2, "clippy": 2, "error_codes": 2, "unstable-book": 1,
}
API = ("std", "alloc", "core", "proc_macro", "test")
SKIP = re.compile(r"/(ja|zh|es|ko|zh-cn)/|/(print|toc|SUMMARY|title-page|appendix-06-translation|all)\.html$|/(arch|core_arch|simd)/|simd")
PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "—": " - ", "–": "-", "…": "...", "\u00a0": " ",
                       "\u200b": "", "×": "x", "→": "->", "⇒": "=>", "§": ""})
NO_TEXT = {"script", "style", "button", "sup"}
NO_BLOCK = {"nav", "pre", "table", "script", "style", "button", "svg"}


def text_of(element):
    """The text of one paragraph, with `code` kept in backticks and white space folded."""
    out = []

    def walk(node):
        if not isinstance(node.tag, str) or node.tag in NO_TEXT:
            return
        classes = (node.get("class") or "").split()
        if "anchor" in classes or any("tooltip" in c or "filename" in c for c in classes):
            return
        tick = "`" if node.tag == "code" else ""
        out.append(tick + (node.text or ""))
        for child in node:
            walk(child)
            out.append(child.tail or "")
        out.append(tick)

    walk(element)
    return re.sub(r"\s+", " ", "".join(out).translate(PLAIN)).strip()


def blocks_of(root, seen):
    """Headings (`# ...`) and paragraphs below `root`, in order; text that was seen before is dropped."""
    found = []

    def fresh(text):
        if len(text) < 2 or sum(c.isascii() for c in text) < 0.97 * len(text):
            return False
        digest = hashlib.sha256(text.lower().encode()).digest()
        repeated = digest in seen and len(text) > 40
        seen.add(digest)
        return not repeated

    def walk(node):
        if not isinstance(node.tag, str) or node.tag in NO_BLOCK:
            return
        if re.fullmatch("h[1-6]", node.tag):
            if heading := text_of(node):
                found.append((True, "# " + heading))
        elif node.tag == "p":
            if fresh(text := text_of(node)):
                found.append((False, text))
        elif node.tag == "li" and not any(isinstance(c.tag, str) and c.tag in ("p", "ul", "ol", "div") for c in node):
            if fresh(text := text_of(node)):
                found.append((False, "- " + text))
        else:
            for child in node:
                walk(child)

    walk(root)
    # a heading stays only where prose follows it
    return [t for i, (h, t) in enumerate(found) if not h or (i + 1 < len(found) and not found[i + 1][0])]


def sections_of(source, blocks):
    """Splits a document at its headings: one section is one training text that ends with `END`."""
    if source == "std":  # reference entries: whole sentences only, no boilerplate headings
        blocks = [b for b in blocks if not b.startswith("# ") and len(b) >= 90]
    blocks = [b for b in blocks if b != "Erroneous code example:"]
    sections = [[]]
    for block in blocks:
        if block.startswith("# ") and sections[-1]:
            sections.append([])
        sections[-1].append(block)
    return [s for s in ("\n\n".join(s) for s in sections) if len(s) >= 100]


def documents(root):
    seen = set()
    for source in [*BOOKS, "std"]:
        folders = API if source == "std" else (source,)
        for path in sorted(p for f in folders for p in (root / f).rglob("*.html")):
            name = "/" + path.relative_to(root).as_posix()
            raw = path.read_bytes()
            if SKIP.search(name) or len(raw) < 400 or b'http-equiv="refresh"' in raw[:2000].lower():
                continue
            tree = html.fromstring(raw)
            if source == "std":
                roots = tree.xpath('//div[contains(concat(" ", @class, " "), " docblock ")]')
            else:
                roots = tree.xpath("//main")[:1]
            blocks = [b for r in roots for b in blocks_of(r, seen)]
            if sections := sections_of(source, blocks):
                yield source, sections


def encode(tokenizer, sections):
    ids = []
    for encoding in tokenizer.encode_batch(sections):
        ids += [0, *encoding.ids]
    return ids


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--work", type=pathlib.Path, required=True)
    work = args.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
    docs = list(documents(pathlib.Path(sysroot) / "share/doc/rust/html"))
    if not docs:
        raise SystemExit(f"no documentation under {sysroot}/share/doc: run `rustup component add rust-docs`")
    held = [d for i, d in enumerate(docs) if i % 25 == 7]
    train = [d for i, d in enumerate(docs) if i % 25 != 7]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        (s for _, sections in train for s in sections),
        trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[END], show_progress=False,
                            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.save(str(work / "tokenizer.json"))

    # each document stands in the stream as often as its source's weight; train.py shuffles windows, not documents
    stream = []
    for turn in range(max(BOOKS.values())):
        for source, sections in train:
            if turn < BOOKS.get(source, 1):
                stream += encode(tokenizer, sections)
    held_ids = [i for _, sections in held for i in encode(tokenizer, sections)]
    np.array(stream + [0], dtype=np.uint16).tofile(work / "train.bin")
    np.array(held_ids + [0], dtype=np.uint16).tofile(work / "held_out.bin")

    sources = {}
    for source, sections in docs:
        row = sources.setdefault(source, {"documents": 0, "bytes": 0})
        row["documents"] += 1
        row["bytes"] += sum(len(s.encode()) for s in sections)
    report = {
        "sources": sources,
        "train_tokens": len(stream), "held_out_tokens": len(held_ids),
        "held_out_bytes": sum(len(s.encode()) for _, sections in held for s in sections),
        "sha256": hashlib.sha256("\0".join(s for _, ss in docs for s in ss).encode()).hexdigest(),
    }
    (work / "corpus.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
