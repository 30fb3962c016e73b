// Bytes and what refuses: concatenation, hex, big-endian numbers, text.

/** A check that refused, by its name of docs/FORMAT.md section 18. */
export class Refused extends Error {
  constructor(check, why) {
    super(why);
    this.check = check;
  }
}

/** Refuses by `check` unless the condition holds. */
export function need(condition, check, why = "") {
  if (!condition) throw new Refused(check, why);
}

const encoder = new TextEncoder();

/** Joins byte arrays and texts. */
export function concat(...parts) {
  const all = parts.map((part) => (typeof part === "string" ? encoder.encode(part) : part));
  const out = new Uint8Array(all.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of all) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function equal(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

export function hex(bytes) {
  let out = "";
  for (const byte of bytes) out += byte.toString(16).padStart(2, "0");
  return out;
}

/** The bytes of lower-case hex; null where it is none. */
export function fromHex(text) {
  if (text.length % 2 || !/^[0-9a-f]*$/.test(text)) return null;
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}

/** A big-endian number of up to 4 bytes. */
export function number(bytes, at, length) {
  let out = 0;
  for (let i = at; i < at + length; i++) out = out * 256 + (bytes[i] ?? 0);
  return out;
}

/** A big-endian number of any length. */
export function big(bytes, at = 0, length = bytes.length) {
  let out = 0n;
  for (let i = at; i < at + length; i++) out = (out << 8n) | BigInt(bytes[i] ?? 0);
  return out;
}

/** A number as `length` big-endian bytes. */
export function be(value, length) {
  const out = new Uint8Array(length);
  let rest = BigInt(value);
  for (let i = length - 1; i >= 0; i--) {
    out[i] = Number(rest & 255n);
    rest >>= 8n;
  }
  return out;
}

/** The text of valid UTF-8; null where it is none. */
export function text(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** Text in quotes where it is text without control characters, else hex. */
export function sayBytes(bytes) {
  const said = text(bytes);
  return said === null || /\p{Cc}/u.test(said) ? hex(bytes) : JSON.stringify(said);
}

/** Bytes as base64 with padding. */
export function base64(bytes) {
  let out = "";
  for (const byte of bytes) out += String.fromCharCode(byte);
  return btoa(out);
}

/** The bytes of base64 or base64url; null where it is none. */
export function fromBase64(coded) {
  try {
    return Uint8Array.from(atob(coded.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
  } catch {
    return null;
  }
}
