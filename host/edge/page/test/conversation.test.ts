import assert from "node:assert/strict";
import { test } from "node:test";
import { Answer, body, closing, NO_SETTINGS } from "../src/conversation";
import { bytes, duration, type Moment, rates } from "../src/report";
import { line, roundedUp, Series, short } from "../src/series";

const says = (data: unknown) => ({ name: "message", data: typeof data === "string" ? data : JSON.stringify(data) });
const chunk = (content: string | null, finish_reason: string | null = null) => says({ choices: [{ delta: { content }, finish_reason }] });

test("what is left empty is not asked for", () => {
  assert.deepEqual(body("m", NO_SETTINGS, [{ role: "user", content: "x" }]), {
    model: "m",
    messages: [{ role: "user", content: "x" }],
    stream: true,
    stream_options: { include_usage: true },
  });
  const all = { system: " be brief ", temperature: "0", top_p: "0.5", max_tokens: "9", seed: "-1", tier: "2", service_tier: "flex" };
  const asked = body("m", all, []);
  assert.deepEqual(asked.messages, [{ role: "system", content: "be brief" }]);
  assert.deepEqual([asked.temperature, asked.top_p, asked.max_tokens, asked.seed, asked.tier, asked.service_tier], [0, 0.5, 9, -1, 2, "flex"]);
  assert.equal("seed" in body("m", { ...NO_SETTINGS, seed: "many" }, []), false);
});

test("an answer grows, ends once, and tells what it cost", () => {
  const answer = new Answer();
  [chunk(""), chunk("one "), chunk("two"), chunk(null, "length"), says({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 11 } }), says("[DONE]"), chunk("late")].forEach((event) => answer.take(event));
  answer.end();
  assert.deepEqual([answer.text, answer.finish, answer.error], ["one two", "length", undefined]);
  assert.equal(closing(answer, "tiny-7", 1250, 250), "tiny-7 · 11 tokens · 1.3 s · 10 tokens/s · first after 250 ms · ended at its limit");
});

test("an answer that breaks off says so, and keeps what it said", () => {
  const broken = new Answer();
  broken.take(chunk("half"));
  broken.end();
  assert.deepEqual([broken.text, broken.error?.message], ["half", "The answer broke off."]);
  const failed = new Answer();
  failed.take(chunk("half"));
  failed.take(says({ error: { message: "the node failed", code: "node_failed" } }));
  failed.end();
  assert.deepEqual([failed.error?.message, failed.error?.code], ["the node failed", "node_failed"]);
  const odd = new Answer();
  odd.take(says("{"));
  assert.ok(odd.error);
});

function moment(uptime_seconds: number, requests: number, generated_tokens: number): Moment {
  const totals = { requests, finished: 0, failed: 0, cancelled: 0, rejected: 0, input_tokens: 0, output_tokens: 0 };
  const queue = { waiting: 0, max_waiting: 0, in_flight: 0, max_in_flight: 0 };
  const status = { version: "", strategy: "", uptime_seconds, draining: false, queue, totals, models: [], resident_bytes: 0 };
  return { status, generated_tokens, span: { seconds: 2, first_tokens: 0, ttft_p50_ms: null, ttft_p95_ms: null } };
}

test("rates are of the time that passed, and of one host", () => {
  assert.deepEqual(rates(moment(10, 5, 100), moment(12, 9, 400)), { tokens: 150, requests: 2, failed: 0, rejected: 0, cancelled: 0 });
  assert.equal(rates(moment(100, 5, 100), moment(1, 1, 200)), undefined, "it was started anew");
  assert.equal(rates(moment(1, 5, 100), { ...moment(2, 9, 400), span: null }), undefined);
});

test("a line ends at the right edge and has gaps where nothing was measured", () => {
  assert.equal(line([0, 5, 10], 299, 40, 10), "M297.0 40.0L298.0 20.0L299.0 0.0");
  assert.equal(line([1, null, 1], 299, 40, 1), "M297.0 0.0M299.0 0.0");
  assert.equal(line([], 299, 40, 1), "");
  const series = new Series();
  for (let i = 0; i < 1000; i += 1) series.add(i % 2 ? i : null);
  assert.deepEqual([series.values.length, series.last, series.most], [300, 999, 999]);
});

test("numbers are short", () => {
  assert.deepEqual([0, 0.123, 9.99, 12.34, 123.4, 1234, 12345, 1_234_567].map(short), ["0", "0.12", "9.99", "12.3", "123", "1,234", "12.3k", "1.23M"]);
  assert.deepEqual([0, 0.3, 1, 1.1, 7, 51, 100].map(roundedUp), [1, 0.5, 1, 2, 10, 100, 100]);
  assert.deepEqual([bytes(512), bytes(65_536), bytes(2.5 * 2 ** 30)], ["512 B", "64.0 KiB", "2.5 GiB"]);
  assert.deepEqual([duration(59), duration(61), duration(7322), duration(90_000)], ["59 s", "1 min 1 s", "2 h 2 min", "1 d 1 h"]);
});
