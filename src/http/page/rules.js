// What a constitution says, in words; and payloads as their chain means them.

import { bytesOf } from "./api.js";
import { text } from "./verify/bytes.js";
import { constitution } from "./verify/forms.js";

const CONTENT = ["bytes", "text", "json", "msgpack"];

/** The rules of a chain as it is listed; null where the records can't be read. */
export function rulesOf(chain) {
  try {
    const raw = bytesOf(chain.constitution_in_force ?? chain.constitution);
    const rules = constitution(raw);
    const of = (tag) => rules.found.get(tag);
    const u = (bytes) => bytes.reduce((sum, byte) => sum * 256 + byte, 0);
    return {
      ...rules,
      content: CONTENT[of(5)?.[0] ?? 0],
      authors: (of(7)?.length ?? 0) / 32,
      erasable: !!of(16),
      leapCount: of(9) && u(of(9)),
      leapBytes: of(10) && u(of(10)),
      leapMs: of(11) && u(of(11)),
      workTarget: of(12) && u(of(12).subarray(2)),
    };
  } catch {
    return null;
  }
}

/** Short words about the rules, most telling first. */
export function words(rules) {
  if (!rules) return [];
  const seals = [
    rules.leapMs && (rules.leapMs < 1000 ? `${rules.leapMs} ms` : `${rules.leapMs / 1000} s`),
    rules.leapCount && `${rules.leapCount} transactions`,
    rules.leapBytes && `${rules.leapBytes} bytes`,
  ].filter(Boolean);
  return [
    rules.ledger ? "ledger" : rules.content,
    rules.workMinimum && `work of ${rules.workMinimum} bits${rules.workTarget ? `, ${rules.workTarget / 1000} s` : ""}`,
    rules.signers > 1 && `${rules.signers} signatures`,
    rules.keyed && "keyed",
    rules.erasable && "erasable",
    rules.authors && `${rules.authors} ${rules.authors === 1 ? "author" : "authors"}`,
    seals.length ? `seals after ${seals.join(" or ")}` : "sealed by hand",
  ].filter(Boolean);
}

/** A payload as text, and what it is. */
export function payloadText(bytes, rules) {
  const said = text(bytes);
  if (said !== null && rules?.content === "json") {
    try {
      return { kind: "JSON", text: JSON.stringify(JSON.parse(said), null, 2) };
    } catch {
      return { kind: "text", text: said };
    }
  }
  const plain = said !== null && !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(said);
  if (plain && rules?.content !== "msgpack") return { kind: "text", text: said };
  return { kind: "bytes", text: dump(bytes) };
}

/** One line of a payload for lists. */
export function line(bytes, rules) {
  const { kind, text: whole } = payloadText(bytes.subarray(0, 2000), rules?.content === "json" ? { content: "text" } : rules);
  const flat = kind === "bytes" ? whole.replace(/\n.*/s, "").slice(10, 58) : whole.replace(/\s+/g, " ");
  return flat.length > 200 ? `${flat.slice(0, 200)}…` : flat;
}

function dump(bytes) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, 4096); at += 16) {
    const part = bytes.subarray(at, at + 16);
    const codes = [...part].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const shown = [...part].map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${codes.padEnd(48)} ${shown}`);
  }
  if (bytes.length > 4096) lines.push(`… ${bytes.length - 4096} more bytes`);
  return lines.join("\n");
}

/** A key, an id or an account as text where it is text, else hex. */
export function label(bytes) {
  const said = text(bytes);
  return said !== null && !/\p{Cc}/u.test(said) ? said : `0x${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
