// Numbers over the last minutes, and the shape they draw.

/** How many are kept: five minutes, one a second. */
export const KEPT = 300;

export class Series {
  /** `null` where there was nothing to measure. */
  readonly values: (number | null)[] = [];

  add(value: number | null): void {
    this.values.push(value);
    if (this.values.length > KEPT) this.values.shift();
  }

  get last(): number | null {
    return this.values.at(-1) ?? null;
  }

  get most(): number {
    return this.values.reduce<number>((most, value) => Math.max(most, value ?? 0), 0);
  }

  get mean(): number | null {
    const known = this.values.filter((value) => value !== null);
    return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
  }
}

/** Lines through the values as the path of an SVG, the newest at the right edge, the one `span` before it at the left, `top` at the upper one. Where nothing was measured, the line has a gap. */
export function line(values: (number | null)[], width: number, height: number, top: number, span = KEPT): string {
  const scale = top > 0 ? height / top : 0;
  const step = width / (span - 1);
  let path = "";
  let isDown = false;
  values.forEach((value, i) => {
    if (value === null) {
      isDown = false;
      return;
    }
    const x = width - (values.length - 1 - i) * step;
    path += `${isDown ? "L" : "M"}${x.toFixed(1)} ${(height - Math.min(value, top) * scale).toFixed(1)}`;
    isDown = true;
  });
  return path;
}

/** A round number that is at least as large: 1, 2 or 5 and zeros. */
export function roundedUp(value: number): number {
  if (value <= 0) return 1;
  const magnitude = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 5, 10].find((factor) => factor * magnitude >= value * 0.999999) ?? 10;
  return factor * magnitude;
}

/** With at most three digits that say something. */
export function short(value: number): string {
  if (value >= 1e9) return `${digits(value / 1e9)}G`;
  if (value >= 1e6) return `${digits(value / 1e6)}M`;
  if (value >= 1e4) return `${digits(value / 1e3)}k`;
  return value >= 1000 ? Math.round(value).toLocaleString("en") : digits(value);
}

function digits(value: number): string {
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return value >= 10 ? String(Number(value.toFixed(1))) : String(Number(value.toFixed(2)));
}
