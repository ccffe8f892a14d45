// The host's own events, for as long as the page is open: read again after every interruption.

import { ask, HostError } from "./host";
import { events, type SentEvent } from "./sse";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15_000;

/** Reads events until the page goes. `lost` is told why, each time; what only a person can mend is not tried again before `again` is called. */
export class Watching {
  private reading: AbortController | undefined;
  private timer = 0;
  private wait = FIRST_WAIT_MS;

  constructor(
    private readonly path: string,
    private readonly take: (event: SentEvent) => void,
    private readonly lost: (error: unknown, retriesInMs: number | undefined) => void,
  ) {}

  get isOn(): boolean {
    return this.reading !== undefined || this.timer !== 0;
  }

  again(): void {
    this.end();
    void this.read();
  }

  end(): void {
    clearTimeout(this.timer);
    this.timer = 0;
    this.reading?.abort();
    this.reading = undefined;
  }

  private async read(): Promise<void> {
    const reading = new AbortController();
    this.reading = reading;
    let error: unknown = new HostError(0, "", "The host ended its report.", "");
    try {
      const response = await ask(this.path, { signal: reading.signal });
      if (response.body) {
        for await (const event of events(response.body)) {
          if (this.reading !== reading) return;
          this.wait = FIRST_WAIT_MS;
          this.take(event);
        }
      }
    } catch (thrown) {
      error = thrown;
    }
    // somebody else reads, or nobody wants to
    if (this.reading !== reading) return;
    this.reading = undefined;
    const isForPeople = error instanceof HostError && [400, 401, 403, 404].includes(error.status);
    if (isForPeople) {
      this.lost(error, undefined);
      return;
    }
    this.lost(error, this.wait);
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      void this.read();
    }, this.wait);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
  }
}
