// SHA3-256, SHAKE (FIPS 202), SHA-256 and SHA-512 (FIPS 180-4), synchronous and without anything from outside.
// A page over plain HTTP has no WebCrypto; and a verifier that checks the same way everywhere is one verifier, not two.

import { concat } from "./bytes.js";

// --- Keccak: 25 lanes of 64 bits, each as two halves, the low one first.

const ROTATE = [1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44];
const LANE = [10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1];
const ROUND = roundConstants();

function roundConstants() {
  const out = [];
  let register = 1;
  for (let round = 0; round < 24; round++) {
    let low = 0;
    let high = 0;
    for (let j = 0; j < 7; j++) {
      if (register & 1) {
        const bit = (1 << j) - 1;
        if (bit < 32) low ^= 1 << bit;
        else high ^= 1 << (bit - 32);
      }
      register = (register << 1) ^ ((register >> 7) * 0x171);
    }
    out.push([low, high]);
  }
  return out;
}

function permute(s) {
  const c = new Int32Array(10);
  for (const [low, high] of ROUND) {
    for (let x = 0; x < 10; x++) c[x] = s[x] ^ s[x + 10] ^ s[x + 20] ^ s[x + 30] ^ s[x + 40];
    for (let x = 0; x < 10; x += 2) {
      const next = (x + 2) % 10;
      const last = (x + 8) % 10;
      const l = c[last] ^ ((c[next] << 1) | (c[next + 1] >>> 31));
      const h = c[last + 1] ^ ((c[next + 1] << 1) | (c[next] >>> 31));
      for (let y = x; y < 50; y += 10) {
        s[y] ^= l;
        s[y + 1] ^= h;
      }
    }
    let l = s[2];
    let h = s[3];
    for (let i = 0; i < 24; i++) {
      const by = ROTATE[i] % 32;
      const at = 2 * LANE[i];
      const [a, b] = ROTATE[i] < 32 ? [l, h] : [h, l];
      const rotatedLow = by ? (a << by) | (b >>> (32 - by)) : a;
      const rotatedHigh = by ? (b << by) | (a >>> (32 - by)) : b;
      l = s[at];
      h = s[at + 1];
      s[at] = rotatedLow;
      s[at + 1] = rotatedHigh;
    }
    for (let y = 0; y < 50; y += 10) {
      for (let x = 0; x < 10; x++) c[x] = s[y + x];
      for (let x = 0; x < 10; x++) s[y + x] = c[x] ^ (~c[(x + 2) % 10] & c[(x + 4) % 10]);
    }
    s[0] ^= low;
    s[1] ^= high;
  }
}

function keccak(rate, suffix, length, parts) {
  const data = parts.length === 1 && typeof parts[0] !== "string" ? parts[0] : concat(...parts);
  const state = new Int32Array(50);
  let at = 0;
  for (let i = 0; i < data.length; i++) {
    state[at >> 2] ^= data[i] << (8 * (at & 3));
    if (++at === rate) {
      permute(state);
      at = 0;
    }
  }
  state[at >> 2] ^= suffix << (8 * (at & 3));
  state[(rate - 1) >> 2] ^= 0x80 << 24;
  const out = new Uint8Array(length);
  for (let i = 0; i < length; i++) {
    if (i % rate === 0) permute(state);
    out[i] = state[(i % rate) >> 2] >>> (8 * (i & 3));
  }
  return out;
}

export const sha3 = (...parts) => keccak(136, 6, 32, parts);
export const shake128 = (length, ...parts) => keccak(168, 31, length, parts);
export const shake256 = (length, ...parts) => keccak(136, 31, length, parts);

// --- SHA-2: its constants are the first bits of the roots of the first primes.

const PRIMES = [];
for (let n = 2; PRIMES.length < 80; n++) if (PRIMES.every((p) => n % p)) PRIMES.push(n);

/** The first 64 bits behind the point of the root of this degree. */
function rootBits(prime, degree) {
  const target = BigInt(prime) << BigInt(64 * degree);
  let low = 0n;
  let high = 1n << 70n;
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (middle ** BigInt(degree) <= target) low = middle;
    else high = middle;
  }
  return low & 0xffffffffffffffffn;
}

const K512 = PRIMES.map((prime) => rootBits(prime, 3));
const START512 = PRIMES.slice(0, 8).map((prime) => rootBits(prime, 2));
const K256 = K512.slice(0, 64).map((k) => Number(k >> 32n) | 0);
const START256 = START512.map((k) => Number(k >> 32n) | 0);

function padded(data, block, lengthBytes) {
  const whole = Math.ceil((data.length + 1 + lengthBytes) / block) * block;
  const out = new Uint8Array(whole);
  out.set(data);
  out[data.length] = 0x80;
  let bits = data.length * 8;
  for (let i = whole - 1; bits > 0; i--) {
    out[i] = bits % 256;
    bits = Math.floor(bits / 256);
  }
  return out;
}

export function sha256(...parts) {
  const data = padded(concat(...parts), 64, 8);
  const view = new DataView(data.buffer);
  const w = new Int32Array(64);
  const h = Int32Array.from(START256);
  const r = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < data.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const [a, b] = [w[i - 15], w[i - 2]];
      w[i] = w[i - 16] + (r(a, 7) ^ r(a, 18) ^ (a >>> 3)) + w[i - 7] + (r(b, 17) ^ r(b, 19) ^ (b >>> 10));
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 64; i++) {
      const t1 = (k + (r(e, 6) ^ r(e, 11) ^ r(e, 25)) + ((e & f) ^ (~e & g)) + K256[i] + w[i]) | 0;
      const t2 = ((r(a, 2) ^ r(a, 13) ^ r(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [k, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    [a, b, c, d, e, f, g, k].forEach((x, i) => (h[i] += x));
  }
  const out = new DataView(new ArrayBuffer(32));
  h.forEach((x, i) => out.setInt32(4 * i, x));
  return new Uint8Array(out.buffer);
}

export function sha512(...parts) {
  const data = padded(concat(...parts), 128, 16);
  const view = new DataView(data.buffer);
  const mask = 0xffffffffffffffffn;
  const r = (x, n) => ((x >> n) | (x << (64n - n))) & mask;
  let h = START512;
  for (let at = 0; at < data.length; at += 128) {
    const w = [];
    for (let i = 0; i < 16; i++) w.push(view.getBigUint64(at + 8 * i));
    for (let i = 16; i < 80; i++) {
      const [a, b] = [w[i - 15], w[i - 2]];
      w.push((w[i - 16] + (r(a, 1n) ^ r(a, 8n) ^ (a >> 7n)) + w[i - 7] + (r(b, 19n) ^ r(b, 61n) ^ (b >> 6n))) & mask);
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 80; i++) {
      const t1 = k + (r(e, 14n) ^ r(e, 18n) ^ r(e, 41n)) + ((e & f) ^ (~e & mask & g)) + K512[i] + w[i];
      const t2 = (r(a, 28n) ^ r(a, 34n) ^ r(a, 39n)) + ((a & b) ^ (a & c) ^ (b & c));
      [k, g, f, e, d, c, b, a] = [g, f, e, (d + t1) & mask, c, b, a, (t1 + t2) & mask];
    }
    h = [a, b, c, d, e, f, g, k].map((x, i) => (x + h[i]) & mask);
  }
  const out = new DataView(new ArrayBuffer(64));
  h.forEach((x, i) => out.setBigUint64(8 * i, x));
  return new Uint8Array(out.buffer);
}

/** H of docs/FORMAT.md section 2: 1 is SHA3-256, 2 is SHA-256. */
export const H = (alg, ...parts) => (alg === 1 ? sha3 : sha256)(...parts);
