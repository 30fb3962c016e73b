// The links of a proof, and what is said of them: docs/FORMAT.md sections 5, 9, 10, 11 and 20.

import { be, concat, equal, hex, need, sayBytes } from "./bytes.js";
import { verify as ed25519 } from "./ed25519.js";
import { attributes, emptyRoot, extensionPath, inclusion, leafHash, nodeHash } from "./forms.js";
import { H } from "./hash.js";

export const sayQuant = (h) => `Quant ${h.height} of chain ${hex(h.id)} (hash ${hex(h.hash)})`;

/** Envelope to the Quant that seals it. */
export function quantLink(e, h, path) {
  need(equal(e.chainId, h.id), "envelope-chain", `the transaction is of chain ${hex(e.chainId)}, the Quant of chain ${hex(h.id)}`);
  need(e.index >= h.txStart && e.index < h.sum, "envelope-index", `index ${e.index} is not among the ${h.txCount} transactions from ${h.txStart}`);
  need(e.injectMs <= h.timeMs, "envelope-time", `injected at ${e.injectMs} ms, sealed at ${h.timeMs} ms`);
  inclusion(h.alg, leafHash(h.alg, e.raw), e.index - h.txStart, h.txCount, path, h.txRoot);
}

/** What is shown of a transaction, against its envelope; gives its attributes and adds sentences. */
export function content(e, alg, shown, say) {
  if (shown.payload) {
    need(e.salted === !!shown.salt, "salt", e.salted ? "a salted payload is shown without its salt" : "a salt that nothing uses");
    const length = BigInt(shown.payload.length);
    need(e.payloadLen === length, "payload-length", `the payload has ${length} bytes, the envelope says ${e.payloadLen}`);
    const hash = e.salted ? H(alg, Uint8Array.of(2), shown.salt, shown.payload) : H(alg, shown.payload);
    need(equal(hash, e.payloadHash), "payload-hash", `the payload is not the one that transaction ${e.index} hashes`);
    say(`the payload shown, ${length} bytes, is the one that was hashed`);
  } else {
    need(!shown.salt, "salt", "a salt is shown without its payload");
    say("the payload is not shown: nothing is said about the content");
  }
  if (!shown.attributes) {
    const none = e.attributesHash.every((byte) => byte === 0);
    say(none ? "the transaction has no key, id or author" : "the attributes are not shown: nothing is said about key, id or author");
    return {};
  }
  const hash = shown.attributes.length ? H(alg, shown.attributes) : new Uint8Array(32);
  need(equal(hash, e.attributesHash), "attributes-hash", `the attributes are not those that transaction ${e.index} hashes`);
  const found = attributes(shown.attributes);
  const parts = [found.key && `key ${sayBytes(found.key)}`, found.id && `id ${sayBytes(found.id)}`, found.author && `author ${hex(found.author)}`];
  say(`the attributes shown are those that were hashed: ${parts.filter(Boolean).join(", ") || "no key, id or author"}`);
  return found;
}

/** Section 5: whether the author that the attributes name signed. `genesis` is shown or not. */
export function author(e, found, genesis, say) {
  if (!found.author) return null;
  const facts = genesis && equal(genesis.header.id, e.chainId) ? genesis : null;
  const family = facts?.constitution.familyId ?? e.chainId;
  const [key, id] = [found.key ?? new Uint8Array(0), found.id ?? new Uint8Array(0)];
  const message = concat("qbc/tx/v1\n\0", family, e.raw.subarray(4, 6), be(key.length, 4), key, be(id.length, 4), id, e.payloadHash);
  const holds = ed25519(found.author, message, found.signature);
  need(holds || !facts, "author-signature", "the author's signature is not over this transaction");
  if (holds) say(`signed by ${hex(found.author)}; not shown that this key was an author of the chain`);
  else say(`names author ${hex(found.author)}, whose signature is not checked: the family is not shown`);
  return holds ? found.author : null;
}

function order(a, b) {
  need(a.alg === b.alg, "hash-alg", "the headers have different hash algorithms");
  need(a.height < b.height, "height-order", `height ${a.height} is not below ${b.height}`);
  need(!a.final, "final", "nothing extends a final Quant");
  need(b.timeMs >= a.timeMs, "time-order", "time falls");
  need(b.sum >= a.sum, "count-order", "the count of transactions falls");
  if (b.height === a.height + 1n) {
    need(equal(b.prevHash, a.hash), "neighbour-hash", "prev_hash is not the hash of the Quant before");
    need(b.txStart === a.sum, "neighbour-count", "numbers of transactions are skipped");
  }
}

/** Header to a later header of the same lineage. */
export function historyLink(a, b, path, borders = []) {
  order(a, b);
  let [owner, chain, below] = [b.id, b.id, b.height + 1n];
  for (const g of borders) {
    need(g.fork && equal(g.hash, chain), "border", `the header at height ${g.height} is not the fork-genesis of chain ${hex(chain)}`);
    need(g.alg === b.alg, "hash-alg", "a border has another hash algorithm");
    need(g.height < below, "border-height", `the border at height ${g.height} is not below`);
    [chain, below] = [g.chainId, g.height];
    if (a.height < g.height) owner = chain;
  }
  need(equal(a.id, owner), "lineage", `height ${a.height} belongs to chain ${hex(owner)}, the header is of chain ${hex(a.id)}`);
  inclusion(b.alg, a.hash, a.height, b.height, path, b.histRoot);
}

/** The extension conditions, with the id of `b` as the caller reads it. */
function continues(a, b, id, path) {
  need(equal(a.id, id), "extension-chain", `the old head is of chain ${hex(a.id)}, the new one of chain ${hex(id)}`);
  order(a, b);
  extensionPath(b.alg, a.hash, a.height, b.height, path, b.histRoot, a.histRoot);
}

export function extension(a, b, path) {
  if (a.height !== b.height || !equal(a.id, b.id)) return continues(a, b, b.id, path);
  need(equal(a.raw, b.raw), "extension-same-height", "two Quants of one height: evidence, keep both");
  return need(!path.length, "path-length", "a head extends itself without a path");
}

/** A fork has its parent's history up to the parent's header below it. */
export function agreement(parent, g, path) {
  need(g.fork, "fork-genesis", "the header shown as a fork's first is not a fork-genesis");
  need(parent.height + 1n === g.height, "fork-height", `the fork begins at height ${g.height}, the parent's header is ${parent.height}`);
  continues(parent, g, g.chainId, path);
}

/** Header to the parent's Quant that anchors it. */
export function anchorLink(child, parent, index, path) {
  need(child.alg === parent.alg, "hash-alg", "child and parent have different hash algorithms");
  const leaf = concat("QAN1", child.id, be(child.height, 8), child.hash);
  inclusion(parent.alg, leafHash(parent.alg, leaf), index, parent.anchorCount, path, parent.anchorsRoot);
}

/** Section 20: the value of a state key, or null where the proof says that it has none. */
export function stateValue(alg, root, stateKey, proof) {
  need(proof.length >= 3, "state-form", "no kind and count");
  const [kind, count] = [proof[0], proof[1] * 256 + proof[2]];
  need(kind <= 2, "state-form", `kind ${kind} is not known`);
  need(proof.length >= 3 + 32 * count, "state-form", "the siblings are cut");
  const sibling = (i) => proof.subarray(3 + 32 * i, 35 + 32 * i);
  const rest = proof.subarray(3 + 32 * count);
  need(kind || !rest.length, "state-form", "bytes after nothing");
  need(kind !== 2 || rest.length >= 32, "state-form", "the key hash is cut");
  const own = H(alg, stateKey);
  const [place, value] = kind === 2 ? [rest.subarray(0, 32), rest.subarray(32)] : [own, rest];
  need(!kind || (value.length >= 1 && value.length <= 64), "state-value", `a value of ${value.length} bytes`);
  need(count <= (kind === 1 ? 256 : 255), "state-path", `${count} siblings`);
  const bit = (hash, at) => (hash[at >> 3] >> (7 - (at & 7))) & 1;
  if (kind === 2) {
    need(!equal(place, own), "state-leaf", "the key's own entry is shown as another's");
    for (let i = 0; i < count; i++) need(bit(place, i) === bit(own, i), "state-leaf", "the other entry lies elsewhere");
  }
  const empty = emptyRoot(alg);
  need(!count || !equal(sibling(0), empty), "state-path", "the lowest sibling is empty");
  let acc = kind ? leafHash(alg, "QST1", place, value) : empty;
  for (let i = 0; i < count; i++) {
    acc = bit(own, count - 1 - i) ? nodeHash(alg, sibling(i), acc) : nodeHash(alg, acc, sibling(i));
  }
  need(equal(acc, root), "state-root", "the way leads to another root");
  return kind === 1 ? value : null;
}

