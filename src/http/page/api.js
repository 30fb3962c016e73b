// What the node answers over HTTP/JSON, and what it pushes.

import { fromBase64, hex } from "./verify/bytes.js";

/** An answer that is none, in the server's own words. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || `the node answers with status ${status}`);
    this.status = status;
    this.reason = body?.reason;
  }
}

/** The path of a chain; its name is one segment. */
export const chainPath = (name, rest = "") => `/v1/chains/${encodeURIComponent(name)}${rest}`;

const listeners = new Set();

/** Calls back with true or false as the node answers or does not. */
export function onLink(listener) {
  listeners.add(listener);
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    listeners.forEach((listener) => listener(false));
    throw new Problem(0, { detail: "the node does not answer; what is shown is what it said last" });
  }
  listeners.forEach((listener) => listener(true));
  if (answer.ok) return answer;
  let body = null;
  try {
    body = await answer.json();
  } catch {
    // Something between us and the node answered.
  }
  throw new Problem(answer.status, body);
}

/** GET of JSON. */
export async function get(path, signal) {
  return (await ask(path, { signal, headers: { accept: "application/json" } })).json();
}

/** GET of text as it is. */
export async function getText(path, signal) {
  return (await ask(path, { signal })).text();
}

/** POST of JSON. */
export async function post(path, body) {
  const headers = { "content-type": "application/json", accept: "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** The bytes of a field, which may be absent. */
export const bytesOf = (field) => fromBase64(field ?? "") ?? new Uint8Array(0);

/** The hex of a field. */
export const hexOf = (field) => hex(bytesOf(field));

/** Bytes or text as a field. */
export function field(value) {
  const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
  let out = "";
  for (const byte of bytes) out += String.fromCharCode(byte);
  return btoa(out);
}

/** All chains whose names begin so, up to `most`. */
export async function listChains(prefix, most, signal) {
  const chains = [];
  let token = "";
  do {
    const size = Math.min(1000, most - chains.length);
    const query = new URLSearchParams({ page_size: size, ...(prefix && { prefix }), ...(token && { page_token: token }) });
    const page = await get(`/v1/chains?${query}`, signal);
    chains.push(...(page.chains ?? []));
    token = page.next_page_token;
  } while (token && chains.length < most);
  return { chains, more: !!token };
}

/** Runs a task now and then until the signal; a failure is told and tried again. */
export function every(ms, signal, task, failed = () => {}) {
  let timer;
  const turn = async () => {
    // Nobody looks: nothing is asked.
    if (!document.hidden) {
      try {
        await task();
      } catch (error) {
        if (signal.aborted) return;
        failed(error);
      }
    }
    if (!signal.aborted) timer = setTimeout(turn, ms);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  turn();
}

const EVENTS = ["message", "begin", "transactions", "quant", "head", "heartbeat", "split"];

/**
 * Calls `changed` soon after something happened on a chain: pushed by its tail, and asked for now and then where there is no
 * tail. What changed is read by who is called: so a burst costs one read.
 */
export function follow(name, signal, changed, failed) {
  let [due, running] = [false, false];
  const run = async () => {
    due = true;
    if (running) return;
    running = true;
    while (due && !signal.aborted) {
      due = false;
      try {
        await changed();
      } catch (error) {
        if (!signal.aborted) failed(error);
      }
      await new Promise((later) => setTimeout(later, 150));
    }
    running = false;
  };
  let source = null;
  const close = () => {
    source?.close();
    source = null;
  };
  // A browser has six connections to a node, for all its windows: those that nobody looks at give theirs back.
  const open = () => {
    close();
    if (document.hidden || signal.aborted) return;
    source = new EventSource(chainPath(name, "/tail?from_now=true&alone=true"));
    for (const event of EVENTS) source.addEventListener(event, run);
    source.addEventListener("open", run);
  };
  open();
  document.addEventListener("visibilitychange", open, { signal });
  // A tail that is refused does not come back by itself; one that broke does.
  every(1500, signal, async () => {
    if (source?.readyState !== EventSource.OPEN) await run();
  });
  signal.addEventListener("abort", close);
}
