import assert from "node:assert/strict";
import { test } from "node:test";
import { Cells, type FieldEvent, STATES } from "../src/cells";
import { fitted, placeAt } from "../src/grid";

const KINDS = [
  { type: "tiny", model: "m" },
  { type: "big", model: "m" },
];

function event(runs: number[], more: Partial<FieldEvent> = {}): FieldEvent {
  return { whole: false, kinds: [], first_kind: KINDS.length, runs: btoa(String.fromCharCode(...runs)), ...more };
}

function field(runs: number[]): Cells {
  const cells = new Cells();
  cells.apply(event(runs, { whole: true, kinds: KINDS, first_kind: 0 }));
  return cells;
}

test("100,000 places are told in five bytes", () => {
  // as the host's own test has it
  const cells = field([0, 0xa0, 0x8d, 0x06, 2]);
  assert.equal(cells.length, 100_000);
  assert.equal(cells.total, 100_000);
  assert.equal(cells.state(99_999), "ready");
  assert.equal(cells.kind(0)?.type, "tiny");
  assert.equal(cells.state(100_000), undefined);
});

test("what changed is told, and all else is as before", () => {
  const cells = field([3, 2, 2, 0, 1, 3, 0xa6, 0x02, 2, 10]);
  const changed: number[] = [];
  cells.apply(event([4, 1, 0, 0, 1, 2]), (place) => changed.push(place));
  assert.deepEqual(changed, [4, 5]);
  assert.deepEqual([0, 3, 4, 5, 300].map((place) => cells.state(place)), [undefined, "ready", undefined, "ready", "ready"]);
  assert.deepEqual([...cells.types()].map(([type, counts]) => [type, counts[STATES.indexOf("ready")]]), [["tiny", 2], ["big", 2]]);
  assert.equal(cells.total, 4);
});

test("a field that is told whole forgets what was", () => {
  const cells = field([0, 10, 2]);
  cells.apply(event([0, 2, 3], { whole: true }));
  assert.deepEqual([cells.total, cells.length, cells.counts[STATES.indexOf("ready")], cells.state(5)], [2, 2, 0, undefined]);
});

test("what is no field is refused, and costs nothing", () => {
  for (const runs of [[0x80], [0, 1], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1], [0, 0xff, 0xff, 0xff, 0x7f, 1]]) {
    assert.throws(() => field(runs), RangeError, String(runs));
  }
});

test("every size of field has room for all of its cells, and each is found where it is", () => {
  for (const n of [1, 2, 9, 10, 1000, 10_000, 100_000, 200_000]) {
    for (const [width, scale] of [[328, 1], [984, 3], [1320, 1], [3840, 2]] as const) {
      const grid = fitted(n, width, 500 * scale, 780 * scale, scale);
      assert.ok(grid.columns * grid.rows >= n && grid.columns * grid.pitch <= width && grid.side >= 1, JSON.stringify(grid));
      const last = n - 1;
      const [x, y] = [(last % grid.columns) * grid.pitch, Math.floor(last / grid.columns) * grid.pitch];
      assert.equal(placeAt(grid, n, x, y), last);
      assert.equal(placeAt(grid, n, x, y + grid.pitch), undefined);
      assert.equal(placeAt(grid, n, x + grid.pitch, y), undefined, "behind the last one");
    }
  }
  assert.deepEqual(fitted(100_000, 1320, 560, 780, 1).pitch, 3);
});
