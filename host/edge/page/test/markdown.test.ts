import assert from "node:assert/strict";
import { test } from "node:test";
import { harmless, markdown, type Node } from "../src/markdown";

/** A tree as text, for reading. */
function shown(nodes: (Node | string)[]): string {
  return nodes
    .map((node) => (typeof node === "string" ? node : `<${node.tag}${node.href ? ` ${node.href}` : ""}>${shown(node.children)}</${node.tag}>`))
    .join("");
}

function tags(nodes: (Node | string)[]): string[] {
  return nodes.flatMap((node) => (typeof node === "string" ? [] : [node.tag, ...tags(node.children)]));
}

const HARMLESS = new Set("p h3 h4 h5 ul ol li blockquote pre code em strong del a br hr table thead tbody tr th td span".split(" "));

test("what people write becomes what they mean", () => {
  assert.equal(shown(markdown("# A *b*\n\nc `d<e>` **f** ~~g~~")), "<h3>A <em>b</em></h3><p>c <code>d<e></code> <strong>f</strong> <del>g</del></p>");
  assert.equal(shown(markdown("- a\n- b\n\n3. c")), "<ul><li>a</li><li>b</li></ul><ol><li>c</li></ol>");
  assert.equal(shown(markdown("> a\n\n---\n")), "<blockquote><p>a</p></blockquote><hr></hr>");
  assert.equal(shown(markdown("|a|b|\n|-|-:|\n|1|2|")), "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>");
  const [pre] = markdown("```rust ignore\nfn f() {}\n```") as Node[];
  assert.deepEqual(pre?.children, [{ tag: "code", children: ["fn f() {}"], language: "rust" }]);
  assert.equal(shown(markdown("a &amp; b &lt;c&gt;")), "<p>a & b <c></p>");
});

test("what a model says as HTML is text", () => {
  for (const text of ["<script>alert(1)</script>", "a <img src=x onerror=alert(1)> b", "<iframe src=//x>", "<b onclick=x>y</b>", "<!-- c -->", "</p><style>*{}</style>"]) {
    const tree = markdown(text);
    assert.ok(tags(tree).every((tag) => tag === "p"), `${text}: ${tags(tree)}`);
    const plain = shown(tree).replace(/^<p>|<\/p>$/g, "");
    assert.ok(plain.includes("<"), plain);
  }
});

test("a link leads to the web or to a letter, and nowhere else", () => {
  assert.equal(harmless("https://a.b/c?d"), "https://a.b/c?d");
  assert.equal(harmless("mailto:a@b.c"), "mailto:a@b.c");
  for (const href of ["javascript:alert(1)", "JaVaScRiPt:alert(1)", " java\nscript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "/local", "//elsewhere", "#x", "", "blob:https://a/b"]) {
    assert.equal(harmless(href), undefined, href);
  }
  assert.equal(shown(markdown("[a](javascript:alert(1)) ![b](https://c.d/e.png)")), "<p><span>[a](javascript:alert(1))</span> <a https://c.d/e.png>b</a></p>");
});

test("whatever comes, only harmless elements are made, and soon", () => {
  const pieces = ["<", ">", "[", "](", ")", "`", "```\n", "*", "_", "\n", "\n\n", "> ", "- ", "1. ", "|", "|-|\n", "# ", "<a href=x>", "javascript:", "![", "\\", "&lt;", "\u0000", "🦙", "x".repeat(40), "    "];
  let seed = 7;
  const random = (n: number): number => (seed = (seed * 48271) % 2147483647) % n;
  for (let round = 0; round < 3000; round += 1) {
    const text = Array.from({ length: random(30) }, () => pieces[random(pieces.length)]).join("");
    for (const tag of tags(markdown(text))) assert.ok(HARMLESS.has(tag), `${tag} in ${JSON.stringify(text)}`);
  }
});

test("what is nested without end does not end the page", () => {
  for (const text of [">".repeat(20_000), "- ".repeat(5000), "*".repeat(20_000), "[".repeat(5000), `${"> ".repeat(300)}x`, "_a".repeat(3000)]) {
    const tree = markdown(text);
    const depth = (nodes: (Node | string)[]): number => Math.max(0, ...nodes.map((node) => (typeof node === "string" ? 0 : 1 + depth(node.children))));
    assert.ok(depth(tree) < 120, String(depth(tree)));
  }
});
