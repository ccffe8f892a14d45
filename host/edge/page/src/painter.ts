// Paints the field, pixel by pixel into one picture: 100,000 cells take a few milliseconds, on any machine and without its graphics card. Only what
// changed or still glows is painted, and nothing while nothing does.

import { type Cells, STATES } from "./cells";
import { fitted, type Grid, placeAt } from "./grid";

type Colour = [red: number, green: number, blue: number];

/** How long a cell that served somebody glows. */
const GLOW_MS = 1600;
const GLOW_LEVELS = 24;
/** Places painted one by one; with more of them it is quicker to paint all. */
const MOST_STALE = 1 << 16;

export interface Palette {
  ground: Colour;
  glow: Colour;
  /** In the order of `STATES`. */
  states: Colour[];
}

export class Painter {
  grid: Grid = { pitch: 1, side: 1, columns: 1, rows: 1 };
  /** Frames painted so far. */
  frames = 0;
  private readonly context: CanvasRenderingContext2D;
  private image: ImageData | undefined;
  private pixels = new Uint32Array(0);
  /** By glow, dimness and state; the first state is no node. */
  private colours = new Uint32Array(0);
  /** Of each row of a cell: pixels that it leaves out at either end, with a fraction. */
  private insets: number[] = [];
  private frame = 0;
  private wholly = true;
  /** When each place begins to glow; those that do, or will. */
  private begins = new Float64Array(0);
  private isGlowing = new Uint8Array(0);
  private glowing: number[] = [];
  private stale: number[] = [];
  private shown: number | undefined;
  /** Whether things may move. */
  moves = true;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly cells: Cells,
  ) {
    const context = canvas.getContext("2d", { alpha: false });
    if (!context) throw new Error("this browser draws no pictures");
    this.context = context;
  }

  use({ ground, glow, states }: Palette): void {
    const kinds = [ground, ...states];
    this.colours = new Uint32Array(GLOW_LEVELS * 2 * 8);
    for (let level = 0; level < GLOW_LEVELS; level += 1) {
      const share = (level / (GLOW_LEVELS - 1)) ** 1.5;
      kinds.forEach((colour, state) => {
        const lit = mixed(colour, glow, state === 0 ? 0 : share * 0.9);
        this.colours[(level * 2 + 0) * 8 + state] = packed(lit);
        this.colours[(level * 2 + 1) * 8 + state] = packed(mixed(ground, lit, 0.16));
      });
    }
    this.paintAll();
  }

  /** Makes room for all cells in so many pixels; true if the size is another one now. */
  fit(width: number, height: number, tallest: number, scale: number): boolean {
    const grid = fitted(Math.max(1, this.cells.length), width, height, tallest, scale);
    const high = grid.rows * grid.pitch;
    const same = this.canvas.width === width && this.canvas.height === high && this.grid.pitch === grid.pitch;
    this.grid = grid;
    if (same) return false;
    this.canvas.width = width;
    this.canvas.height = high;
    this.image = this.context.createImageData(width, high);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.insets = rounded(grid.side);
    this.paintAll();
    return true;
  }

  /** Dims all nodes in other states; `undefined` dims none. */
  show(state: number | undefined): void {
    this.shown = state;
    this.paintAll();
  }

  /** A place changed; it glows from some moment of the next `spread` milliseconds on, so that what came at once does not flash at once. */
  changed(place: number, spread: number): void {
    // a page that is not seen paints nothing, and must not remember everything
    if (this.stale.length >= MOST_STALE) this.wholly = true;
    if (this.wholly) this.stale.length = 0;
    else this.stale.push(place);
    if (spread > 0 && this.moves) {
      this.room(place);
      this.begins[place] = performance.now() + Math.random() * spread;
      if (this.isGlowing[place] === 0) {
        this.isGlowing[place] = 1;
        this.glowing.push(place);
      }
    }
    this.wake();
  }

  paintAll(): void {
    this.wholly = true;
    this.wake();
  }

  at(x: number, y: number): number | undefined {
    return placeAt(this.grid, this.cells.length, x, y);
  }

  private wake(): void {
    this.frame ||= requestAnimationFrame((now) => {
      this.frame = 0;
      this.paint(now);
      if (this.glowing.length > 0) this.wake();
    });
  }

  private paint(now: number): void {
    if (!this.image) return;
    this.frames += 1;
    let top = Infinity;
    let bottom = -1;
    const touched = (place: number): void => {
      const row = Math.floor(place / this.grid.columns);
      if (row < top) top = row;
      if (row > bottom) bottom = row;
    };
    if (this.wholly) {
      this.pixels.fill(this.colours[0] ?? 0);
      for (let place = 0; place < this.cells.length; place += 1) this.cell(place, this.level(place, now));
      [top, bottom] = [0, this.grid.rows];
      this.wholly = false;
    } else {
      for (const place of this.stale) {
        this.cell(place, this.level(place, now));
        touched(place);
      }
    }
    this.stale.length = 0;
    let kept = 0;
    for (const place of this.glowing) {
      const began = this.begins[place] ?? 0;
      if (now >= began) {
        this.cell(place, this.level(place, now));
        touched(place);
      }
      if (now < began + GLOW_MS) {
        this.glowing[kept] = place;
        kept += 1;
      } else {
        this.isGlowing[place] = 0;
      }
    }
    this.glowing.length = kept;
    if (bottom < 0) return;
    const { pitch } = this.grid;
    this.context.putImageData(this.image, 0, 0, 0, top * pitch, this.image.width, (bottom - top + 1) * pitch);
  }

  private level(place: number, now: number): number {
    if (this.isGlowing[place] !== 1) return 0;
    const age = (now - (this.begins[place] ?? 0)) / GLOW_MS;
    return age < 0 || age >= 1 ? 0 : Math.round((1 - age) * (GLOW_LEVELS - 1));
  }

  private cell(place: number, level: number): void {
    const { columns, pitch, side } = this.grid;
    const state = (this.cells.values[place] ?? 0) & 7;
    const dim = this.shown !== undefined && state !== this.shown + 1 ? 1 : 0;
    const colour = this.colours[(level * 2 + dim) * 8 + state] ?? 0;
    const width = this.canvas.width;
    const row = Math.floor(place / columns);
    let start = row * pitch * width + (place - row * columns) * pitch;
    for (let y = 0; y < side; y += 1, start += width) {
      const inset = this.insets[y] ?? 0;
      const whole = Math.ceil(inset);
      for (let at = start + whole; at < start + side - whole; at += 1) this.pixels[at] = colour;
      if (whole > inset) {
        const edge = blended(this.colours[0] ?? 0, colour, whole - inset);
        this.pixels[start + whole - 1] = edge;
        this.pixels[start + side - whole] = edge;
      }
    }
  }

  private room(place: number): void {
    if (place < this.begins.length) return;
    const n = Math.max(this.cells.values.length, place + 1);
    const begins = new Float64Array(n);
    begins.set(this.begins);
    const isGlowing = new Uint8Array(n);
    isGlowing.set(this.isGlowing);
    [this.begins, this.isGlowing] = [begins, isGlowing];
  }
}

/** The colours that the style sheet names. */
export function palette(of: HTMLElement): Palette {
  const style = getComputedStyle(of);
  const colour = (name: string): Colour => {
    const hex = style.getPropertyValue(name).trim();
    const number = Number.parseInt(hex.slice(1), 16);
    return [(number >> 16) & 255, (number >> 8) & 255, number & 255];
  };
  return { ground: colour("--ground"), glow: colour("--glow"), states: STATES.map((state) => colour(`--${state}`)) };
}

function mixed(from: Colour, to: Colour, share: number): Colour {
  const [a, b, c] = from.map((value, i) => Math.round(value + ((to[i] ?? 0) - value) * share));
  return [a ?? 0, b ?? 0, c ?? 0];
}

/** Cells that are large enough to have corners have round ones. */
function rounded(side: number): number[] {
  const radius = side >= 6 ? side * 0.2 : 0;
  return Array.from({ length: side }, (_, y) => {
    const beyond = Math.max(0, radius - 0.5 - Math.min(y, side - 1 - y));
    return radius - Math.sqrt(radius * radius - beyond * beyond);
  });
}

function blended(ground: number, colour: number, share: number): number {
  const channel = (shift: number): number => {
    const from = (ground >>> shift) & 255;
    return Math.round(from + (((colour >>> shift) & 255) - from) * share) << shift;
  };
  return ((255 << 24) | channel(16) | channel(8) | channel(0)) >>> 0;
}

/** As pictures have it on every machine that browsers run on: the lowest byte is red. */
function packed([red, green, blue]: Colour): number {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
