// The AI SDK with its provider for OpenAI-compatible services, unchanged, against a host with a built-in model.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const llambo = createOpenAICompatible({
  name: "llambo",
  baseURL: `${process.env.LLAMBO_HTTP}/v1`,
  supportsStructuredOutputs: true,
  includeUsage: true,
});
const model = llambo("demo-small");
const prompt = "What is ownership?";

test("generateText", async () => {
  const { text, usage, finishReason } = await generateText({ model, prompt, maxOutputTokens: 16, temperature: 0 });
  assert.ok(text.length > 0 && usage.totalTokens > 0);
  assert.ok(["stop", "length"].includes(finishReason));
});

test("streamText says the same", async () => {
  const options = { model, prompt, maxOutputTokens: 16, temperature: 0 };
  const whole = await generateText(options);
  const streamed = streamText(options);
  let text = "";
  for await (const delta of streamed.textStream) text += delta;
  assert.equal(text, whole.text);
  assert.equal((await streamed.usage).totalTokens, whole.usage.totalTokens);
});

test("generateObject and streamObject", async () => {
  const schema = z.object({ color: z.enum(["red", "blue"]), on: z.boolean() });
  const { object } = await generateObject({ model, prompt, schema, maxOutputTokens: 100 });
  assert.ok(schema.safeParse(object).success);
  const streamed = streamObject({ model, prompt, schema, maxOutputTokens: 100 });
  let n = 0;
  for await (const _ of streamed.partialObjectStream) n++;
  assert.ok(n > 0 && schema.safeParse(await streamed.object).success);
});

test("a tool that must be called", async () => {
  const cities = [];
  const weather = tool({
    description: "The weather of a city",
    inputSchema: z.object({ city: z.enum(["Rome", "Oslo"]) }),
    execute: async ({ city }) => (cities.push(city), "sun"),
  });
  const options = { model, prompt, tools: { weather }, toolChoice: "required", maxOutputTokens: 60 };
  const { toolCalls, finishReason } = await generateText(options);
  assert.equal(toolCalls[0].toolName, "weather");
  assert.equal(finishReason, "tool-calls");
  const parts = [];
  for await (const part of streamText(options).fullStream) parts.push(part.type);
  assert.ok(parts.includes("tool-call") && parts.includes("tool-result"), parts.join());
  assert.ok(cities.length === 2 && cities.every((city) => ["Rome", "Oslo"].includes(city)));
});

test("embedMany", async () => {
  const { embeddings } = await embedMany({ model: llambo.textEmbeddingModel("demo-small"), values: ["a trait", "cargo"] });
  assert.equal(embeddings.length, 2);
  assert.equal(embeddings[0].length, embeddings[1].length);
});

test("a stream that is aborted ends", async () => {
  const abort = new AbortController();
  const streamed = streamText({ model, prompt, maxOutputTokens: 900, abortSignal: abort.signal, onError: () => {} });
  let n = 0;
  for await (const part of streamed.fullStream) {
    if (part.type === "text-delta" && ++n === 2) abort.abort();
  }
  assert.ok(n >= 2);
});
