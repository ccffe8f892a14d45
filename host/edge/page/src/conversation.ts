// What is asked of `/v1/chat/completions`, and what its stream says, without any page around it.

import type { SentEvent } from "./sse";
import { type HostError, told } from "./host";

export interface Message {
  role: "user" | "assistant";
  content: string;
}

/** As the form has them: empty is the model's own. */
export interface Settings {
  system: string;
  temperature: string;
  top_p: string;
  max_tokens: string;
  seed: string;
  tier: string;
  service_tier: string;
}

export const NO_SETTINGS: Settings = { system: "", temperature: "", top_p: "", max_tokens: "", seed: "", tier: "", service_tier: "" };

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number };
}

interface Chunk {
  choices: { delta: { content?: string | null }; finish_reason: string | null }[];
  usage?: Usage | null;
}

/** The body of a request. What is left empty is not sent. */
export function body(model: string, settings: Settings, messages: Message[]): Record<string, unknown> {
  const number = (name: keyof Settings): Record<string, number> => {
    const text = settings[name].trim();
    const value = Number(text);
    return text === "" || !Number.isFinite(value) ? {} : { [name]: value };
  };
  const system = settings.system.trim();
  return {
    model,
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
    stream: true,
    stream_options: { include_usage: true },
    ...number("temperature"),
    ...number("top_p"),
    ...number("max_tokens"),
    ...number("seed"),
    ...number("tier"),
    ...(settings.service_tier ? { service_tier: settings.service_tier } : {}),
  };
}

/** An answer as it grows. */
export class Answer {
  text = "";
  usage: Usage | undefined;
  finish: string | undefined;
  error: HostError | undefined;
  isDone = false;

  take(event: SentEvent): void {
    if (this.isDone) return;
    if (event.data === "[DONE]") {
      this.isDone = true;
      return;
    }
    let chunk: Chunk & { error?: unknown };
    try {
      chunk = JSON.parse(event.data) as Chunk & { error?: unknown };
    } catch {
      this.fail("The host sent something that is no JSON.");
      return;
    }
    if (chunk.error) {
      this.error = told(200, event.data);
      this.isDone = true;
      return;
    }
    if (chunk.usage) this.usage = chunk.usage;
    for (const choice of chunk.choices ?? []) {
      this.text += choice.delta?.content ?? "";
      this.finish = choice.finish_reason ?? this.finish;
    }
  }

  /** The stream ended: without its last word it broke off. */
  end(): void {
    if (!this.isDone) this.fail("The answer broke off.");
  }

  private fail(message: string): void {
    this.error = told(0, JSON.stringify({ error: { message } }));
    this.isDone = true;
  }
}

/** The line below an answer. */
export function closing(answer: Answer, node: string | null, ms: number, firstMs: number | undefined): string {
  const parts: string[] = [];
  if (node) parts.push(node);
  const n = answer.usage?.completion_tokens;
  if (n !== undefined) parts.push(`${n} token${n === 1 ? "" : "s"}`);
  parts.push(ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
  if (n !== undefined && n > 1 && firstMs !== undefined && ms > firstMs) {
    parts.push(`${Math.round(((n - 1) * 1000) / (ms - firstMs))} tokens/s`);
  }
  if (firstMs !== undefined) parts.push(`first after ${Math.round(firstMs)} ms`);
  const cached = answer.usage?.prompt_tokens_details?.cached_tokens;
  if (cached) parts.push(`${cached} of ${answer.usage?.prompt_tokens} prompt tokens were computed before`);
  if (answer.finish === "length") parts.push("ended at its limit");
  return parts.join(" · ");
}
