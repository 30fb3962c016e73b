// A chain, live: its ribbon of Quants, its transactions as they come, and what may be done to it.

import { bytesOf, chainPath, every, field, follow, get, hexOf, post } from "../api.js";
import { add, badge, copy, count, dialog, el, glyph, put, rate, say, short, size, trouble, when } from "../dom.js";
import { label, line, rulesOf, words } from "../rules.js";
import { trusted } from "../trust.js";
import { chainOf, requestId } from "./chains.js";
import { note, rateOf, spark } from "./spark.js";

const QUANTS = 24;
const TRANSACTIONS = 40;

const link = (name, rest = "") => `#/chain/${encodeURIComponent(name)}${rest}`;

export async function show(place, { name }, signal) {
  const chain = await chainOf(name, signal);
  const rules = rulesOf(chain);
  const state = { name, rules, chain, transactions: [], quants: [] };
  const told = el("div");
  const parts = { facts: el("div", { class: "tiles" }), ribbon: el("div", { class: "ribbon", tabindex: 0, role: "list", "aria-label": "Quants, newest first" }), list: el("div", { class: "list", role: "list" }), older: el("div", { class: "row" }) };
  add(place, title(chain, rules), strange(chain), told, parts.facts, el("h2", {}, "Quants"), parts.ribbon);
  place.append(el("div", { class: "columns" }, el("section", { "aria-label": "Transactions" }, el("h2", {}, "Transactions"), parts.list, parts.older), side(state)));
  const turn = async () => {
    await refresh(state, signal);
    put(told);
    draw(state, parts);
  };
  await turn();
  follow(name, signal, turn, (error) => put(told, trouble(error)));
  every(2000, signal, () => {
    note(state.chain);
    drawFacts(state, parts.facts);
  });
}

function title(chain, rules) {
  const id = hexOf(chain.chain_id);
  const from = chain.forked_from;
  const origin = from ? el("a", { href: link(from.name), class: "badge mark" }, `fork of ${from.name} at ${from.height ?? 0}`) : null;
  const above = chain.name.includes("/") ? el("a", { href: link(chain.name.replace(/\/[^/]*$/, "")), class: "badge mark" }, "below another") : null;
  return el(
    "div",
    { class: "head" },
    el("div", { class: "title" }, glyph(id, 44), el("div", {}, el("h1", {}, chain.name), el("p", { class: "id" }, short(id, 12), copy(id, "the chain's id")))),
    el("div", { class: "badges" }, words(rules).map((word) => badge(word)), origin, above, chain.closed ? badge("closed", "mark") : null),
  );
}

/** The name stands for another chain than it did when this browser first saw it. */
function strange(chain) {
  const id = hexOf(chain.chain_id);
  const known = trusted(chain.name, id);
  if (!known || known.id === id) return null;
  return el("div", { class: "trouble", role: "alert" }, el("p", {}, `This browser knew ${chain.name} as another chain, ${known.id.slice(0, 16)}…, since ${new Date(known.since).toISOString().slice(0, 10)}. A name proves nothing: ask whoever runs this cluster.`));
}

async function refresh(state, signal) {
  state.chain = await chainOf(state.name, signal);
  const { height = 0, transactions = 0 } = state.chain;
  const fromHeight = Math.max(0, Number(height) - QUANTS + 1);
  const fromIndex = Math.max(0, Number(transactions) - TRANSACTIONS);
  const [quants, page] = await Promise.all([
    get(chainPath(state.name, `/quants?from_height=${fromHeight}&page_size=${QUANTS}`), signal),
    Number(transactions) ? get(chainPath(state.name, `/transactions?from_index=${fromIndex}&limit=${TRANSACTIONS}`), signal) : { transactions: [] },
  ]);
  state.quants = (quants.quants ?? []).reverse();
  state.transactions = (page.transactions ?? []).reverse();
}

function draw(state, parts) {
  note(state.chain);
  drawFacts(state, parts.facts);
  drawRibbon(state, parts.ribbon);
  drawTransactions(state, parts.list);
  const first = Number(state.transactions.at(-1)?.index ?? 0);
  put(parts.older, first > 0 ? el("a", { class: "button", href: link(state.name, `/from/${Math.max(0, first - 100)}`) }, "Older") : null);
}

function drawFacts({ chain, name }, place) {
  const tile = (value, what) => el("div", { class: "tile" }, el("strong", {}, value), el("span", {}, what));
  const pool = Number(chain.pool ?? 0);
  put(
    place,
    tile(count(chain.height), "height"),
    tile(count(chain.transactions), "transactions"),
    tile(count(pool), pool ? `in the pool, ${size(chain.pool_bytes)}` : "in the pool"),
    el("div", { class: "tile wide" }, el("strong", {}, rate(rateOf(name))), spark(name, 240, 34)),
    chain.mining ? tile(`${count(chain.mining.tries)}`, `tries for Quant ${chain.mining.height}, of about ${count(chain.mining.tries_expected)}`) : null,
  );
}

function drawRibbon({ chain, quants, name }, place) {
  const pool = Number(chain.pool ?? 0);
  const open = chain.closed
    ? null
    : el("div", { class: "block pool", role: "listitem" }, el("span", {}, "pool"), el("strong", {}, count(pool)), el("small", {}, chain.mining ? `mining, ${chain.mining.bits} bits` : pool ? "not sealed yet" : "empty"));
  const keep = place.scrollLeft;
  const blocks = quants.map((quant) => {
    const n = Number(quant.tx_count ?? 0);
    const anchors = bytesOf(quant.anchors).length / 76;
    const what = anchors ? `${anchors} anchored` : `${count(n)} tx`;
    const height = quant.height ?? 0;
    const made = Number(height) === 0 ? "genesis" : what;
    return el("a", { class: "block", role: "listitem", "data-height": height, href: link(name, `/quant/${height}`) }, el("span", {}, `#${height}`), el("strong", {}, made), el("small", {}, short(hexOf(quant.quant_hash), 4)), el("small", {}, when(quant.time_ms)));
  });
  const known = new Set([...place.querySelectorAll("[data-height]")].map((block) => block.dataset.height));
  if (known.size) for (const block of blocks) if (!known.has(block.dataset.height)) block.classList.add("fresh");
  put(place, open, blocks);
  place.scrollLeft = keep;
}

function drawTransactions({ transactions, rules, name, chain }, place) {
  const known = new Set([...place.querySelectorAll("[data-index]")].map((row) => row.dataset.index));
  const rows = transactions.map((tx) => transactionRow(tx, rules, name));
  if (known.size) for (const row of rows) if (!known.has(row.dataset.index)) row.classList.add("fresh");
  const split = chain.split ? "It is split: what is injected goes to its subchains." : "Nothing was injected yet.";
  const focused = document.activeElement?.closest?.("[data-index]")?.dataset.index;
  put(place, rows.length ? rows : el("p", { class: "empty" }, split));
  if (focused) place.querySelector(`[data-index="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
}

const TYPES = { 1: "constitution change", 2: "erasure", 4: "credit", 5: "claim of the split" };

/** A transaction in a list. */
export function transactionRow(tx, rules, name) {
  const index = tx.index ?? 0;
  const key = bytesOf(tx.key);
  const shown = tx.erasure ? "erased" : (TYPES[tx.type] ?? said(bytesOf(tx.payload), rules));
  const sealed = tx.height !== undefined;
  return el(
    "div",
    { role: "listitem", "data-index": index },
    el(
      "a",
      { class: "row-link tx-row", href: link(name, `/tx/${index}`) },
      el("span", { class: "index" }, `${index}`),
      el("span", { class: "payload" }, key.length ? badge(label(key), "key") : null, el("span", {}, shown)),
      el("span", { class: sealed ? "sealed" : "pooled" }, sealed ? `#${tx.height}` : "pool"),
      el("span", { class: "at" }, when(tx.inject_ms)),
    ),
  );
}

/** A transfer reads as one; everything else as it is. */
function said(payload, rules) {
  const shown = line(payload, rules);
  if (!rules?.ledger) return shown;
  try {
    const { sender, receiver, amount, memo } = JSON.parse(new TextDecoder().decode(payload));
    return `${sender} → ${receiver}  ${amount}${memo ? `  “${memo}”` : ""}`;
  } catch {
    return shown;
  }
}

function side(state) {
  const { chain, rules } = state;
  const parts = [];
  if (!chain.closed) parts.push(injectForm(state), actions(state));
  if (rules?.keyed || rules?.ledger) parts.push(lookup(state));
  if (chain.split) parts.push(subchains(chain));
  return el("aside", { "aria-label": "What may be done" }, parts);
}

function injectForm({ name, rules, chain }) {
  const answer = el("div", { "aria-live": "polite" });
  if (rules?.authors) {
    return el("div", { class: "card" }, el("h2", {}, "Inject"), el("p", { class: "quiet" }, "Only its authors may write here, with a signature: qbc inject NAME --sign KEYFILE."));
  }
  const button = el("button", { class: "main" }, rules?.ledger ? "Transfer" : "Inject");
  const input = (attributes) => el("input", { spellcheck: "false", autocomplete: "off", ...attributes });
  const rows = rules?.ledger
    ? [input({ name: "sender", placeholder: "Sender", "aria-label": "Sender", required: true }), input({ name: "receiver", placeholder: "Receiver", "aria-label": "Receiver", required: true }), input({ name: "amount", placeholder: "Amount", "aria-label": "Amount", inputmode: "numeric", pattern: "[1-9][0-9]*", required: true }), input({ name: "memo", placeholder: "Memo", "aria-label": "Memo" })]
    : [el("textarea", { name: "data", rows: 3, placeholder: rules?.content === "json" ? '{"any": "JSON"}' : "The payload", "aria-label": "The payload", spellcheck: "false" }), el("div", { class: "row" }, input({ name: "key", placeholder: "Key", "aria-label": "Key", maxlength: 512 }), input({ name: "id", placeholder: "Id", "aria-label": "Id", maxlength: 64 }))];
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const runs = (await post(chainPath(name, "/transactions"), request(Object.fromEntries(new FormData(form)), rules))).runs ?? [];
      const run = runs[0] ?? {};
      const where = run.chain && run.chain !== chain.name ? ` of ${run.chain}` : "";
      put(answer, el("p", { class: "done" }, `${run.duplicate ? "It was there already" : "Durable"}: transaction `, el("a", { href: link(run.chain ?? name, `/tx/${run.first_index ?? 0}`) }, `${run.first_index ?? 0}${where}`)));
      if (form.elements.data) form.elements.data.value = "";
    } catch (error) {
      put(answer, trouble(error));
    }
    button.disabled = false;
  };
  const form = el("form", { class: "card", id: "inject", on: { submit } }, el("h2", {}, rules?.ledger ? "Transfer" : "Inject"), rows, el("div", { class: "row end" }, button), answer);
  return form;
}

function request(given, rules) {
  const body = rules?.ledger ? JSON.stringify({ sender: given.sender, receiver: given.receiver, amount: given.amount, ...(given.memo && { memo: given.memo }) }) : given.data;
  const transaction = { payload: field(body ?? "") };
  if (rules?.ledger) transaction.type = 3;
  if (given.key) transaction.key = field(given.key);
  if (given.id) transaction.id = field(given.id);
  if (rules?.erasable) transaction.salt = field(crypto.getRandomValues(new Uint8Array(32)));
  return { transactions: [transaction], request_id: requestId() };
}

function actions(state) {
  const { name } = state;
  const answer = el("div", { "aria-live": "polite" });
  const leap = el("button", { id: "leap", type: "button" }, "Leap");
  leap.addEventListener("click", async () => {
    leap.disabled = true;
    put(answer, el("p", { class: "quiet" }, state.rules?.workMinimum ? "It is being mined…" : "It is being sealed…"));
    try {
      const { head } = await post(chainPath(name, "/leap"), { request_id: requestId() });
      const height = head?.quant?.height ?? 0;
      put(answer, el("p", { class: "done" }, "Sealed: ", el("a", { href: link(name, `/quant/${height}`) }, `Quant ${height}`)));
    } catch (error) {
      put(answer, trouble(error));
    }
    leap.disabled = false;
  });
  const fork = el("button", { type: "button", on: { click: () => forkDialog(state) } }, "Fork…");
  return el("div", { class: "card" }, el("h2", {}, "Seal, or part"), el("p", { class: "quiet" }, "A leap seals the pool into the next Quant. A fork shares the history up to a height and goes its own way."), el("div", { class: "row" }, leap, fork), answer);
}

function forkDialog({ name, chain }) {
  const fields = [
    ["name", "Name of the fork", el("input", { required: true, maxlength: 255, spellcheck: "false", autocapitalize: "off", autofocus: true })],
    ["at_height", "The last height that both share", el("input", { type: "number", min: 0, max: chain.height ?? 0, value: chain.height ?? 0, required: true })],
  ];
  dialog(`Fork ${name}`, fields, "Fork", async (given) => {
    const made = await post(chainPath(name, "/fork"), { name: given.name, at_height: given.at_height, request_id: requestId() });
    say(`Fork ${made.name} exists`);
    location.hash = link(made.name);
  });
}

/** The newest of a key, or what an account has. */
function lookup({ name, rules }) {
  const answer = el("div", { "aria-live": "polite" });
  const what = rules.ledger ? "Account" : "Key";
  const input = el("input", { name: "key", placeholder: what, "aria-label": what, required: true, spellcheck: "false" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      const path = encodeURIComponent(input.value);
      if (rules.ledger) {
        const { balance } = await get(chainPath(name, `/balance/${path}`));
        put(answer, el("p", { class: "big" }, el("strong", {}, count(balance)), ` ${input.value} has`));
      } else {
        const { transaction } = await get(chainPath(name, `/latest/${path}`));
        put(answer, transactionRow(transaction, rules, name));
      }
    } catch (error) {
      put(answer, trouble(error));
    }
  };
  const form = el("form", { class: "card", on: { submit } }, el("h2", {}, rules.ledger ? "Balance" : "Latest"), el("div", { class: "row" }, input, el("button", {}, "Look")), answer);
  return form;
}

function subchains({ split }) {
  const rows = (split.subchains ?? []).map((one) => el("li", {}, el("a", { href: link(one.name) }, glyph(hexOf(one.chain_id), 18), ` ${one.name}`), el("small", {}, ` group ${one.group ?? 0}`)));
  const how = split.done ? `since Quant ${split.height ?? 0}` : "under way";
  return el("div", { class: "card" }, el("h2", {}, "Subchains"), el("p", { class: "quiet" }, `The split is ${split.done ? "done" : ""} ${how}.`.replace("  ", " ")), el("ul", { class: "plain" }, rows));
}
