// A transaction, and its proof, verified here: no answer of the server is believed.

import { bytesOf, chainPath, get, getText, hexOf } from "../api.js";
import { badge, copy, el, put, short, size, trouble, when } from "../dom.js";
import { label, payloadText, rulesOf } from "../rules.js";
import { forget, trusted } from "../trust.js";
import { fromHex, hex } from "../verify/bytes.js";
import { Refused, verifyProof } from "../verify/proof.js";
import { chainOf } from "./chains.js";

const link = (name, rest = "") => `#/chain/${encodeURIComponent(name)}${rest}`;
const AGAIN_MS = 2000;

export async function show(place, { name, which }, signal) {
  const chain = await chainOf(name, signal);
  await meetAbove(name, signal);
  const rules = rulesOf(chain);
  const read = async () => {
    const answer = await get(chainPath(name, `/transactions/${encodeURIComponent(which)}`), signal);
    return answer.transaction ?? answer;
  };
  const tx = await read();
  const index = Number(tx.index ?? 0);
  const last = Number(chain.transactions ?? 0) - 1;
  const step = (to, text) => (to >= 0 && to <= last ? el("a", { class: "button", href: link(name, `/tx/${to}`) }, text) : null);
  place.append(el("p", { class: "crumbs" }, el("a", { href: link(name) }, name)), el("div", { class: "head" }, el("h1", {}, `Transaction ${index}`), el("div", { class: "row" }, step(index - 1, `← ${index - 1}`), step(index + 1, `${index + 1} →`))));
  const facts = el("div");
  const proof = el("section", { class: "proof", "aria-label": "Proof" });
  place.append(facts, payload(tx, rules), proof);
  await settle({ name, tx, read, facts, proof, chain, signal });
}

/** The proof of a subchain ends in a chain above it: their ids are noted too, where they were never seen. */
async function meetAbove(name, signal) {
  for (let above = name; above.includes("/"); ) {
    above = above.replace(/\/[^/]*$/, "");
    if (trusted(above)) continue;
    try {
      trusted(above, hexOf((await chainOf(above, signal)).chain_id));
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }
}

/** Shows the facts; once a Quant seals the transaction, its proof. */
async function settle(about) {
  const { facts, proof, signal } = about;
  put(facts, fields(about.tx, about.name));
  if (about.tx.height !== undefined) return prove(about);
  put(proof, el("p", { class: "quiet" }, "It is durable, and in the pool: what no Quant seals yet cannot be proved. This page looks again until one does."));
  await new Promise((later) => setTimeout(later, AGAIN_MS));
  if (signal.aborted) return undefined;
  return settle({ ...about, tx: await about.read() });
}

function fields(tx, name) {
  const part = (value) => (value && bytesOf(value).length ? label(bytesOf(value)) : null);
  const author = hexOf(tx.author);
  const sealed = tx.height !== undefined;
  const rows = [
    ["sealed by", sealed ? el("a", { href: link(name, `/quant/${tx.height}`) }, `Quant ${tx.height}`) : badge("pool")],
    ["injected", [when(tx.inject_ms), ` ${new Date(Number(tx.inject_ms)).toISOString()}`]],
    ["key", part(tx.key)],
    ["id", part(tx.id)],
    ["author", author ? [el("code", { class: "whole" }, author), copy(author, "the author's key")] : null],
    ["erased", tx.erasure ? `by transaction ${tx.erasure.index ?? 0}` : null],
  ];
  return el("dl", { class: "facts" }, rows.filter(([, value]) => value).map(([what, value]) => [el("dt", {}, what), el("dd", {}, value)]));
}

function payload(tx, rules) {
  if (tx.erasure) return el("p", { class: "empty" }, "The payload is erased. Its hash stays, and so do all proofs.");
  const bytes = bytesOf(tx.payload);
  const shown = tx.type === 1 || tx.type === 2 || tx.type === 5 ? payloadText(bytes, { content: "msgpack" }) : payloadText(bytes, rules);
  return el("figure", { class: "payload-box" }, el("figcaption", {}, `Payload · ${shown.kind} · ${size(bytes.length)}`), el("pre", { id: "payload", tabindex: 0 }, shown.text));
}

async function prove(about) {
  const { name, tx, proof, signal } = about;
  put(proof, el("p", { class: "quiet" }, "Its proof is fetched and checked…"));
  let source;
  try {
    source = await getText(chainPath(name, `/transactions/${tx.index ?? 0}/proof`), signal);
  } catch (error) {
    if (!signal.aborted) put(proof, el("h2", {}, "Proof"), trouble(error));
    return;
  }
  const answer = el("div", { id: "verdict", "aria-live": "polite" });
  const check = (text) => put(answer, verdict(text, about));
  put(proof, el("h2", {}, "Proof"), el("p", { class: "quiet" }, "Checked by this page, in your browser, by docs/FORMAT.md: hashes, paths, certificates and signatures. The server is not asked whether it holds."), answer, tampering(source, check), file(source, check, about));
  check(source);
}

/** What holds the proof, green; or the check that refused it, red. */
function verdict(text, about) {
  const begun = performance.now();
  try {
    const found = verifyProof(text);
    const id = hex(found.head.id);
    const known = trustOf(about, id);
    const whole = verifyProof(text, known ? { chain: fromHex(known.id) } : {});
    aboutThis(whole, about);
    const ms = Math.max(1, Math.round(performance.now() - begun));
    const good = !!whole.anchored;
    return el(
      "div",
      { class: `verdict ${good ? "good" : "warn"}`, "data-verdict": good ? "verified" : "self-consistent" },
      el("p", { class: "headline" }, el("span", { class: "sign", "aria-hidden": "true" }, good ? "✓" : "?"), good ? "Verified" : "Consistent in itself, vouched for by nobody", el("small", {}, `${whole.steps.length} statements, ${ms} ms`)),
      trust(known, id, about),
      el("ol", { class: "steps" }, whole.steps.map((sentence) => el("li", {}, ...hashed(sentence)))),
    );
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return el("div", { class: "verdict bad", "data-verdict": "refused", "data-check": error.check }, el("p", { class: "headline" }, el("span", { class: "sign", "aria-hidden": "true" }, "✗"), "Refused", badge(error.check, "bad")), el("p", {}, ...hashed(error.message)));
  }
}

/** A proof that holds may still be of another transaction than the one that is shown above it. */
function aboutThis(found, { tx }) {
  const shown = bytesOf(tx.payload);
  const proved = found.transaction;
  if (!proved) throw new Refused("answer", "the proof is about no transaction");
  if (proved.envelope.index !== BigInt(tx.index ?? 0)) throw new Refused("answer", `the proof is about transaction ${proved.envelope.index}`);
  const same = !proved.payload || tx.erasure || (proved.payload.length === shown.length && proved.payload.every((byte, i) => byte === shown[i]));
  if (!same) throw new Refused("answer", "the payload shown above is not the one that is proved");
}

/** The chain that the head is of: this one, or one above it. */
function trustOf({ name, chain }, id) {
  const own = trusted(name, hexOf(chain.chain_id));
  if (own?.id === id) return { ...own, name };
  for (let above = name; above.includes("/"); ) {
    above = above.replace(/\/[^/]*$/, "");
    const known = trusted(above);
    if (known?.id === id) return { ...known, name: above };
  }
  return own && { ...own, name };
}

function trust(known, id, about) {
  if (!known) return el("p", { class: "quiet" }, "This browser trusts no chain id here yet.");
  const since = known.first ? "since this visit: compare it with what others know" : `since ${new Date(known.since).toISOString().slice(0, 10)}`;
  const other = known.id !== id;
  const take = other ? el("button", { type: "button", on: { click: () => retrust(known.name, id, about) } }, "Trust the chain of this proof from now on") : null;
  return el("p", { class: "quiet" }, `Trusted: chain ${known.name}, id `, short(known.id, 8), `, known to this browser ${since}. `, other ? "The proof ends in another chain. " : "", take);
}

function retrust(name, id, about) {
  const above = about.name.replace(/\/[^/]*$/, "");
  const whose = hexOf(about.chain.chain_id) === id ? name : above;
  forget(whose);
  trusted(whose, id);
  prove(about);
}

/** Long hashes in a sentence, shortened. */
function hashed(sentence) {
  return sentence.split(/([0-9a-f]{64})/).map((part, i) => (i % 2 ? short(part, 5) : part));
}

const PLACES = {
  payload: /("payload"\s*:\s*")([0-9a-f]+)/,
  envelope: /("envelope"\s*:\s*")([0-9a-f]+)/,
  header: /("header"\s*:\s*")([0-9a-f]+)/,
  path: /("path"\s*:\s*\[\s*")([0-9a-f]+)/,
  signature: /("signature"\s*:\s*")([0-9a-f]+)/,
};

/** Buttons that change one byte of the proof: it must turn red. */
function tampering(source, check) {
  const places = Object.entries(PLACES).filter(([, pattern]) => pattern.test(source));
  const flip = (pattern) => source.replace(pattern, (_, before, digits) => {
    const at = Math.floor(Math.random() * (digits.length / 2)) * 2;
    return `${before}${digits.slice(0, at)}${(parseInt(digits.slice(at, at + 2), 16) ^ 1).toString(16).padStart(2, "0")}${digits.slice(at + 2)}`;
  });
  const buttons = places.map(([name, pattern]) => el("button", { type: "button", "data-tamper": name, on: { click: () => check(flip(pattern)) } }, name));
  const whole = el("button", { type: "button", id: "restore", on: { click: () => check(source) } }, "as it was");
  return el("div", { class: "row tamper" }, el("span", {}, "Change a byte of its"), buttons, whole);
}

function file(source, check, { name, tx }) {
  const text = el("textarea", { rows: 12, spellcheck: "false", "aria-label": "The proof file", id: "proof-file" });
  text.value = pretty(source);
  const again = el("button", { type: "button", on: { click: () => check(text.value) } }, "Verify what stands here");
  const href = chainPath(name, `/transactions/${tx.index ?? 0}/proof`);
  const save = el("a", { class: "button", href, download: `${name.replace(/\//g, "-")}-${tx.index ?? 0}.proof.json` }, "Download");
  return el("details", { class: "file" }, el("summary", {}, "The proof file, as qbc prove writes it and qbc verify takes it"), text, el("div", { class: "row" }, again, save));
}

function pretty(source) {
  try {
    return JSON.stringify(JSON.parse(source), null, 1);
  } catch {
    return source;
  }
}
