// Trees, records, envelope, header, meta, constitution: docs/FORMAT.md sections 2 to 7.

import { big, concat, equal, need, number, text } from "./bytes.js";
import { H } from "./hash.js";

const ZERO = (bytes) => bytes.every((byte) => byte === 0);
const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);
const U64_END = 2n ** 64n;

export const leafHash = (alg, ...data) => H(alg, LEAF, ...data);
export const nodeHash = (alg, left, right) => H(alg, NODE, left, right);
export const emptyRoot = (alg) => H(alg, new Uint8Array(0));

/** Section 2, inclusion; gives the left siblings that were met. */
export function inclusion(alg, leaf, index, size, path, root) {
  index = BigInt(index);
  size = BigInt(size);
  need(index < size, "inclusion-index", `index ${index} is not below the size ${size}`);
  let [fn, sn, acc] = [index, size - 1n, leaf];
  const left = [];
  for (const sibling of path) {
    need(sn !== 0n, "inclusion-path", "the path is too long");
    if (fn & 1n || fn === sn) {
      left.push(sibling);
      acc = nodeHash(alg, sibling, acc);
      for (; fn && !(fn & 1n); fn >>= 1n) sn >>= 1n;
    } else {
      acc = nodeHash(alg, acc, sibling);
    }
    fn >>= 1n;
    sn >>= 1n;
  }
  need(sn === 0n, "inclusion-path", "the path is too short");
  need(equal(acc, root), "inclusion-root", "the path leads to another root");
  return left;
}

/** Bags peaks that are given smallest first. */
export function bag(alg, peaks) {
  return peaks.length ? peaks.reduce((acc, peak) => nodeHash(alg, peak, acc)) : emptyRoot(alg);
}

/** Section 2, extension: the old tree is the beginning of the new one. */
export function extensionPath(alg, leaf, index, size, path, root, oldRoot) {
  const left = inclusion(alg, leaf, index, size, path, root);
  const ones = BigInt(index).toString(2).replace(/0/g, "").length;
  need(left.length === ones, "extension-peaks", `${left.length} left siblings, not ${ones}`);
  need(equal(bag(alg, left), oldRoot), "extension-old-root", "the past was rewritten");
}

/** Section 3: a map of tags to values. */
export function records(raw, last, place = "a record") {
  const out = new Map();
  let before = -1;
  for (let at = 0; at < raw.length; ) {
    need(at + 5 <= raw.length, "record-form", `${place} is cut`);
    const [tag, length] = [raw[at], number(raw, at + 1, 4)];
    need(at + 5 + length <= raw.length, "record-form", `${place} ${tag} is cut`);
    need(tag > before, "record-order", `tag ${tag} stands behind ${before}`);
    need((tag >= 1 && tag <= last) || tag >= 128, "record-unknown", `tag ${tag} is critical and not known`);
    out.set(tag, raw.subarray(at + 5, at + 5 + length));
    at += 5 + length;
    before = tag;
  }
  return out;
}

/** Section 5. */
export function envelope(raw) {
  need(raw.length === 128, "envelope-length", `an envelope has 128 bytes, not ${raw.length}`);
  need(number(raw, 0, 4) === 0x51545831, "envelope-magic", "an envelope begins with QTX1");
  need(raw[4] <= 5, "envelope-type", `type ${raw[4]} is reserved`);
  need(raw[5] < 2, "envelope-flags", `flags ${raw[5]} are reserved`);
  need(ZERO(raw.subarray(6, 8)), "envelope-zero", "bytes 6 and 7 are not zero");
  return {
    raw,
    type: raw[4],
    salted: raw[5] === 1,
    chainId: raw.subarray(8, 40),
    index: big(raw, 40, 8),
    injectMs: big(raw, 48, 8),
    payloadLen: big(raw, 56, 8),
    payloadHash: raw.subarray(64, 96),
    attributesHash: raw.subarray(96, 128),
  };
}

/** Section 5: attributes by name. */
export function attributes(raw) {
  const found = records(raw, 4, "attribute");
  const of = (tag, name, min, max) => {
    const value = found.get(tag);
    need(!value || (value.length >= min && value.length <= max), "attributes", `${name} has ${value?.length} bytes`);
    return value;
  };
  const out = { key: of(1, "key", 1, 512), id: of(2, "id", 1, 64), author: of(3, "author", 32, 32), signature: of(4, "signature", 64, 64) };
  need(!out.author === !out.signature, "attributes", "author and signature stand only together");
  return out;
}

/** Section 6, with everything that "any header" of section 10 asks for. */
export function header(raw) {
  need(raw.length === 256, "header-length", `a header has 256 bytes, not ${raw.length}`);
  need(number(raw, 0, 4) === 0x51484431, "header-magic", "a header begins with QHD1");
  need([0, 1, 2, 4].includes(raw[5]), "header-flags", `flags ${raw[5]} are reserved`);
  need(ZERO(raw.subarray(76, 88)), "header-zero", "bytes 76 to 87 are not zero");
  need(raw[4] === 1 || raw[4] === 2, "header-hash-alg", `hash algorithm ${raw[4]} is not known`);
  const alg = raw[4];
  const hash = leafHash(alg, raw);
  const first = raw[5] === 1 || raw[5] === 2;
  const h = {
    raw,
    alg,
    hash,
    first,
    genesis: raw[5] === 1,
    fork: raw[5] === 2,
    final: raw[5] === 4,
    powBits: number(raw, 6, 2),
    chainId: raw.subarray(8, 40),
    height: big(raw, 40, 8),
    timeMs: big(raw, 48, 8),
    txStart: big(raw, 56, 8),
    txCount: big(raw, 64, 4),
    metaLen: number(raw, 68, 4),
    anchorCount: number(raw, 72, 4),
    prevHash: raw.subarray(88, 120),
    txRoot: raw.subarray(120, 152),
    histRoot: raw.subarray(152, 184),
    anchorsRoot: raw.subarray(184, 216),
    metaHash: raw.subarray(216, 248),
    zeroBits: 256 - (big(hash) === 0n ? 0 : big(hash).toString(2).length),
  };
  h.id = first ? hash : h.chainId;
  h.sum = h.txStart + h.txCount;
  soundHeader(h);
  return h;
}

function soundHeader(h) {
  const empty = emptyRoot(h.alg);
  need(h.metaLen <= (h.first ? 1 << 20 : 4096), "header-meta-len", `meta of ${h.metaLen} bytes`);
  need(h.sum < U64_END, "header-sum", "tx_start and tx_count overflow");
  need((h.height === 0n) === h.genesis, "header-genesis", "height 0 and genesis go together");
  need(!h.first || !(h.powBits || h.txCount || h.anchorCount), "header-genesis", "a first Quant holds nothing");
  const plain = ZERO(h.chainId) && ZERO(h.prevHash) && h.txStart === 0n && equal(h.histRoot, empty);
  need(!h.genesis || plain, "header-genesis", "a genesis has nothing before it");
  need(h.txCount || equal(h.txRoot, empty), "header-empty-root", "tx_root of no transactions");
  need(h.anchorCount || equal(h.anchorsRoot, empty), "header-empty-root", "anchors_root of no anchors");
  const zeros = big(h.hash) === 0n ? 256 : h.zeroBits;
  need(h.powBits <= zeros, "header-work", `${h.powBits} zero bits are asked for, the hash has ${zeros}`);
}

const META_LENGTHS = { 2: 72, 3: 8, 4: 33, 7: 40 };

/** Section 7: the meta of a header, as records. */
export function meta(h, raw) {
  need(raw.length === h.metaLen, "meta-length", `the meta has ${raw.length} bytes, the header says ${h.metaLen}`);
  need(equal(H(h.alg, raw), h.metaHash), "meta-hash", "the meta is not the one that the header hashes");
  const found = records(raw, 7, "meta record");
  for (const [tag, length] of Object.entries(META_LENGTHS)) {
    const value = found.get(Number(tag));
    need(!value || value.length === length, "meta-record", `meta record ${tag} has ${value?.length} bytes, not ${length}`);
  }
  const route = found.get(5);
  if (route) {
    const count = number(route, 0, 4);
    need(count >= 2 && count <= 100 && route.length === 4 + 32 * count, "meta-record", "a route leads to 2 to 100 subchains");
  }
  return found;
}

/** Constitution record 4: the threshold and the root keys. */
export function authority(raw) {
  const roots = keys(raw.subarray(1), "authority-record", "authority");
  need(raw.length > 1 && roots.length <= 255 && raw[0] >= 1 && raw[0] <= roots.length, "authority-record", "the threshold is not within the root keys");
  return { raw, threshold: raw[0], roots };
}

function keys(raw, check, what) {
  need(raw.length && raw.length % 32 === 0, check, `${what} is no list of keys of 32 bytes`);
  const out = [];
  for (let at = 0; at < raw.length; at += 32) {
    const key = raw.subarray(at, at + 32);
    need(!out.some((other) => equal(other, key)), check, `${what} names a key twice`);
    out.push(key);
  }
  return out;
}

const LENGTHS = { 2: 8, 3: 16, 5: 1, 9: 4, 10: 8, 11: 8, 12: 10, 13: 1, 14: 1, 16: 1, 17: 1, 18: 32, 19: 8, 20: 4, 21: 16 };
const SEGMENT = /^[a-z0-9][a-z0-9._-]{0,99}$/;
const RESERVED = ["qbc", "sys", "system", "meta", "admin"];

/** Section 7: a constitution. */
export function constitution(raw) {
  const found = records(raw, 21, "constitution record");
  for (const tag of [1, 2, 3, 4, 21]) need(found.has(tag), "constitution-required", `the constitution lacks record ${tag}`);
  const form = (holds, why) => need(holds, "constitution-record", why);
  for (const [tag, length] of Object.entries(LENGTHS)) {
    const value = found.get(Number(tag));
    form(!value || value.length === length, `record ${tag} has ${value?.length} bytes, not ${length}`);
  }
  const name = text(found.get(1));
  const segments = name === null ? [] : name.split("/");
  form(segments.every((one) => SEGMENT.test(one)) && name && name.length <= 255 && !RESERVED.includes(segments[0]), "the name is none of a chain");
  for (const tag of [7, 8]) if (found.has(tag)) keys(found.get(tag), "constitution-record", `record ${tag}`);
  for (const tag of [14, 16, 17]) form(!found.has(tag) || found.get(tag)[0] === 1, `record ${tag} is neither absent nor 1`);
  form(!found.has(5) || found.get(5)[0] <= 3, "content is none of 0 to 3");
  form(!found.has(6) || found.get(6).length, "the schema is empty");
  form(!found.has(15) || (found.get(15).length > 16 && found.get(15).length <= 144), "the mint has no account of 1 to 128 bytes");
  sense(found);
  return {
    found,
    name,
    authority: authority(found.get(4)),
    workMinimum: found.has(12) ? number(found.get(12), 0, 2) : null,
    signers: found.has(13) ? found.get(13)[0] : 1,
    keyed: found.has(17),
    ledger: found.has(14),
    mint: found.has(15) ? { limit: big(found.get(15), 0, 16), account: found.get(15).subarray(16) } : null,
    familyId: found.get(18),
    part: found.has(19),
    clusterId: found.get(21),
  };
}

function sense(found) {
  const has = (tag) => found.has(tag);
  const broken = [
    [[9, 10, 11, 13, 20].some((tag) => has(tag) && ZERO(found.get(tag))), "a limit is 0"],
    [has(14) && has(16), "a ledger cannot be erasable"],
    [has(15) && !has(14), "a mint is only for a ledger"],
    [has(6) && found.get(5)?.[0] !== 2, "a schema is only for JSON content"],
    [has(12) && !(number(found.get(12), 0, 2) >= 1 && number(found.get(12), 0, 2) <= 256), "work asks for 1 to 256 bits"],
    [has(19) && number(found.get(19), 0, 4) >= number(found.get(19), 4, 4), "the place is not below the number of subchains"],
    [has(18) && !has(19), "family_id stands only with a place"],
    [has(19) && !has(18) && !has(14) && !has(17), "a place without family_id is for forks of subchains that keep a state"],
  ].find(([is]) => is);
  need(!broken, "constitution-sense", broken?.[1]);
}

/** Section 10, anchored 2.1: a genesis or fork-genesis with its constitution. */
export function firstQuant(rawHeader, rawMeta) {
  const g = header(rawHeader);
  need(g.first, "genesis", `Quant ${g.height} is neither genesis nor fork-genesis`);
  const found = meta(g, rawMeta);
  const raw = found.get(1);
  need(raw, "constitution", "the genesis holds no constitution");
  const rules = constitution(raw);
  const height = rawHeader.subarray(40, 48);
  const inForce = concat(H(g.alg, raw), height);
  need(!found.has(7) || equal(found.get(7), inForce), "constitution-in-force", "meta record 7 names another constitution or height");
  if (g.fork) {
    const parent = found.get(2);
    const named = parent && equal(parent.subarray(0, 32), g.chainId) && big(parent, 32, 8) + 1n === g.height && equal(parent.subarray(40), g.prevHash);
    need(named, "parent", "meta record 2 of the fork-genesis is not the Quant that it continues");
  }
  return { header: g, constitution: rules };
}
