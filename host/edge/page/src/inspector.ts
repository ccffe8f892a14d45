// The isolate under the pointer, or under the cursor of the keyboard: what it is, asked of the host.

import type { Cells } from "./cells";
import { byId } from "./dom";
import { ask } from "./host";
import type { Painter } from "./painter";
import { bytes } from "./report";

interface CellNode {
  id: string;
  type: string;
  model: string;
  state: string;
  in_flight: number;
  capacity: number;
  served: number;
  memory_bytes: number;
  replaced: number;
}

/** A pointer that crosses the field asks for nothing. */
const RESTS_MS = 70;
/** How small the ring around a cell becomes, so that it is seen. */
const SMALLEST_RING = 13;

export class Inspector {
  private at: number | undefined;
  private byKeyboard = false;
  private timer = 0;
  private asking: AbortController | undefined;
  private readonly box = byId("field-box");
  private readonly ring = byId("ring");
  private readonly readout = byId("readout");
  private readonly spoken = byId("spoken");

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly painter: Painter,
    private readonly cells: Cells,
  ) {
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerdown", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => {
      if (!this.byKeyboard) this.go(undefined, false);
    });
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("focus", () => {
      if (this.box.matches(":focus-visible") && this.at === undefined) this.go(this.cells.length > 0 ? 0 : undefined, true);
    });
    this.box.addEventListener("blur", () => this.go(undefined, false));
  }

  /** Its cell may be another one now. */
  refresh(): void {
    if (this.at !== undefined) void this.tell(false);
  }

  /** The cells lie elsewhere now. */
  place(): void {
    this.ring.hidden = this.at === undefined;
    if (this.at === undefined) return;
    const { columns, pitch, side } = this.painter.grid;
    const scale = this.canvas.width / (this.canvas.clientWidth || this.canvas.width);
    const size = Math.max(SMALLEST_RING, side / scale + 6);
    const x = ((this.at % columns) * pitch + side / 2) / scale - size / 2;
    const y = (Math.floor(this.at / columns) * pitch + side / 2) / scale - size / 2;
    this.ring.style.width = this.ring.style.height = `${size}px`;
    this.ring.style.transform = `translate(${x}px, ${y}px)`;
  }

  private point(event: PointerEvent): void {
    const bounds = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / bounds.width;
    this.go(this.painter.at((event.clientX - bounds.left) * scale, (event.clientY - bounds.top) * scale), false);
  }

  private key(event: KeyboardEvent): void {
    const { columns } = this.painter.grid;
    const last = this.cells.length - 1;
    if (last < 0) return;
    const from = this.at ?? 0;
    const to: Record<string, number | undefined> = {
      ArrowRight: from + 1,
      ArrowLeft: from - 1,
      ArrowDown: from + columns,
      ArrowUp: from - columns,
      PageDown: from + 10 * columns,
      PageUp: from - 10 * columns,
      Home: 0,
      End: last,
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") this.go(undefined, true);
    const wanted = to[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    // there is nothing beyond the edges
    this.go(wanted < 0 || wanted > last ? from : wanted, true);
  }

  private go(place: number | undefined, byKeyboard: boolean): void {
    this.byKeyboard = byKeyboard && place !== undefined;
    if (place === this.at) return;
    this.at = place;
    this.place();
    clearTimeout(this.timer);
    this.asking?.abort();
    if (place === undefined) {
      this.readout.textContent = HINT;
      return;
    }
    this.readout.textContent = this.known(place);
    this.timer = window.setTimeout(() => void this.tell(byKeyboard), RESTS_MS);
  }

  /** What the field itself says. */
  private known(place: number): string {
    const state = this.cells.state(place);
    return state === undefined ? `place ${place} · no isolate` : `place ${place} · ${this.cells.kind(place)?.type ?? ""} · ${state}`;
  }

  private async tell(aloud: boolean): Promise<void> {
    const place = this.at;
    if (place === undefined) return;
    if (this.cells.state(place) === undefined) {
      this.readout.textContent = this.known(place);
      return;
    }
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    try {
      const response = await ask(`/cluster/cells/${place}`, { signal: asking.signal });
      const node = (await response.json()) as CellNode;
      if (this.at !== place) return;
      const text = `${node.id} · ${node.type} · ${node.model} · ${node.state} · served ${node.served.toLocaleString("en")}`;
      const more = ` · ${node.in_flight} of ${node.capacity} now · ${bytes(node.memory_bytes)}${node.replaced > 0 ? ` · replaced ${node.replaced}×` : ""}`;
      this.readout.textContent = text + more;
      if (aloud) this.spoken.textContent = text;
    } catch {
      // it went in between, or the host did, which is said elsewhere
      if (this.at === place) this.readout.textContent = this.known(place);
    }
  }
}

export const HINT = "Point at a cell, or use the arrow keys, to see which isolate it is.";
