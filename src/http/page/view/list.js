// A page of a chain's transactions, from an index on.

import { chainPath, get } from "../api.js";
import { add, el } from "../dom.js";
import { rulesOf } from "../rules.js";
import { transactionRow } from "./chain.js";
import { chainOf } from "./chains.js";

const PAGE = 100;
const link = (name, rest = "") => `#/chain/${encodeURIComponent(name)}${rest}`;

export async function show(place, { name, which }, signal) {
  const chain = await chainOf(name, signal);
  const rules = rulesOf(chain);
  const total = Number(chain.transactions ?? 0);
  const from = Math.max(0, Math.min(Number(/^\d{1,15}$/.test(which) ? which : 0), total - 1));
  const page = await get(chainPath(name, `/transactions?from_index=${from}&limit=${PAGE}`), signal);
  const found = page.transactions ?? [];
  const end = Number(found.at(-1)?.index ?? from) + 1;
  const older = from > 0 ? el("a", { class: "button", href: link(name, `/from/${Math.max(0, from - PAGE)}`) }, "← older") : null;
  const newer = end < total ? el("a", { class: "button", href: link(name, `/from/${end}`) }, "newer →") : null;
  const title = found.length ? `Transactions ${from} to ${end - 1}` : "No transactions";
  add(place, el("p", { class: "crumbs" }, el("a", { href: link(name) }, name)), el("div", { class: "head" }, el("h1", {}, title), el("div", { class: "row" }, older, newer)));
  add(place, el("div", { class: "list", role: "list" }, found.map((tx) => transactionRow(tx, rules, name))));
}
