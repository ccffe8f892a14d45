// What the host tells each second, and what that says of the second that passed.

/** An event `status` of `/cluster/watch`. */
export interface Moment {
  status: {
    version: string;
    strategy: string;
    uptime_seconds: number;
    draining: boolean;
    queue: { waiting: number; max_waiting: number; in_flight: number; max_in_flight: number };
    totals: { requests: number; finished: number; failed: number; cancelled: number; rejected: number; input_tokens: number; output_tokens: number };
    models: { name: string; n_context: number; n_params: number; n_sequences: number; n_running: number; n_waiting: number }[];
    resident_bytes: number;
  };
  generated_tokens: number;
  span: { seconds: number; first_tokens: number; ttft_p50_ms: number | null; ttft_p95_ms: number | null } | null;
}

/** What happened in one second; of the first moment nothing is known. */
export interface Rates {
  tokens: number;
  requests: number;
  failed: number;
  rejected: number;
  cancelled: number;
}

export function rates(before: Moment, now: Moment): Rates | undefined {
  const seconds = now.span?.seconds ?? 0;
  // another host answers, or the same one after a restart: its counts began anew
  const isSame = now.status.uptime_seconds >= before.status.uptime_seconds && now.generated_tokens >= before.generated_tokens;
  if (seconds <= 0 || !isSame) return undefined;
  const [a, b] = [before.status.totals, now.status.totals];
  return {
    tokens: (now.generated_tokens - before.generated_tokens) / seconds,
    requests: (b.requests - a.requests) / seconds,
    failed: (b.failed - a.failed) / seconds,
    rejected: (b.rejected - a.rejected) / seconds,
    cancelled: (b.cancelled - a.cancelled) / seconds,
  };
}

export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = n;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function duration(seconds: number): string {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}
