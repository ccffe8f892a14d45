// Server-sent events, read from bytes that may be cut anywhere.

export interface SentEvent {
  /** What it is called; `message` unless told otherwise. */
  name: string;
  data: string;
}

/** Reads one stream. Give it every chunk in order. */
export class EventReader {
  // keeps the beginning of a character whose rest has not come yet, and drops a mark of byte order
  private readonly decoder = new TextDecoder();
  private line = "";
  private afterReturn = false;
  private name = "";
  private data: string[] = [];

  /** The events that this chunk completes. */
  read(chunk: Uint8Array): SentEvent[] {
    const events: SentEvent[] = [];
    const text = this.decoder.decode(chunk, { stream: true });
    let start = 0;
    for (let at = 0; at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      if (code !== 10 && code !== 13) {
        this.afterReturn = false;
        continue;
      }
      // a line ends with \r, \n or both, and the two may come in different chunks
      if (code === 10 && this.afterReturn) {
        this.afterReturn = false;
      } else {
        const event = this.end(this.line + text.slice(start, at));
        if (event) events.push(event);
        this.line = "";
        this.afterReturn = code === 13;
      }
      start = at + 1;
    }
    this.line += text.slice(start);
    return events;
  }

  private end(line: string): SentEvent | undefined {
    if (line === "") {
      const { name, data } = this;
      this.name = "";
      this.data = [];
      return data.length > 0 ? { name: name || "message", data: data.join("\n") } : undefined;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.data.push(value);
    if (field === "event") this.name = value;
    return undefined;
  }
}

/** All events of a body, until it ends or `signal` is given. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<SentEvent> {
  const reader = body.getReader();
  const parser = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.read(value);
    }
  } finally {
    // whoever leaves early wants no more of it
    reader.cancel().catch(() => undefined);
  }
}
