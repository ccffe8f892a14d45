// OpenAI's own client for Node, unchanged, against a host with a built-in model.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const model = "demo-small";
const client = new OpenAI({ baseURL: `${process.env.LLAMBO_HTTP}/v1`, apiKey: "none" });
const messages = [{ role: "user", content: "What is ownership?" }];
const ask = (more = {}, options = {}) =>
  client.chat.completions.create({ model, messages, max_tokens: 16, temperature: 0, ...more }, options);
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Rome", "Oslo"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};

test("a whole answer", async () => {
  const answer = await ask();
  assert.equal(answer.object, "chat.completion");
  assert.ok(answer.choices[0].message.content.length > 0);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.ok(answer._request_id);
});

test("a stream says the same, and its usage", async () => {
  const whole = await ask();
  let [text, usage, reason] = ["", null, null];
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    reason = chunk.choices[0]?.finish_reason ?? reason;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(reason, whole.choices[0].finish_reason);
  assert.equal(usage.total_tokens, whole.usage.total_tokens);
});

test("the streaming helper collects the whole answer", async () => {
  const stream = client.chat.completions.stream({ model, messages, max_tokens: 16, temperature: 0, n: 2, seed: 3 });
  let [chunks, content] = [0, ""];
  stream.on("chunk", () => chunks++);
  stream.on("content", (delta) => (content += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices.length, 2);
  assert.ok(chunks > 3 && content.length > 0);
  assert.equal(final.choices[0].message.role, "assistant");
});

test("n, stop and seed", async () => {
  const sampled = { temperature: 1.5, max_tokens: 24 };
  const several = await ask({ ...sampled, n: 2, seed: 10 });
  const second = await ask({ ...sampled, seed: 11 });
  assert.equal(several.choices[1].message.content, second.choices[0].message.content);
  const whole = (await ask()).choices[0].message.content;
  const stop = whole.split(/\s+/).filter(Boolean)[3];
  const cut = (await ask({ stop })).choices[0];
  assert.equal(cut.message.content, whole.slice(0, whole.indexOf(stop)));
  assert.equal(cut.finish_reason, "stop");
});

test("JSON that conforms to a schema, parsed", async () => {
  const Point = z.object({ color: z.enum(["red", "blue"]), on: z.boolean() });
  const completion = await client.chat.completions.parse({
    model,
    messages,
    max_tokens: 100,
    response_format: zodResponseFormat(Point, "point"),
  });
  const point = completion.choices[0].message.parsed;
  assert.ok(["red", "blue"].includes(point.color) && typeof point.on === "boolean");
});

test("tools: one that must be called, whole and streamed, and the runner", async () => {
  const forced = { tools: [weather], tool_choice: "required", max_tokens: 60 };
  const call = (await ask(forced)).choices[0].message.tool_calls[0];
  assert.ok(["Rome", "Oslo"].includes(JSON.parse(call.function.arguments).city));
  const stream = client.chat.completions.stream({ model, messages, ...forced });
  const streamed = (await stream.finalChatCompletion()).choices[0].message.tool_calls[0];
  assert.equal(streamed.function.name, "get_weather");
  assert.ok(JSON.parse(streamed.function.arguments).city);
  const asked = [];
  const tool = { ...weather.function, function: ({ city }) => (asked.push(city), "sun"), parse: JSON.parse };
  const runner = client.chat.completions.runTools(
    { model, messages, max_tokens: 60, tools: [{ type: "function", function: tool }], tool_choice: { type: "function", function: { name: "get_weather" } } },
    { maxChatCompletions: 1 },
  );
  await runner.done();
  assert.equal(asked.length, 1);
});

test("logprobs", async () => {
  const answer = await ask({ logprobs: true, top_logprobs: 2 });
  const tokens = answer.choices[0].logprobs.content;
  assert.equal(tokens.length, answer.usage.completion_tokens);
  assert.equal(tokens[0].top_logprobs.length, 2);
  assert.ok(tokens[0].logprob <= 0);
});

test("embeddings: packed, which the client unpacks, and as numbers", async () => {
  const input = ["the borrow checker", "cargo"];
  const unpacked = await client.embeddings.create({ model, input });
  const numbers = await client.embeddings.create({ model, input, encoding_format: "float" });
  assert.deepEqual(
    unpacked.data.map((one) => one.embedding.map((x) => x.toFixed(5))),
    numbers.data.map((one) => one.embedding.map((x) => x.toFixed(5))),
  );
});

test("completions", async () => {
  const answer = await client.completions.create({ model, prompt: "A trait is", max_tokens: 4, temperature: 0 });
  let text = "";
  for await (const chunk of await client.completions.create({ model, prompt: "A trait is", max_tokens: 4, temperature: 0, stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.equal(text, answer.choices[0].text);
});

test("models", async () => {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert.deepEqual(names, [model]);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("errors have their types", async () => {
  await assert.rejects(ask({ temperature: 99 }), (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
  await assert.rejects(ask({ model: "gpt-0" }), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
});

test("a stream that is aborted ends, and a timeout is one", async () => {
  const stream = await ask({ stream: true, max_tokens: 900, ignore_eos: true });
  let n = 0;
  for await (const _ of stream) {
    if (++n === 3) stream.controller.abort();
  }
  assert.ok(n >= 3);
  const long = { max_tokens: 900, n: 20, ignore_eos: true };
  await assert.rejects(ask(long, { timeout: 50, maxRetries: 0 }), OpenAI.APIConnectionTimeoutError);
});
