// The host's side: requests with the reader's token, and errors that say what to do.

const TOKEN = "llambo-token";

export interface Model {
  id: string;
  parent: string | null;
  max_model_len: number;
}

/** Why a request was not served. */
export class HostError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** What the reader can do; empty where the message says it. */
    readonly advice: string,
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

/** Kept for as long as this tab is open, and nowhere else. */
export const token = {
  get: (): string => sessionStorage.getItem(TOKEN) ?? "",
  set: (text: string): void => (text === "" ? sessionStorage.removeItem(TOKEN) : sessionStorage.setItem(TOKEN, text)),
};

/** Asks the host. Every answer that is not good is thrown as `HostError`. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const shown = token.get();
  if (shown !== "") headers.set("authorization", `Bearer ${shown}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new HostError(0, "unreachable", "The host does not answer.", "See whether it still runs, then try again.");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export async function models(): Promise<Model[]> {
  const response = await ask("/v1/models");
  const list = (await response.json()) as { data: Model[] };
  return list.data;
}

async function failure(response: Response): Promise<HostError> {
  const { status, headers } = response;
  const text = await response.text().catch(() => "");
  return told(status, text, headers.get("retry-after"), headers.get("x-request-id"));
}

/** An error as the host tells it, in the body of an answer or in the middle of a stream. */
export function told(status: number, body: string, retryAfter: string | null = null, requestId: string | null = null): HostError {
  let code = "";
  let message = body.slice(0, 500) || `The host answered ${status}.`;
  try {
    const { error } = JSON.parse(body) as { error: { code?: string; message?: string } };
    code = error.code ?? "";
    message = error.message ?? message;
  } catch {
    // no answer of a host of ours; something in between, maybe
  }
  return new HostError(status, code, message, advice(status, code, retryAfter), requestId);
}

function advice(status: number, code: string, retryAfter: string | null): string {
  if (status === 401) return "Give a token of this host: the button “Token” is at the top.";
  if (status === 403) return "Ask whoever runs this host to permit it (`tenants.*.may`), or use another token.";
  if (code === "context_length_exceeded") return "Begin a new chat, or send less.";
  if (status === 429) return retryAfter ? `Try again in ${retryAfter} s.` : "Try again in a moment.";
  if (status === 503) return "Try again when an isolate is free or the host has ended its work.";
  return "";
}
