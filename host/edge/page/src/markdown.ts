// Markdown as a tree of a few harmless elements. A model's text is nobody's to trust: it is never turned into HTML, only into
// elements that are named here, and what it says as HTML is shown as the text that it is.

import { Lexer, type Token, type Tokens } from "marked";

/** An element with its children; text is text. */
export interface Node {
  tag: "p" | "h3" | "h4" | "h5" | "ul" | "ol" | "li" | "blockquote" | "pre" | "code" | "em" | "strong" | "del" | "a" | "br" | "hr" | "table" | "thead" | "tbody" | "tr" | "th" | "td" | "span";
  children: (Node | string)[];
  /** Of a link. */
  href?: string;
  /** Of a list that does not begin with 1. */
  start?: number;
  /** Of code: its language. */
  language?: string;
  /** Of a cell. */
  align?: "left" | "right" | "center";
  /** Of an entry of a list of things to do. */
  checked?: boolean;
}

type Children = (Node | string)[];

/** Deeper than this nobody reads, and no stack has to hold. */
const MAX_DEPTH = 24;

/** The tree of a text. One that cannot be read as Markdown is one paragraph. */
export function markdown(text: string): Children {
  try {
    return blocks(Lexer.lex(text, { gfm: true, breaks: false }), 0);
  } catch {
    return [{ tag: "p", children: [text] }];
  }
}

/** The address of a link, if it is one that may be followed. */
export function harmless(href: string): string | undefined {
  try {
    const url = new URL(href);
    return ["https:", "http:", "mailto:"].includes(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}

function blocks(tokens: Token[], depth: number): Children {
  if (depth > MAX_DEPTH) return tokens.map((token) => token.raw);
  return tokens.flatMap((token) => block(token, depth));
}

function block(token: Token, depth: number): Children {
  switch (token.type) {
    case "space":
    case "def":
      return [];
    case "heading": {
      // the page has its own h1 and h2
      const tag = token.depth <= 1 ? "h3" : token.depth === 2 ? "h4" : "h5";
      return [{ tag, children: inlines(token.tokens ?? [], depth) }];
    }
    case "paragraph":
      return [{ tag: "p", children: inlines(token.tokens ?? [], depth) }];
    case "code": {
      const code: Node = { tag: "code", children: [token.text] };
      const language = /^[\w+#.-]{1,24}/.exec(token.lang ?? "")?.[0];
      if (language) code.language = language;
      return [{ tag: "pre", children: [code] }];
    }
    case "blockquote":
      return [{ tag: "blockquote", children: blocks(token.tokens ?? [], depth + 1) }];
    case "hr":
      return [{ tag: "hr", children: [] }];
    case "list":
      return [list(token as Tokens.List, depth)];
    case "table":
      return [table(token as Tokens.Table, depth)];
    case "text":
      return token.tokens ? inlines(token.tokens, depth) : [unescaped(token.text)];
    default:
      return [{ tag: "p", children: [token.raw] }];
  }
}

function list(token: Tokens.List, depth: number): Node {
  const children = token.items.map((item): Node => {
    // what is not loose has its text right in it
    const li: Node = { tag: "li", children: blocks(item.tokens, depth + 1) };
    if (item.task) li.checked = item.checked === true;
    return li;
  });
  const node: Node = { tag: token.ordered ? "ol" : "ul", children };
  if (token.ordered && typeof token.start === "number" && token.start !== 1) node.start = token.start;
  return node;
}

function table(token: Tokens.Table, depth: number): Node {
  const row = (cells: Tokens.TableCell[], tag: "th" | "td"): Node => ({
    tag: "tr",
    children: cells.map((cell): Node => {
      const node: Node = { tag, children: inlines(cell.tokens, depth) };
      if (cell.align) node.align = cell.align;
      return node;
    }),
  });
  return {
    tag: "table",
    children: [
      { tag: "thead", children: [row(token.header, "th")] },
      { tag: "tbody", children: token.rows.map((cells) => row(cells, "td")) },
    ],
  };
}

function inlines(tokens: Token[], depth: number): Children {
  if (depth > MAX_DEPTH) return tokens.map((token) => token.raw);
  return tokens.flatMap((token) => inline(token, depth + 1));
}

function inline(token: Token, depth: number): Children {
  const inner = (): Children => inlines(("tokens" in token && token.tokens) || [], depth);
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return [{ tag: token.type, children: inner() }];
    case "codespan":
      return [{ tag: "code", children: [token.text] }];
    case "br":
      return [{ tag: "br", children: [] }];
    case "escape":
      return [token.text];
    case "text":
      return "tokens" in token && token.tokens ? inlines(token.tokens, depth) : [unescaped(token.text)];
    case "link": {
      const href = harmless(token.href);
      return [href === undefined ? { tag: "span", children: [token.raw] } : { tag: "a", href, children: inner() }];
    }
    case "image": {
      // pictures are not fetched: their address would tell somebody that, and what, is read here
      const href = harmless(token.href);
      const text = token.text || token.href;
      return [href === undefined ? { tag: "span", children: [token.raw] } : { tag: "a", href, children: [text] }];
    }
    default:
      return [token.raw];
  }
}

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", nbsp: "\u00a0" };

/** What people write as entities, as text. It stays text: nothing of it is read again. */
function unescaped(text: string): string {
  return text.replace(/&(amp|lt|gt|quot|#39|nbsp);/g, (_, name: string) => ENTITIES[name] ?? "");
}
