// Search: by name, by hash, by key, by index. In the chain that was looked at, and over all chains.

import { chainPath, get, hexOf, listChains } from "../api.js";
import { el, glyph, put, trouble } from "../dom.js";
import { rulesOf } from "../rules.js";
import { transactionRow } from "./chain.js";
import { chainOf } from "./chains.js";

const CHAINS = 1000;
const QUANTS = 5000;
const link = (name, rest = "") => `#/chain/${encodeURIComponent(name)}${rest}`;

export async function show(place, { query }, signal) {
  const text = (query.get("q") ?? "").trim();
  const here = query.get("in");
  const found = el("div", { class: "found" });
  const state = el("p", { class: "quiet" }, "Looking…");
  document.getElementById("query").value = text;
  place.append(el("div", { class: "head" }, el("h1", {}, `“${text}”`)), found, state);
  const add = (...parts) => found.append(...parts.filter(Boolean));
  const looks = [inChain(text, here, signal), byName(text, signal), byHash(text, here, signal)];
  for (const look of looks) {
    try {
      add(...(await look));
    } catch (error) {
      if (!signal.aborted) add(trouble(error));
    }
  }
  put(state, found.children.length ? null : nothing(text, here));
}

function nothing(text, here) {
  const where = here ? `in ${here}, and no chain begins so` : "begins so, or has this id or head";
  return here ? `Nothing is known by this ${where}.` : `No chain ${where}. Open a chain to search its keys, indexes and Quants.`;
}

/** The number of a transaction or a Quant, or a key, of the chain that was looked at. */
async function inChain(text, name, signal) {
  if (!name) return [];
  const out = [];
  const rules = rulesOf(await chainOf(name, signal));
  const [, height] = /^#(\d{1,19})$/.exec(text) ?? [];
  if (height !== undefined) await quietly(async () => {
    await get(chainPath(name, `/quants/${height}`), signal);
    out.push(row(`Quant ${height} of ${name}`, link(name, `/quant/${height}`)));
  });
  if (/^\d{1,19}$/.test(text)) await quietly(async () => {
    const answer = await get(chainPath(name, `/transactions/${text}`), signal);
    out.push(el("h2", { class: "exact" }, `Transaction ${text} of ${name}`), transactionRow(answer.transaction ?? answer, rules, name));
  });
  await quietly(async () => {
    const page = await get(chainPath(name, `/history/${encodeURIComponent(text)}?newest_first=true&page_size=50`), signal);
    if (page.transactions?.length) out.push(el("h2", { class: "exact" }, `Key “${text}” in ${name}, newest first`), el("div", { class: "list" }, page.transactions.map((tx) => transactionRow(tx, rules, name))));
  });
  if (rules?.ledger) await quietly(async () => {
    const { balance } = await get(chainPath(name, `/balance/${encodeURIComponent(text)}`), signal);
    const page = await get(chainPath(name, `/transfers/${encodeURIComponent(text)}?newest_first=true&page_size=50`), signal);
    if (page.transactions?.length) out.push(el("h2", { class: "exact" }, `Account “${text}” in ${name} has ${balance ?? 0}`), el("div", { class: "list" }, page.transactions.map((tx) => transactionRow(tx, rules, name))));
  });
  return out;
}

async function byName(text, signal) {
  if (!/^[a-z0-9._\-/]{1,255}$/.test(text.toLowerCase())) return [];
  const { chains } = await listChains(text.toLowerCase(), 50, signal);
  return chains.length ? [el("h2", {}, "Chains"), el("div", { class: "list" }, chains.map((chain) => row(chain.name, link(chain.name), chain)))] : [];
}

/** A chain's id, the hash of a head, or of an older Quant of the chain that was looked at; or the beginning of one. */
async function byHash(text, here, signal) {
  const wanted = text.toLowerCase();
  if (!/^[0-9a-f]{6,64}$/.test(wanted)) return [];
  const out = [];
  const { chains } = await listChains("", CHAINS, signal);
  for (const chain of chains) {
    if (hexOf(chain.chain_id).startsWith(wanted)) out.push(row(`Chain ${chain.name}, by its id`, link(chain.name), chain));
    if (hexOf(chain.quant_hash).startsWith(wanted)) out.push(row(`Head of ${chain.name}, Quant ${chain.height ?? 0}`, link(chain.name, `/quant/${chain.height ?? 0}`), chain));
  }
  if (here) out.push(...(await oldQuants(here, wanted, signal)));
  return out.length ? [el("h2", {}, "By hash"), el("div", { class: "list" }, out)] : [];
}

/** The newest Quants of a chain, page by page, downward. */
async function oldQuants(name, wanted, signal) {
  const { height = 0 } = await chainOf(name, signal);
  const out = [];
  for (let end = Number(height); end >= 0 && end > Number(height) - QUANTS && !out.length; end -= 1000) {
    const from = Math.max(0, end - 999);
    const page = await get(chainPath(name, `/quants?from_height=${from}&page_size=${end - from + 1}`), signal);
    for (const quant of page.quants ?? []) {
      if (hexOf(quant.quant_hash).startsWith(wanted)) out.push(row(`Quant ${quant.height ?? 0} of ${name}`, link(name, `/quant/${quant.height ?? 0}`)));
    }
  }
  return out;
}

function row(text, href, chain) {
  return el("div", {}, el("a", { class: "row-link found-row", href }, chain ? glyph(hexOf(chain.chain_id), 20) : null, el("span", {}, text)));
}

/** What is not there is not found; nothing else is passed over. */
async function quietly(look) {
  try {
    await look();
  } catch (error) {
    if (error.status !== 404 && error.status !== 400 && error.status !== 409 && error.status !== 412) throw error;
  }
}
