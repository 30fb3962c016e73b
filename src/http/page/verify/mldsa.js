// ML-DSA-44 (FIPS 204), pure, with the empty context: verifying alone. One form of a signature is taken, as
// docs/FORMAT.md section 8 says; numbers of algorithms are those of the standard.

import { concat, equal, need } from "./bytes.js";
import { shake128, shake256 } from "./hash.js";

const Q = 8380417;
const TAU = 39;
const OMEGA = 80;
const GAMMA1 = 1 << 17;
const GAMMA2 = (Q - 1) / 88;
const Z_MAX = GAMMA1 - 78 - 1;
export const PUBLIC_BYTES = 1312;
export const SIGNATURE_BYTES = 2420;

const ZETAS = Array.from({ length: 256 }, (_, i) => {
  let reversed = 0;
  for (let bit = 0; bit < 8; bit++) reversed |= ((i >> bit) & 1) << (7 - bit);
  return power(1753, reversed);
});
const INVERSE_256 = power(256, Q - 2);

/** Algorithms 3 and 8. The lengths are right; another form than the one that is taken is refused. */
export function verify(key, message, signature) {
  const rho = key.subarray(0, 32);
  const [z, hints] = decode(signature);
  const mu = shake256(64, shake256(64, key), Uint8Array.of(0, 0), message);
  const cTilde = signature.subarray(0, 32);
  const c = ntt(challenge(cTilde));
  const zHat = z.map(ntt);
  const w1 = [];
  for (let row = 0; row < 4; row++) {
    const t = unpack(key.subarray(32 + 320 * row, 352 + 320 * row), 10).map((x) => x * 8192);
    const ct = product(c, ntt(t));
    const sum = new Array(256).fill(0);
    for (let column = 0; column < 4; column++) {
      const entry = product(uniform(concat(rho, Uint8Array.of(column, row))), zHat[column]);
      for (let i = 0; i < 256; i++) sum[i] += entry[i];
    }
    const w = inverse(sum.map((x, i) => modulo(x - ct[i])));
    w1.push(pack6(w.map((r, i) => useHint(hints[row].has(i), r))));
  }
  return equal(cTilde, shake256(32, mu, ...w1));
}

function modulo(x) {
  return ((x % Q) + Q) % Q;
}

function power(base, exponent) {
  let out = 1;
  for (let b = base; exponent > 0; exponent = Math.floor(exponent / 2), b = (b * b) % Q) if (exponent % 2) out = (out * b) % Q;
  return out;
}

/** Algorithm 27: z and the hints. */
function decode(raw) {
  const z = [0, 1, 2, 3].map((i) => unpack(raw.subarray(32 + 576 * i, 608 + 576 * i), 18).map((x) => GAMMA1 - x));
  need(z.every((p) => p.every((x) => Math.abs(x) <= Z_MAX)), "signature-format", "z is out of its range");
  return [z, unpackHints(raw.subarray(2336))];
}

/** Algorithm 21: ends do not fall, each list rises, the rest is zero. */
function unpackHints(raw) {
  const out = [];
  let begin = 0;
  for (const end of raw.subarray(OMEGA)) {
    need(begin <= end && end <= OMEGA, "signature-format", "the ends of the hints");
    const listed = raw.subarray(begin, end);
    need(listed.every((x, i) => !i || listed[i - 1] < x), "signature-format", "a list of hints does not rise");
    out.push(new Set(listed));
    begin = end;
  }
  need(raw.subarray(begin, OMEGA).every((x) => x === 0), "signature-format", "hints after the last list");
  return out;
}

/** Algorithm 29: 39 coefficients of 1 or -1. */
function challenge(cTilde) {
  const stream = shake256(2048, cTilde);
  const c = new Array(256).fill(0);
  let at = 8;
  for (let i = 256 - TAU, n = 0; i < 256; i++, n++) {
    while (stream[at] > i) at++;
    const j = stream[at++];
    c[i] = c[j];
    c[j] = 1 - 2 * ((stream[n >> 3] >> (n & 7)) & 1);
  }
  return c;
}

/** Algorithm 30. */
function uniform(seed) {
  const stream = shake128(3 * 512, seed);
  const p = [];
  for (let at = 0; p.length < 256; at += 3) {
    const x = stream[at] | (stream[at + 1] << 8) | ((stream[at + 2] & 0x7f) << 16);
    if (x < Q) p.push(x);
  }
  return p;
}

/** Algorithms 36 and 40. */
function useHint(hint, r) {
  let low = r % (2 * GAMMA2);
  if (low > GAMMA2) low -= 2 * GAMMA2;
  let high = (r - low) / (2 * GAMMA2);
  if (r - low === Q - 1) {
    high = 0;
    low -= 1;
  }
  return hint ? (high + (low > 0 ? 1 : 43)) % 44 : high;
}

/** Algorithm 41. */
function ntt(polynomial) {
  const p = polynomial.map(modulo);
  for (let m = 0, length = 128; length; length >>= 1) {
    for (let start = 0; start < 256; start += 2 * length) {
      const zeta = ZETAS[++m];
      for (let j = start; j < start + length; j++) {
        const t = (zeta * p[j + length]) % Q;
        p[j + length] = (p[j] - t + Q) % Q;
        p[j] = (p[j] + t) % Q;
      }
    }
  }
  return p;
}

/** Algorithm 42. */
function inverse(polynomial) {
  const p = [...polynomial];
  for (let m = 256, length = 1; length < 256; length <<= 1) {
    for (let start = 0; start < 256; start += 2 * length) {
      const zeta = Q - ZETAS[--m];
      for (let j = start; j < start + length; j++) {
        const t = p[j];
        p[j] = (t + p[j + length]) % Q;
        p[j + length] = (zeta * (t - p[j + length] + Q)) % Q;
      }
    }
  }
  return p.map((x) => (x * INVERSE_256) % Q);
}

function product(a, b) {
  return a.map((x, i) => (x * b[i]) % Q);
}

function unpack(raw, bits) {
  const out = [];
  let held = 0;
  let have = 0;
  for (const byte of raw) {
    held += byte * 2 ** have;
    have += 8;
    while (have >= bits) {
      out.push(held % 2 ** bits);
      held = Math.floor(held / 2 ** bits);
      have -= bits;
    }
  }
  return out;
}

function pack6(p) {
  const out = new Uint8Array(192);
  for (let i = 0; i < 64; i++) {
    const x = p[4 * i] | (p[4 * i + 1] << 6) | (p[4 * i + 2] << 12) | (p[4 * i + 3] << 18);
    out.set([x & 255, (x >> 8) & 255, (x >> 16) & 255], 3 * i);
  }
  return out;
}
