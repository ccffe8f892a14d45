// Where the cells of a field lie: in rows, all of one size, as large as fits.

export interface Grid {
  /** From one cell to the next, in pixels of the screen. */
  pitch: number;
  /** The side of a cell. */
  side: number;
  columns: number;
  rows: number;
}

/** A single isolate should not fill the page. */
const LARGEST = 30;

/** Cells smaller than this have no gap between them, and are a surface instead of many. */
const DISTINCT = 3;

/** The largest cells with which `n` of them are at most `height` high, or at most `tallest` where they would not be distinct otherwise. */
export function fitted(n: number, width: number, height: number, tallest: number, scale: number): Grid {
  const grid = (pitch: number): Grid => {
    const columns = Math.max(1, Math.floor(width / pitch));
    const gap = pitch < DISTINCT ? 0 : Math.max(1, Math.round(pitch * 0.14));
    return { pitch, side: pitch - gap, columns, rows: Math.ceil(n / columns) };
  };
  for (let pitch = Math.min(LARGEST * Math.ceil(scale), Math.max(1, width)); pitch > 1; pitch -= 1) {
    const found = grid(pitch);
    if (found.rows * pitch <= (pitch > DISTINCT ? height : tallest)) return found;
  }
  return grid(1);
}

/** The place under a point, if there is one. */
export function placeAt(grid: Grid, n: number, x: number, y: number): number | undefined {
  const column = Math.floor(x / grid.pitch);
  const row = Math.floor(y / grid.pitch);
  const place = row * grid.columns + column;
  return x >= 0 && y >= 0 && column < grid.columns && place < n ? place : undefined;
}
