// The view of the whole host: its isolates, and how they do.

import { Cells, type FieldEvent, STATES } from "./cells";
import { Chart } from "./chart";
import { told } from "./chat";
import { byId, element } from "./dom";
import { HostError } from "./host";
import { Inspector } from "./inspector";
import { Painter, palette } from "./painter";
import { bytes, duration, type Moment, rates } from "./report";
import { short } from "./series";
import { Watching } from "./watching";

const INTERVAL_MS = 1000;
/** The field may be so high, before cells become specks. */
const TALLEST = 780;

export class Cluster {
  readonly cells = new Cells();
  readonly painter: Painter;
  private readonly canvas = byId<HTMLCanvasElement>("field");
  private readonly inspector: Inspector;
  private readonly watching: Watching;
  private readonly charts = {
    load: new Chart("Load", 1),
    tokens: new Chart("Tokens", 10),
    ttft: new Chart("Time to first token", 10),
    queue: new Chart("Queue", 5),
    requests: new Chart("Requests", 5),
    errors: new Chart("Errors", 1, "bad"),
  };
  private before: Moment | undefined;
  private shown: number | undefined;
  private readonly legend: HTMLButtonElement[];

  constructor(private readonly needsToken: () => void) {
    this.painter = new Painter(this.canvas, this.cells);
    this.inspector = new Inspector(this.canvas, this.painter, this.cells);
    byId("charts").append(...Object.values(this.charts).map((chart) => chart.box));
    this.legend = STATES.map((state, i) => {
      const button = element("button", { type: "button", "aria-pressed": "false", class: `state ${state}`, title: `Show only ${state} ones` });
      button.append(element("i", { "aria-hidden": "true" }), `${state} `, element("b", {}, "0"));
      button.addEventListener("click", () => this.show(this.shown === i ? undefined : i));
      return button;
    });
    byId("legend").append(...this.legend.map((button) => element("li", {}, button)));
    this.watching = new Watching(
      `/cluster/watch?cells=true&interval-ms=${INTERVAL_MS}`,
      ({ name, data }) => this.take(name, data),
      (error, retriesInMs) => this.lost(error, retriesInMs),
    );
    const motion = matchMedia("(prefers-reduced-motion: reduce)");
    const moves = (): void => void (this.painter.moves = !motion.matches);
    motion.addEventListener("change", moves);
    moves();
    new ResizeObserver(() => this.fit()).observe(byId("field-box"));
    addEventListener("resize", () => this.fit());
    this.recolour();
  }

  /** Reads what the host tells, from now on. */
  open(): void {
    if (!this.watching.isOn) this.watching.again();
    this.fit();
  }

  /** Somebody else reads: their token decides. */
  again(): void {
    if (this.watching.isOn || !byId("cluster-notice").hidden) this.watching.again();
  }

  recolour(): void {
    this.painter.use(palette(document.documentElement));
  }

  private take(name: string, data: string): void {
    try {
      if (name === "field") this.field(JSON.parse(data) as FieldEvent);
      if (name === "status") this.moment(JSON.parse(data) as Moment);
    } catch (error) {
      this.lost(new HostError(0, "", `What the host told cannot be read: ${String(error)}`, "Load the page again."), undefined);
      this.watching.end();
    }
  }

  private field(event: FieldEvent): void {
    const spread = event.whole ? 0 : INTERVAL_MS;
    this.cells.apply(event, (place) => {
      if (!event.whole) this.painter.changed(place, spread);
    });
    this.fit();
    if (event.whole) this.painter.paintAll();
    this.inspector.refresh();
    this.counts();
  }

  private counts(): void {
    const { total, counts } = this.cells;
    byId("isolates").textContent = total.toLocaleString("en");
    this.legend.forEach((button, i) => {
      const n = counts[i] ?? 0;
      const number = button.querySelector("b");
      if (number) number.textContent = n.toLocaleString("en");
      button.classList.toggle("none", n === 0 && this.shown !== i);
    });
    const rows = [...this.cells.types()].map(([type, states]) => {
      const n = states.reduce((sum, n) => sum + n, 0);
      const ready = (states[STATES.indexOf("ready")] ?? 0) + (states[STATES.indexOf("hibernated")] ?? 0);
      const busy = states[STATES.indexOf("busy")] ?? 0;
      const numbers = [n, ready, busy, n - ready - busy].map((n) => element("td", {}, n.toLocaleString("en")));
      return element("tr", {}, element("th", { scope: "row" }, type), ...numbers);
    });
    byId("types").replaceChildren(...rows);
  }

  private moment(now: Moment): void {
    const notice = byId("cluster-notice");
    notice.hidden = true;
    notice.replaceChildren();
    document.documentElement.dataset.link = "on";
    const { status, span } = now;
    byId("link").textContent = `${status.draining ? "draining" : "connected"} · ${status.version} · up ${duration(status.uptime_seconds)}`;
    this.models(now);
    this.facts(now);
    const { before, charts } = this;
    this.before = now;
    const rate = before && rates(before, now);
    if (!rate) return;
    const { queue, totals } = status;
    const share = queue.max_in_flight > 0 ? (queue.in_flight / queue.max_in_flight) * 100 : 0;
    const limit = queue.max_in_flight > 1e6 ? "" : ` of ${queue.max_in_flight.toLocaleString("en")}`;
    charts.load.add({ values: [share], text: short(share), unit: "%", detail: `${queue.in_flight.toLocaleString("en")}${limit} at a time` });
    charts.tokens.add({ values: [rate.tokens], unit: "/s", detail: `${short(now.generated_tokens)} since the start` });
    const p50 = span?.ttft_p50_ms ?? null;
    const p95 = span?.ttft_p95_ms ?? null;
    charts.ttft.add({ values: [p50, p95], unit: p50 === null ? "" : "ms", detail: p95 === null ? "none began" : `median; 95% within ${short(p95)} ms` });
    charts.queue.add({ values: [queue.waiting], unit: "waiting", detail: `${queue.max_waiting.toLocaleString("en")} may` });
    charts.requests.add({ values: [rate.requests], unit: "/s", detail: `${short(totals.finished)} finished` });
    const errors = rate.failed + rate.rejected;
    charts.errors.add({ values: [errors], unit: "/s", detail: `${short(totals.failed)} failed, ${short(totals.rejected)} refused` });
  }

  private models({ status }: Moment): void {
    const rows = status.models.map((model) => {
      const numbers = [short(model.n_params), model.n_context.toLocaleString("en"), `${model.n_running} of ${model.n_sequences}`, String(model.n_waiting)];
      return element("tr", {}, element("th", { scope: "row" }, model.name), ...numbers.map((text) => element("td", {}, text)));
    });
    byId("models").replaceChildren(...rows);
  }

  private facts({ status }: Moment): void {
    const n = this.cells.total;
    const each = n > 0 ? ` (${bytes(status.resident_bytes / n)} per isolate, models included)` : "";
    byId("facts").textContent = `Balancing: ${status.strategy}. Memory of the process: ${bytes(status.resident_bytes)}${each}.`;
  }

  private lost(error: unknown, retriesInMs: number | undefined): void {
    const notice = byId("cluster-notice");
    const isNew = notice.hidden;
    document.documentElement.dataset.link = "off";
    byId("link").textContent = retriesInMs === undefined ? "no report" : "the host is away; trying again";
    if (isNew) {
      notice.replaceChildren(told(error));
      notice.hidden = false;
    }
    this.before = undefined;
    if (error instanceof HostError && error.status === 401) this.needsToken();
  }

  private show(state: number | undefined): void {
    this.shown = state;
    this.legend.forEach((button, i) => button.setAttribute("aria-pressed", String(i === state)));
    this.painter.show(state);
    this.counts();
  }

  private fit(): void {
    const box = byId("field-box");
    if (box.clientWidth === 0) return;
    const scale = devicePixelRatio || 1;
    const height = Math.max(260, innerHeight * 0.62);
    const width = Math.floor(box.clientWidth * scale);
    if (!this.painter.fit(width, Math.round(height * scale), Math.round(TALLEST * scale), scale)) return;
    this.canvas.style.width = `${this.canvas.width / scale}px`;
    this.canvas.style.height = `${this.canvas.height / scale}px`;
    this.inspector.place();
  }
}
