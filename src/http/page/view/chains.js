// All chains: heads, rates, and a line of what happens on each.

import { chainPath, every, get, hexOf, listChains, post } from "../api.js";
import { badge, count, dialog, el, glyph, put, rate, say, short, trouble } from "../dom.js";
import { rulesOf, words } from "../rules.js";
import { note, rateOf, spark } from "./spark.js";

const SHOWN = 200;
const EVERY_MS = 2000;

export async function show(place, _, signal) {
  const rows = new Map();
  const list = el("div", { class: "chains", role: "list" });
  const tiles = el("div", { class: "tiles" });
  const told = el("div");
  const filter = el("input", { type: "search", placeholder: "Begins with…", "aria-label": "Only names that begin with", maxlength: 255, spellcheck: "false" });
  const begin = el("button", { class: "main", on: { click: bang } }, "Bang a chain");
  place.append(el("div", { class: "head" }, el("h1", {}, "Chains"), el("div", { class: "row" }, filter, begin)), tiles, told, list);
  let wanted = "";
  const turn = async () => {
    const prefix = filter.value.trim().toLowerCase();
    const { chains, more } = await listChains(prefix, SHOWN, signal);
    if (prefix !== wanted) rows.clear();
    wanted = prefix;
    put(told);
    draw(list, rows, chains, prefix);
    put(tiles, ...summary(chains, more));
  };
  const failed = (error) => put(told, trouble(error));
  filter.addEventListener("input", () => turn().catch(failed));
  every(EVERY_MS, signal, turn, failed);
}

function summary(chains, more) {
  const sum = (name) => chains.reduce((all, chain) => all + Number(chain[name] ?? 0), 0);
  const rates = chains.reduce((all, chain) => all + rateOf(chain.name), 0);
  const plus = more ? "+" : "";
  const tile = (value, what) => el("div", { class: "tile" }, el("strong", {}, value), el("span", {}, what));
  return [
    tile(count(chains.length) + plus, "chains"),
    tile(count(sum("height") + chains.length) + plus, "Quants"),
    tile(count(sum("transactions")) + plus, "transactions"),
    tile(count(sum("pool")), "in pools"),
    tile(rate(rates), "now"),
  ];
}

function draw(list, rows, chains, prefix) {
  const names = new Set(chains.map((chain) => chain.name));
  for (const name of rows.keys()) if (!names.has(name)) rows.delete(name);
  for (const chain of chains) {
    note(chain);
    const row = rows.get(chain.name) ?? makeRow(chain);
    rows.set(chain.name, row);
    row.update(chain);
  }
  const nodes = chains.map((chain) => rows.get(chain.name).node);
  const same = list.children.length === nodes.length && nodes.every((node, i) => list.children[i] === node);
  if (!same) put(list, nodes);
  if (!nodes.length) {
    const why = prefix ? `No chain's name begins with “${prefix}”.` : "There is no chain yet. Bang one, here or with qbc bang NAME.";
    put(list, el("p", { class: "empty" }, why));
  }
}

function makeRow(chain) {
  const cell = (kind) => el("span", { class: kind });
  const [height, total, pool, speed, line, head] = ["height", "total", "pool", "speed", "line", "tip"].map(cell);
  const rules = rulesOf(chain);
  const about = [chain.split ? "split" : null, chain.forked_from ? "fork" : null, chain.closed ? "closed" : null].filter(Boolean);
  const badges = el("span", { class: "badges" }, words(rules).slice(0, 2).map((word) => badge(word)), about.map((word) => badge(word, "mark")));
  const name = el("span", { class: "name" }, glyph(hexOf(chain.chain_id)), el("span", {}, el("b", {}, chain.name), badges));
  const node = el("div", { role: "listitem" }, el("a", { class: "row-link chain-row", href: `#/chain/${encodeURIComponent(chain.name)}` }, name, line, speed, total, pool, height, head));
  const set = (place, value, what) => {
    const shown = `${value} ${what}`;
    if (place.dataset.shown === shown) return;
    place.dataset.shown = shown;
    put(place, el("b", {}, value), el("small", {}, what));
  };
  const update = (now) => {
    set(speed, rate(rateOf(now.name)), "rate");
    set(total, count(now.transactions), "transactions");
    set(pool, count(now.pool), "in the pool");
    set(height, count(now.height), "height");
    put(line, spark(now.name));
    put(head, short(hexOf(now.quant_hash)), el("small", {}, "head"));
  };
  return { node, update };
}

function bang() {
  const option = (value, text) => el("option", { value }, text);
  const content = el("select", {}, option("CONTENT_TEXT", "text"), option("CONTENT_JSON", "JSON"), option("CONTENT_BYTES", "bytes"), option("CONTENT_MSGPACK", "MessagePack"));
  const name = el("input", { required: true, maxlength: 255, pattern: "[a-z0-9][a-z0-9._\\-]*(/[a-z0-9][a-z0-9._\\-]*)*", spellcheck: "false", autocapitalize: "off", autofocus: true });
  const fields = [
    ["name", "Name", name, "a-z 0-9 . _ -, segments with / between"],
    ["content", "Content", content],
    ["leap_ms", "Seal by itself after, ms", el("input", { type: "number", min: 1, placeholder: "only by hand" })],
    ["keyed", "Keyed: its Quants commit to the latest of each key", el("input", { type: "checkbox" })],
  ];
  dialog("Bang a chain", fields, "Bang", async (given) => {
    const constitution = { content: given.content, keyed: given.keyed === "on", ...(given.leap_ms && { leap_ms: given.leap_ms }) };
    const made = await post("/v1/chains", { name: given.name, constitution, request_id: requestId() });
    say(`Chain ${made.name} exists`);
    location.hash = `#/chain/${encodeURIComponent(made.name)}`;
  });
}

/** A fresh id for a request that may have to be sent twice. */
export function requestId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A chain by its name. */
export async function chainOf(name, signal) {
  return (await get(chainPath(name), signal)).chain;
}
