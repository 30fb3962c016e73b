// Ed25519 (RFC 8032), strictly as docs/FORMAT.md section 5 says: one form of S, A and R, no point of small order, no
// cofactor. For verifying alone, so it need not be constant in time.

import { hex, concat } from "./bytes.js";
import { sha512 } from "./hash.js";

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const mod = (x) => ((x % P) + P) % P;
const D = mod(-121665n * power(121666n, P - 2n));
const ROOT_OF_MINUS_ONE = power(2n, (P - 1n) / 4n);
const IDENTITY = [0n, 1n, 1n, 0n];
const BASE = decode(little(mod(4n * power(5n, P - 2n))));

/** True if the signature holds. */
export function verify(key, message, signature) {
  if (key.length !== 32 || signature.length !== 64) return false;
  const a = decode(key);
  const r = decode(signature.subarray(0, 32));
  const s = number(signature.subarray(32));
  if (!a || !r || s >= L || smallOrder(a) || smallOrder(r)) return false;
  const k = number(sha512(concat(signature.subarray(0, 32), key, message))) % L;
  return same(multiply(s, BASE), add(r, multiply(k, a)));
}

function number(bytes) {
  return BigInt(`0x${hex(Uint8Array.from(bytes).reverse())}`);
}

function little(value) {
  const out = new Uint8Array(32);
  for (let i = 0; i < 32; i++) out[i] = Number((value >> BigInt(8 * i)) & 255n);
  return out;
}

function power(base, exponent) {
  let out = 1n;
  for (let b = mod(base); exponent; exponent >>= 1n, b = (b * b) % P) if (exponent & 1n) out = (out * b) % P;
  return out;
}

/** RFC 8032 section 5.1.3: the point in extended coordinates; null where there is none. */
function decode(raw) {
  const all = number(raw);
  const sign = all >> 255n;
  const y = all & ((1n << 255n) - 1n);
  if (y >= P) return null;
  const u = mod(y * y - 1n);
  const v = mod(D * y * y + 1n);
  let x = mod(u * power(v, 3n) * power(u * power(v, 7n), (P - 5n) / 8n));
  if (mod(v * x * x + u) === 0n) x = mod(x * ROOT_OF_MINUS_ONE);
  if (mod(v * x * x - u) !== 0n || (x === 0n && sign)) return null;
  if ((x & 1n) !== sign) x = P - x;
  return [x, y, 1n, mod(x * y)];
}

function add(p, q) {
  const a = mod((p[1] - p[0]) * (q[1] - q[0]));
  const b = mod((p[1] + p[0]) * (q[1] + q[0]));
  const c = mod(2n * p[3] * q[3] * D);
  const d = mod(2n * p[2] * q[2]);
  const [e, f, g, h] = [b - a, d - c, d + c, b + a];
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
}

function multiply(scalar, point) {
  let out = IDENTITY;
  for (let p = point; scalar; scalar >>= 1n, p = add(p, p)) if (scalar & 1n) out = add(out, p);
  return out;
}

function same(p, q) {
  return mod(p[0] * q[2] - q[0] * p[2]) === 0n && mod(p[1] * q[2] - q[1] * p[2]) === 0n;
}

function smallOrder(point) {
  return same(multiply(8n, point), IDENTITY);
}
