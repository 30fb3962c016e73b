// The strict JSON of a proof file: docs/FORMAT.md section 13. No name twice, no number but whole ones up to 2^53, no other
// fields than those that are asked for.

import { Refused, fromHex, need, text } from "./bytes.js";

const DEPTH_MAX = 64;
const INTEGER_MAX = 2n ** 53n;
const U64_MAX = 2n ** 64n - 1n;

/** Reads exactly one value. Integers become BigInt, so that none loses digits. */
export function parse(source) {
  const read = typeof source === "string" ? source : text(source);
  need(read !== null, "json", "not UTF-8");
  return new Reader(read).whole();
}

class Reader {
  constructor(source) {
    this.source = source;
    this.at = 0;
  }

  whole() {
    const value = this.value(0);
    this.space();
    need(this.at === this.source.length, "json", "bytes after the end");
    return value;
  }

  space() {
    while (" \t\r\n".includes(this.source[this.at] || "-")) this.at++;
  }

  take(char) {
    this.space();
    if (this.source[this.at] !== char) return false;
    this.at++;
    return true;
  }

  value(depth) {
    need(depth < DEPTH_MAX, "json", "nested too deep");
    if (this.take("{")) return this.object(depth);
    if (this.take("[")) return this.list(depth);
    if (this.source[this.at] === '"') return this.string();
    for (const [word, value] of [["true", true], ["false", false], ["null", null]]) {
      if (this.source.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    return this.integer();
  }

  object(depth) {
    const out = new Map();
    if (this.take("}")) return out;
    do {
      this.space();
      const name = this.string();
      need(!out.has(name), "duplicate-name", `${JSON.stringify(name)} stands twice`);
      need(this.take(":"), "json", "a colon is missing");
      out.set(name, this.value(depth + 1));
    } while (this.take(","));
    need(this.take("}"), "json", "an object does not end");
    return out;
  }

  list(depth) {
    const out = [];
    if (this.take("]")) return out;
    do out.push(this.value(depth + 1));
    while (this.take(","));
    need(this.take("]"), "json", "a list does not end");
    return out;
  }

  string() {
    const start = this.at;
    need(this.source[this.at] === '"', "json", "a string is missing");
    for (this.at++; this.source[this.at] !== '"'; this.at++) {
      need(this.at < this.source.length, "json", "a string does not end");
      if (this.source[this.at] === "\\") this.at++;
    }
    this.at++;
    try {
      return JSON.parse(this.source.slice(start, this.at));
    } catch (error) {
      throw new Refused("json", error.message);
    }
  }

  integer() {
    const [word] = /^-?[0-9.eE+-]*/.exec(this.source.slice(this.at, this.at + 400));
    need(word && /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$/.test(word), "json", "not a value");
    need(/^[0-9]+$/.test(word) && BigInt(word) <= INTEGER_MAX, "integer", `${word} is not a whole number up to 2^53`);
    this.at += word.length;
    return BigInt(word);
  }
}

/** The fields of an object, in this order; those that are optional may be missing, others may not be there. */
export function fields(value, place, required, optional = []) {
  need(value instanceof Map, "field", `${place} is not an object`);
  for (const name of value.keys()) {
    need(required.includes(name) || optional.includes(name), "unknown-field", `${place} has no field ${JSON.stringify(name)}`);
  }
  for (const name of required) need(value.has(name), "field", `${place} lacks ${name}`);
  return [...required, ...optional].map((name) => value.get(name));
}

export function list(value, place) {
  need(Array.isArray(value), "field", `${place} is not a list`);
  return value;
}

export function bytes(value, place, length) {
  need(typeof value === "string", "field", `${place} is not a string`);
  const out = fromHex(value);
  need(out, "hex", `${place} is not lower-case hex`);
  need(length === undefined || out.length === length, "hex", `${place} has ${out.length} bytes, not ${length}`);
  return out;
}

export function bytesIf(value, place, length) {
  return value === undefined ? undefined : bytes(value, place, length);
}

export function hashes(value, place) {
  return list(value, place).map((hash) => bytes(hash, place, 32));
}

/** A u64 (or fewer bits), as a number or a decimal string. */
export function integer(value, place, max = U64_MAX) {
  if (typeof value === "string") {
    need(/^(0|[1-9][0-9]{0,19})$/.test(value), "integer", `${place} is no integer`);
    value = BigInt(value);
  }
  need(typeof value === "bigint", "field", `${place} is not an integer`);
  need(value <= max, "integer", `${place} is above ${max}`);
  return value;
}
