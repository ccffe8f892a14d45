// Elements, made by name. Text becomes text, never HTML.

import type { Node as Written } from "./markdown";

type Attributes = Record<string, string | number | boolean | undefined>;

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** The element of the page with this id, which is there. */
export function byId<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

/** What Markdown says, as elements. */
export function written(nodes: (Written | string)[]): DocumentFragment {
  const fragment = document.createDocumentFragment();
  for (const node of nodes) fragment.append(typeof node === "string" ? node : one(node));
  return fragment;
}

function one(node: Written): HTMLElement {
  const made = document.createElement(node.tag);
  made.append(written(node.children));
  if (made instanceof HTMLAnchorElement && node.href !== undefined) {
    made.href = node.href;
    made.target = "_blank";
    // the other side learns nothing of this page and gets no hold of it
    made.rel = "noopener noreferrer nofollow";
  }
  if (made instanceof HTMLOListElement && node.start !== undefined) made.start = node.start;
  if (node.align) made.classList.add(`to-${node.align}`);
  if (node.language) made.dataset.language = node.language;
  if (node.checked !== undefined) made.prepend(node.checked ? "☑ " : "☐ ");
  if (made instanceof HTMLPreElement) {
    // long lines are scrolled to, by the keyboard too
    made.tabIndex = 0;
    const copy = element("button", { type: "button", class: "copy", "aria-label": "Copy code" }, "Copy");
    copy.addEventListener("click", () => void copied(copy, made.querySelector("code")?.textContent ?? ""));
    const box = element("div", { class: "code" }, made, copy);
    return box;
  }
  if (made instanceof HTMLTableElement) return element("div", { class: "wide", tabindex: 0 }, made);
  return made;
}

/** Copies a text, and says on the button whether that was possible. */
export async function copied(button: HTMLButtonElement, text: string): Promise<void> {
  const label = button.textContent;
  let is = false;
  try {
    await navigator.clipboard.writeText(text);
    is = true;
  } catch {
    // there is no clipboard where the page came unencrypted from another machine
    const area = element("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    is = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = is ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = label), 1500);
}
