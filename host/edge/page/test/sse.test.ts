import assert from "node:assert/strict";
import { test } from "node:test";
import { EventReader, type SentEvent } from "../src/sse";

const STREAM = 'data: {"text":"für 🦙"}\n\nevent: status\r\ndata: one\r\ndata: two\r\n\r\n: nothing\nid: 7\ndata\n\nevent: lost\n\ndata:  two spaces\n\ndata: [DONE]\n\n';
const SAYS: SentEvent[] = [
  { name: "message", data: '{"text":"für 🦙"}' },
  { name: "status", data: "one\ntwo" },
  { name: "message", data: "" },
  { name: "message", data: " two spaces" },
  { name: "message", data: "[DONE]" },
];

test("a stream says the same wherever it is cut", () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let first = 0; first <= bytes.length; first += 1) {
    for (const second of [first, first + 1, first + 2, bytes.length]) {
      const reader = new EventReader();
      const parts = [bytes.slice(0, first), bytes.slice(first, second), bytes.slice(second)];
      assert.deepEqual(parts.flatMap((part) => reader.read(part)), SAYS, `cut at ${first} and ${second}`);
    }
  }
});

test("a stream says the same byte by byte", () => {
  const reader = new EventReader();
  const bytes = new TextEncoder().encode(STREAM.replaceAll("\r\n", "\r"));
  assert.deepEqual([...bytes].flatMap((byte) => reader.read(Uint8Array.of(byte))), SAYS);
});

test("what has no end is no event yet", () => {
  const reader = new EventReader();
  assert.deepEqual(reader.read(new TextEncoder().encode("data: half\n")), []);
  assert.deepEqual(reader.read(new TextEncoder().encode("\n")), [{ name: "message", data: "half" }]);
});

test("bytes that are no text break nothing", () => {
  const reader = new EventReader();
  const [event] = reader.read(Uint8Array.of(0x64, 0x61, 0x74, 0x61, 0x3a, 0xff, 0xc3, 10, 10));
  assert.equal(event?.data, "\ufffd\ufffd");
});
