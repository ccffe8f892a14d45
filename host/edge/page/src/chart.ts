// A number as it is, and how it was over the last minutes.

import { element } from "./dom";
import { line, roundedUp, Series, short } from "./series";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 44;

export interface Told {
  /** Draws one line, and the second fainter. */
  values: [number | null, (number | null)?];
  /** The number, where it is not the first value. */
  text?: string;
  unit?: string;
  detail: string;
}

export class Chart {
  readonly box: HTMLElement;
  private readonly series = [new Series(), new Series()];
  private readonly lines: SVGPathElement[];
  private readonly area: SVGPathElement;
  private readonly svg: SVGSVGElement;
  private readonly number = element("b");
  private readonly unit = element("span", { class: "unit" });
  private readonly detail = element("p", { class: "detail" });
  private readonly top = element("span", { class: "top" });

  constructor(
    private readonly name: string,
    private readonly floor: number,
    kind = "",
  ) {
    const path = (style: string): SVGPathElement => {
      const made = document.createElementNS(SVG, "path");
      made.setAttribute("class", style);
      return made;
    };
    this.area = path("area");
    this.lines = [path("line"), path("line second")];
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    this.svg.append(this.area, ...this.lines);
    const figure = element("div", { class: "plot" });
    figure.append(this.svg, this.top);
    const reading = element("p", { class: "reading" }, this.number, this.unit);
    this.box = element("div", { class: `chart ${kind}`, role: "group", "aria-label": name }, element("h2", {}, name), reading, this.detail, figure);
    this.number.textContent = "–";
  }

  add({ values, text, unit, detail }: Told): void {
    values.forEach((value, i) => this.series[i]?.add(value ?? null));
    const [first] = values;
    this.number.textContent = text ?? (first === null ? "–" : short(first));
    this.unit.textContent = unit ?? "";
    this.detail.textContent = detail;
    const top = roundedUp(Math.max(this.floor, ...this.series.map((series) => series.most)));
    this.top.textContent = `${short(top)}`;
    const n = this.series[0]?.values.length ?? 0;
    // a minute at first; then all that is kept
    const span = Math.max(n, 60);
    this.series.forEach((series, i) => this.lines[i]?.setAttribute("d", line(series.values, WIDTH, HEIGHT, top, span)));
    const drawn = line(this.series[0]?.values.map((value) => value ?? 0) ?? [], WIDTH, HEIGHT, top, span);
    const left = (WIDTH - ((n - 1) * WIDTH) / (span - 1)).toFixed(1);
    this.area.setAttribute("d", drawn && `${drawn}L${WIDTH} ${HEIGHT}L${left} ${HEIGHT}Z`);
    const mean = this.series[0]?.mean ?? null;
    const label = `${this.name} over the last minutes: ${this.number.textContent} ${unit ?? ""} now, ${mean === null ? "–" : short(mean)} on average, ${short(this.series[0]?.most ?? 0)} at most`;
    this.svg.setAttribute("aria-label", label);
  }
}
