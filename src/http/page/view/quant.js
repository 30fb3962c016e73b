// A Quant: what its header says, and what it seals.

import { bytesOf, chainPath, get, hexOf } from "../api.js";
import { add, badge, copy, count, el, put, short, trouble, when } from "../dom.js";
import { label, rulesOf } from "../rules.js";
import { hex } from "../verify/bytes.js";
import { header, meta } from "../verify/forms.js";
import { transactionRow } from "./chain.js";
import { chainOf } from "./chains.js";

const PAGE = 100;
const link = (name, rest = "") => `#/chain/${encodeURIComponent(name)}${rest}`;

export async function show(place, { name, which }, signal) {
  const [chain, answer] = await Promise.all([chainOf(name, signal), get(chainPath(name, `/quants/${encodeURIComponent(which)}`), signal)]);
  const quant = answer.quant ?? answer;
  const height = Number(quant.height ?? 0);
  const last = Number(chain.height ?? 0);
  const rules = rulesOf(chain);
  const step = (to, text) => (to >= 0 && to <= last ? el("a", { class: "button", href: link(name, `/quant/${to}`) }, text) : null);
  place.append(el("p", { class: "crumbs" }, el("a", { href: link(name) }, name)), el("div", { class: "head" }, el("h1", {}, `Quant ${height}`), el("div", { class: "row" }, step(height - 1, `← ${height - 1}`), step(height + 1, `${height + 1} →`))));
  add(place, checked(quant), fields(quant));
  const n = Number(quant.tx_count ?? 0);
  const list = el("div", { class: "list", role: "list" });
  const more = el("div", { class: "row" });
  place.append(el("h2", {}, n === 1 ? "1 transaction" : `${count(n)} transactions`), list, more);
  let at = Number(quant.tx_start ?? 0);
  const end = at + n;
  const load = async () => {
    if (at >= end) return;
    try {
      const page = await get(chainPath(name, `/transactions?from_index=${at}&limit=${Math.min(PAGE, end - at)}`), signal);
      const found = (page.transactions ?? []).filter((tx) => Number(tx.index ?? 0) < end);
      if (!found.length) return;
      list.append(...found.map((tx) => transactionRow(tx, rules, name)));
      at = Number(found.at(-1).index ?? 0) + 1;
      put(more, at < end ? el("button", { type: "button", on: { click: load } }, `More, ${count(end - at)} are left`) : null);
    } catch (error) {
      put(more, trouble(error));
    }
  };
  await load();
}

/** The page hashes the header itself: what the server says of it is not believed. */
function checked(quant) {
  try {
    const h = header(bytesOf(quant.header));
    meta(h, bytesOf(quant.meta));
    const same = hex(h.hash) === hexOf(quant.quant_hash);
    if (!same) throw new Error("the hash of the header is not the one that the server names");
    return el("p", { class: "verdict good" }, badge("sound", "good"), " This page hashed header and meta: they give the hash below.");
  } catch (error) {
    return el("p", { class: "verdict bad" }, badge(error.check ?? "hash", "bad"), ` ${error.message}`);
  }
}

function fields(quant) {
  let h;
  try {
    h = header(bytesOf(quant.header));
  } catch {
    return null;
  }
  const records = safe(() => meta(h, bytesOf(quant.meta))) ?? new Map();
  const kind = h.genesis ? "genesis" : h.fork ? "genesis of a fork" : h.final ? "final" : null;
  const whole = (value) => [el("code", { class: "whole" }, value), copy(value, "the hash")];
  const of = (bytes) => whole(hex(bytes));
  const anchors = bytesOf(quant.anchors);
  const rows = [
    ["hash", of(h.hash)],
    ["kind", kind],
    ["time", [when(h.timeMs), ` ${new Date(Number(h.timeMs)).toISOString()}`]],
    ["transactions", h.txCount ? `${h.txStart} to ${h.sum - 1n}` : "none"],
    ["work", h.powBits ? `${h.powBits} zero bits asked for, ${h.zeroBits} found` : null],
    ["hash algorithm", h.alg === 1 ? "SHA3-256" : "SHA-256"],
    ["previous", h.genesis ? null : of(h.prevHash)],
    ["tree of transactions", of(h.txRoot)],
    ["tree of all before", of(h.histRoot)],
    ["anchors", anchors.length ? anchorList(anchors) : null],
    ["state root", records.has(4) ? of(records.get(4).subarray(1)) : null],
    ["sealed by", records.has(3) ? `node ${records.get(3).reduce((sum, byte) => sum * 256 + byte, 0)}` : null],
    ["splits into", records.has(5) ? `${(records.get(5).length - 4) / 32} subchains` : null],
    ["note", records.has(128) ? label(records.get(128)) : null],
  ];
  return el("dl", { class: "facts" }, rows.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function anchorList(raw) {
  const rows = [];
  for (let at = 0; at + 76 <= raw.length; at += 76) {
    const height = raw.subarray(at + 36, at + 44).reduce((sum, byte) => sum * 256 + byte, 0);
    rows.push(el("li", {}, "Quant ", String(height), " of ", short(hex(raw.subarray(at + 4, at + 36)))));
  }
  return el("ul", { class: "plain" }, rows);
}

function safe(call) {
  try {
    return call();
  } catch {
    return null;
  }
}
