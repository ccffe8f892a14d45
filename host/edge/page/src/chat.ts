// The view that talks to a model.

import { Answer, body, closing, type Message, NO_SETTINGS, type Settings } from "./conversation";
import { byId, copied, element, written } from "./dom";
import { ask, HostError, models } from "./host";
import { markdown } from "./markdown";
import { events } from "./sse";

const SETTINGS = "llambo-chat";
/** Text is made into elements at most so much of the time. */
const DRAWING_SHARE = 0.25;

export class Chat {
  private readonly messages: Message[] = [];
  private running: AbortController | undefined;
  private readonly list = byId("messages");
  private readonly scroller = byId("conversation");
  private readonly form = byId<HTMLFormElement>("composer");
  private readonly input = byId<HTMLTextAreaElement>("prompt");
  private readonly model = byId<HTMLSelectElement>("model");
  private readonly settings = byId<HTMLFormElement>("settings");
  private readonly send = byId<HTMLButtonElement>("send");
  private readonly stop = byId<HTMLButtonElement>("stop");
  private readonly spoken = byId("spoken");

  constructor(private readonly needsToken: () => void) {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit();
    });
    this.input.addEventListener("keydown", (event) => {
      // while a character is being composed, Enter belongs to that
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.form.requestSubmit();
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.running && !document.querySelector("dialog[open]")) this.running.abort();
    });
    this.stop.addEventListener("click", () => {
      this.running?.abort();
      this.input.focus();
    });
    byId("new-chat").addEventListener("click", () => this.clear());
    this.restore();
    this.settings.addEventListener("input", () => this.keep());
    this.settings.addEventListener("submit", (event) => event.preventDefault());
    byId("reset-settings").addEventListener("click", () => {
      this.fill(NO_SETTINGS);
      this.keep();
    });
    this.model.addEventListener("change", () => this.describe());
  }

  /** Asks what there is. */
  async load(): Promise<void> {
    const notice = byId("chat-notice");
    try {
      const found = await models();
      const before = this.model.value || sessionStorage.getItem("llambo-model");
      const options = found.map(({ id, parent, max_model_len }) => {
        const about = parent ? `guest on ${parent}` : `${max_model_len.toLocaleString("en")} tokens`;
        return element("option", { value: id, "data-about": about, selected: id === before }, id);
      });
      this.model.replaceChildren(...options);
      notice.replaceChildren();
      if (found.length === 0) notice.append(told(new HostError(0, "", "There is no model that you may ask.", "Name one in `models` of the host's configuration.")));
      this.describe();
    } catch (error) {
      notice.replaceChildren(told(error));
      if (error instanceof HostError && error.status === 401) this.needsToken();
    }
  }

  focus(): void {
    this.input.focus();
  }

  private describe(): void {
    sessionStorage.setItem("llambo-model", this.model.value);
    const builtin = this.model.value.startsWith("builtin:") || this.model.value.startsWith("demo");
    const about = this.model.selectedOptions[0]?.dataset.about ?? "";
    byId("model-about").textContent = builtin ? `${about}. It writes English-looking sentences and knows nothing.` : about;
  }

  private async submit(): Promise<void> {
    const text = this.input.value.trim();
    if (this.running || text === "") return;
    if (!this.settings.checkValidity()) {
      byId<HTMLDetailsElement>("settings-box").open = true;
      this.settings.reportValidity();
      return;
    }
    this.input.value = "";
    this.messages.push({ role: "user", content: text });
    this.list.append(element("li", { class: "asked" }, element("h2", { class: "unseen" }, "You"), element("p", {}, text)));
    await this.answer();
  }

  private async answer(): Promise<void> {
    const running = new AbortController();
    this.running = running;
    const hadFocus = document.activeElement === this.send;
    this.send.hidden = true;
    this.stop.hidden = false;
    // what is hidden loses the focus, and with it a keyboard its place
    if (hadFocus) this.stop.focus();
    const entry = element("li", { class: "answer", "aria-busy": "true" });
    const text = element("div", { class: "text" });
    entry.append(element("h2", { class: "unseen" }, this.model.value), text);
    this.list.append(entry);
    this.scroll();
    this.spoken.textContent = "The model answers.";

    const answer = new Answer();
    const drawing = new Drawing(() => {
      const follows = this.atEnd();
      text.replaceChildren(written(markdown(answer.text)));
      if (follows) this.scroll();
    });
    const begin = performance.now();
    let first: number | undefined;
    let node: string | null = null;
    let error: unknown;
    try {
      const response = await ask("/v1/chat/completions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body(this.model.value, this.values(), this.messages)),
        signal: running.signal,
      });
      node = response.headers.get("llambo-node");
      if (response.body) {
        for await (const event of events(response.body)) {
          answer.take(event);
          if (answer.text !== "") first ??= performance.now() - begin;
          drawing.ask();
          if (answer.isDone) break;
        }
      }
      answer.end();
      error = answer.error;
    } catch (thrown) {
      error = thrown;
    }
    drawing.now();
    const stopped = running.signal.aborted;
    this.close(entry, answer, stopped ? undefined : error, stopped, closing(answer, node, performance.now() - begin, first));
  }

  /** The answer is at its end, one way or another. */
  private close(entry: HTMLElement, answer: Answer, error: unknown, stopped: boolean, line: string): void {
    const follows = this.atEnd();
    const hadFocus = document.activeElement === this.stop;
    this.running = undefined;
    this.send.hidden = false;
    this.stop.hidden = true;
    if (hadFocus) this.input.focus();
    entry.removeAttribute("aria-busy");
    // a new chat began meanwhile, which this is no part of
    if (!entry.isConnected) return;
    if (answer.text !== "") {
      this.messages.push({ role: "assistant", content: answer.text });
      const copy = element("button", { type: "button", class: "quiet" }, "Copy");
      copy.addEventListener("click", () => void copied(copy, answer.text));
      const footer = element("footer", {}, element("span", {}, stopped ? `stopped · ${line}` : line), copy);
      entry.append(footer);
    } else if (stopped) {
      entry.append(element("footer", {}, element("span", {}, "stopped before the first token")));
    }
    if (error) {
      entry.append(told(error));
      if (error instanceof HostError && error.status === 401) this.needsToken();
    }
    if (answer.text === "") {
      // it was not answered: it can be sent again as it was
      const asked = this.messages.pop();
      if (asked && this.input.value === "") this.input.value = asked.content;
    }
    // all at once: a screen reader that is told every token says nothing to its end
    this.spoken.textContent = error ? "" : `${stopped ? "Stopped." : "The answer is there."} ${answer.text}`;
    if (follows) this.scroll();
  }

  private clear(): void {
    this.running?.abort();
    this.messages.length = 0;
    this.list.replaceChildren();
    this.spoken.textContent = "New chat.";
    this.input.focus();
  }

  private values(): Settings {
    const data = new FormData(this.settings);
    const values = { ...NO_SETTINGS };
    for (const name of Object.keys(values) as (keyof Settings)[]) values[name] = String(data.get(name) ?? "");
    return values;
  }

  private fill(values: Settings): void {
    for (const [name, value] of Object.entries(values)) {
      const field = this.settings.elements.namedItem(name);
      if (field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement || field instanceof HTMLSelectElement) field.value = value;
    }
  }

  private keep(): void {
    const values = this.values();
    sessionStorage.setItem(SETTINGS, JSON.stringify(values));
    const n = Object.values(values).filter((value) => value.trim() !== "").length;
    byId("settings-count").textContent = n === 0 ? "" : `${n} set`;
  }

  private restore(): void {
    try {
      this.fill({ ...NO_SETTINGS, ...(JSON.parse(sessionStorage.getItem(SETTINGS) ?? "{}") as Partial<Settings>) });
    } catch {
      // written by another version of this page
    }
    this.keep();
  }

  private atEnd(): boolean {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < 48;
  }

  private scroll(): void {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}

/** Draws once a frame at most, and less often where drawing takes long. */
class Drawing {
  private frame = 0;
  private notBefore = 0;

  constructor(private readonly draw: () => void) {}

  ask(): void {
    this.frame ||= requestAnimationFrame((now) => {
      this.frame = 0;
      if (now < this.notBefore) this.ask();
      else this.now();
    });
  }

  now(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const begin = performance.now();
    this.draw();
    const end = performance.now();
    this.notBefore = end + (end - begin) / DRAWING_SHARE;
  }
}

/** An error, for people. */
export function told(error: unknown): HTMLElement {
  const { message, advice, requestId } = error instanceof HostError ? error : new HostError(0, "", String(error), "");
  const box = element("div", { class: "error", role: "alert" }, element("p", {}, message));
  if (advice) box.append(element("p", {}, advice));
  if (requestId) box.append(element("p", { class: "small" }, `request ${requestId}`));
  return box;
}
