// The field of isolates as the host tells it: a place for each, told once in runs and then by what changed.

export const STATES = ["starting", "ready", "busy", "hibernated", "draining", "stopped", "failed"] as const;
export type State = (typeof STATES)[number];

export interface Kind {
  type: string;
  model: string;
}

/** An event `field` of `/cluster/watch`. */
export interface FieldEvent {
  whole: boolean;
  kinds: Kind[];
  first_kind: number;
  runs: string;
}

/** More places than a host can have; what says otherwise is no field. */
const MAX_PLACES = 1 << 24;

/** What each place is: 0 for none, else its kind times 8 plus 1 to 7 for its state. */
export class Cells {
  values = new Uint32Array(0);
  /** Places up to the last one that ever had a node. */
  length = 0;
  kinds: Kind[] = [];
  /** Nodes by state, in the order of `STATES`. */
  readonly counts = new Uint32Array(STATES.length);
  /** Nodes of each kind, by state. */
  private byKind: Uint32Array[] = [];

  /** Takes an event in, and calls `changed` for every place that it tells. */
  apply(event: FieldEvent, changed: (place: number) => void = () => undefined): void {
    event.kinds.forEach((kind, i) => (this.kinds[event.first_kind + i] = kind));
    if (event.whole) this.clear();
    const bytes = decodeBase64(event.runs);
    let at = 0;
    const number = (): number => {
      let value = 0;
      for (let scale = 1; scale <= 2 ** 28; scale *= 128) {
        const byte = bytes[at];
        if (byte === undefined) throw new RangeError("the field breaks off within a number");
        at += 1;
        value += (byte & 0x7f) * scale;
        if (byte < 0x80) return value;
      }
      throw new RangeError("the field has a number that is too long");
    };
    let place = 0;
    while (at < bytes.length) {
      place += number();
      const end = place + number();
      const value = number();
      if (end > MAX_PLACES) throw new RangeError(`the field has ${end} places`);
      this.reserve(end);
      for (; place < end; place += 1) {
        this.set(place, value);
        changed(place);
      }
    }
  }

  /** The state at a place; `undefined`: no node. */
  state(place: number): State | undefined {
    const value = this.values[place] ?? 0;
    return STATES[(value & 7) - 1];
  }

  kind(place: number): Kind | undefined {
    const value = this.values[place] ?? 0;
    return value === 0 ? undefined : this.kinds[value >>> 3];
  }

  get total(): number {
    return this.counts.reduce((sum, n) => sum + n, 0);
  }

  /** Nodes by state of each type that has any. */
  types(): Map<string, Uint32Array> {
    const types = new Map<string, Uint32Array>();
    this.byKind.forEach((counts, i) => {
      const type = this.kinds[i]?.type ?? "?";
      const sum = types.get(type) ?? new Uint32Array(STATES.length);
      counts.forEach((n, state) => (sum[state] = (sum[state] ?? 0) + n));
      if (sum.some((n) => n > 0)) types.set(type, sum);
    });
    return types;
  }

  private set(place: number, value: number): void {
    this.count(this.values[place] ?? 0, -1);
    this.values[place] = value;
    this.count(value, 1);
  }

  private count(value: number, by: number): void {
    const state = (value & 7) - 1;
    if (state < 0) return;
    const kind = value >>> 3;
    const counts = (this.byKind[kind] ??= new Uint32Array(STATES.length));
    counts[state] = (counts[state] ?? 0) + by;
    this.counts[state] = (this.counts[state] ?? 0) + by;
  }

  private clear(): void {
    this.values.fill(0);
    this.length = 0;
    this.counts.fill(0);
    this.byKind = [];
  }

  private reserve(length: number): void {
    if (length > this.values.length) {
      const grown = new Uint32Array(Math.max(length, this.values.length * 2, 1024));
      grown.set(this.values);
      this.values = grown;
    }
    this.length = Math.max(this.length, length);
  }
}

function decodeBase64(text: string): Uint8Array {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
