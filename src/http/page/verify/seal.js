// Who may seal: certificates, head signatures, quorum, authority changes, the super log. docs/FORMAT.md sections 8 and 11.

import { base64, be, big, concat, equal, hex, need, number } from "./bytes.js";
import { verify as ed25519 } from "./ed25519.js";
import { authority, firstQuant, header, inclusion, leafHash, meta } from "./forms.js";
import { H, sha3 } from "./hash.js";
import { historyLink, sayQuant } from "./links.js";
import * as mldsa from "./mldsa.js";

/** By number: name, bytes of a public key, bytes of a signature. */
const ALGORITHMS = { 1: ["ed25519", 32, 64], 2: ["ml-dsa-44", mldsa.PUBLIC_BYTES, mldsa.SIGNATURE_BYTES] };

/** Whether a signature of an algorithm holds. */
export function holds(alg, key, message, signature) {
  const sizes = ALGORITHMS[alg];
  need(sizes, "signature-alg", `signature algorithm ${alg} is not known`);
  need(signature.length === sizes[2], "signature-format", `a signature of ${signature.length} bytes`);
  need(key.length === sizes[1], "certificate-format", `a key of ${key.length} bytes`);
  return (alg === 1 ? ed25519 : mldsa.verify)(key, message, signature);
}

/** `m u8 || m x (index u8, signature 64)` by different root keys, at least the threshold. */
function rootSignatures(raw, message, by, prefix) {
  need(raw.length && raw.length === 1 + 65 * raw[0], `${prefix}-format`, "the root signatures are cut");
  const used = new Set();
  for (let at = 1; at < raw.length; at += 65) {
    need(raw[at] < by.roots.length && !used.has(raw[at]), `${prefix}-root`, `root key ${raw[at]} is not there, or signs twice`);
    used.add(raw[at]);
    need(ed25519(by.roots[raw[at]], message, raw.subarray(at + 1, at + 65)), `${prefix}-signature`, `the signature of root key ${raw[at]} is not over these bytes`);
  }
  need(used.size >= by.threshold, `${prefix}-threshold`, `${used.size} root keys signed, ${by.threshold} are needed`);
}

/** A certificate's fields, with its form checked. */
function certificate(raw) {
  const end = 29 + number(raw, 25, 4);
  const form = (condition) => need(condition, "certificate-format", "the certificate is cut or of another form");
  form(raw.length >= 29);
  need(ALGORITHMS[raw[24]], "signature-alg", `the certificate's algorithm ${raw[24]} is not known`);
  form(end - 29 === ALGORITHMS[raw[24]][1] && raw.length > end + 16);
  form(raw.length === end + 17 + 65 * raw[end + 16]);
  return { clusterId: raw.subarray(0, 16), node: big(raw, 16, 8), alg: raw[24], key: raw.subarray(29, end), from: big(raw, end, 8), to: big(raw, end + 8, 8), signed: raw.subarray(0, end + 16), roots: raw.subarray(end + 16) };
}

/** A node's signature over `message(certificate)`; gives node, algorithm and key. */
function nodeSignature(s, message, check, clusterId, by) {
  need(ALGORITHMS[s.alg], "signature-alg", `signature algorithm ${s.alg} is not known`);
  need(s.signature.length === ALGORITHMS[s.alg][2], "signature-format", `a signature of ${s.signature.length} bytes`);
  const c = certificate(s.certificate);
  need(equal(c.clusterId, clusterId), "certificate-cluster", `the certificate of node ${c.node} is of another cluster`);
  need(s.alg === c.alg, "signature-alg", `the signature's algorithm is ${s.alg}, the certificate's is ${c.alg}`);
  need(equal(sha3(c.key), s.keyId), "signature-key", "the key id is not that of the certificate's key");
  need(c.from <= s.timeS && s.timeS <= c.to, "certificate-time", `signed at second ${s.timeS}, but the certificate holds from ${c.from} to ${c.to}`);
  rootSignatures(c.roots, concat("qbc/node/v1\n\0", c.signed), by, "certificate");
  need(holds(s.alg, c.key, message(c), s.signature), check, `the signature of node ${c.node} is not over these bytes`);
  return { node: c.node, alg: s.alg, key: hex(c.key) };
}

function distinct(signers) {
  const seen = (name) => new Set(signers.map(name)).size === signers.length;
  need(seen((s) => `${s.node} ${s.alg}`), "quorum-node", "a node signed twice with one algorithm; it counts once");
  need(seen((s) => s.key), "quorum-key", "one public key is that of two nodes");
}

export const nodesOf = (signers) => [...new Set(signers.map((s) => s.node))].sort((a, b) => (a < b ? -1 : 1));
const algsOf = (signers) => [...new Set(signers.map((s) => s.alg))].sort().map((alg) => ALGORITHMS[alg][0]).join(" and ");
const sayNodes = (nodes) => `${nodes.length === 1 ? "node" : "nodes"} ${nodes.join(", ")}`;

/** Meta record 6: the next authority. */
function authorityChange(h, rawMeta, chainId, facts) {
  const raw = meta(h, rawMeta).get(6);
  need(raw, "authority-missing", `Quant ${h.height} carries no authority change`);
  const split = raw.length - 1 - 65 * ((((raw.length - 6) % 32) + 32) % 32);
  need(split > 4, "authority-format", "the authority change is cut");
  need(number(raw, 0, 4) === facts.seq + 1, "authority-seq", "a change is missing or shown twice");
  const next = authority(raw.subarray(4, split));
  const message = concat("qbc/root/v1\n\0", chainId, raw.subarray(0, 4), H(h.alg, facts.authority.raw), H(h.alg, next.raw));
  rootSignatures(raw.subarray(split), message, facts.authority, "authority");
  return { ...facts, authority: next, seq: facts.seq + 1 };
}

/** Section 10, anchored 2.1 to 2.6: what the evidence about the last header shows; null where no genesis is. */
export function checkHead(b, head, required = []) {
  if (!head.genesis) {
    need(!required.length, "signature-required", `${required[0]} is required, and no genesis is shown under which a signature could be checked`);
    need(!head.signatures.length && !head.changes.length, "genesis-missing", "signatures or authority changes are shown without the genesis that says who may sign");
    return null;
  }
  const { header: g, constitution } = firstQuant(...head.genesis);
  need(equal(g.hash, b.id), "genesis-id", `the genesis shown is not that of chain ${hex(b.id)}`);
  need(equal(g.raw, b.raw) || g.height < b.height, "height-order", `the head's height ${b.height} is not above its genesis's ${g.height}`);
  let facts = { header: g, constitution, authority: constitution.authority, seq: 0 };
  let below = g.height;
  for (const change of head.changes) {
    const h = header(change.header);
    need(h.height > below, "authority-order", `the change at height ${h.height} is not above height ${below}`);
    enoughWork(h, facts);
    historyLink(h, b, change.path);
    facts = authorityChange(h, change.meta, b.id, facts);
    below = h.height;
  }
  const message = (s) => (c) => concat("qbc/quant/v1\n\0", c.clusterId, be(c.node, 8), be(s.timeS, 8), b.id, be(b.height, 8), b.hash);
  const signers = head.signatures.map((s) => nodeSignature(s, message(s), "head-signature", constitution.clusterId, facts.authority));
  distinct(signers);
  const wanted = constitution.signers;
  const nodes = nodesOf(signers);
  need(!signers.length || nodes.length >= wanted, "quorum-count", `${nodes.length} nodes signed, the constitution asks for ${wanted}`);
  for (const name of required) {
    const count = signers.filter((s) => ALGORITHMS[s.alg][0] === name).length;
    need(count >= wanted, "signature-required", `${name} is required, and ${count} nodes of the ${wanted} that are needed signed with it`);
  }
  return { ...facts, nodes, algs: algsOf(signers) };
}

/** Record 12 asks for zero bits of every header but the first. */
export function enoughWork(h, facts) {
  const minimum = facts?.constitution.workMinimum;
  need(!minimum || h.first || h.powBits >= minimum, "work-minimum", `Quant ${h.height} has work of ${h.powBits} bits, the constitution's minimum is ${minimum}`);
}

export function sayHead(b, facts, say) {
  if (!facts) return;
  say(`chain ${hex(b.id)} was banged under the name ${JSON.stringify(facts.constitution.name)}, by the constitution shown`);
  if (facts.seq) say(`its authority was changed ${facts.seq} times, each change signed by the old one`);
  if (facts.nodes.length) say(`${sayQuant(b)} is signed by ${sayNodes(facts.nodes)} with ${facts.algs}, certified by the chain's authority`);
}

/** Section 11, super log: the header is in the log of all chains. */
export function logged(h, log) {
  const leaf = leafHash(2, "QHR1", h.id, be(h.height, 8), h.hash);
  inclusion(2, leaf, log.index, log.size, log.path, log.root);
  const group = leafHash(2, "QGR1", be(log.group, 4), be(log.size, 8), log.root);
  inclusion(2, group, log.superIndex, log.checkpoint.size, log.superPath, log.checkpoint.root);
}

/** The signers of a checkpoint. */
export function checkpointSigners(log, facts) {
  const { clusterId, size, root, signatures } = log.checkpoint;
  if (!signatures.length) return [];
  need(facts, "genesis-missing", "the checkpoint's signatures are shown without the genesis that says who may sign");
  need(equal(clusterId, facts.constitution.clusterId), "checkpoint-cluster", "the checkpoint is of another cluster than the chain");
  const text = `qbc/${hex(clusterId)}\n${size}\n${base64(root)}\n`;
  const message = (s) => () => concat(`cosignature/v1\ntime ${s.timeS}\n${text}`);
  const signers = signatures.map((s) => nodeSignature(s, message(s), "checkpoint-signature", clusterId, facts.authority));
  distinct(signers);
  return signers;
}

export function sayLog(b, log, signers, say) {
  const { clusterId, size, root } = log.checkpoint;
  say(`${sayQuant(b)} was in the log of all chains of cluster ${hex(clusterId)}: head ${log.index} of group ${log.group}, whose log of ${log.size} is leaf ${log.superIndex} of ${size} (root ${hex(root)}). It was there; that it is the latest is not shown`);
  if (signers.length) say(`that log at ${size} is signed by node ${nodesOf(signers).join(", ")} with ${algsOf(signers)}, certified by the chain's authority`);
}

/** Section 10, anchored: what the last header is worth to who trusts this. Gives who anchors it, or null. */
export function anchored(trust, b, nodes, root, say) {
  const reasons = [];
  if (trust.head) {
    if (equal(trust.head, b.hash)) {
      say(`anchored: the last header is the trusted head ${hex(trust.head)}`);
      return { by: "head", hash: trust.head };
    }
    if (root && equal(trust.head, root)) {
      say(`anchored: the last header was in the log of all chains whose root ${hex(root)} is trusted`);
      return { by: "root", hash: root };
    }
    reasons.push(`the last header is not the trusted head ${hex(trust.head)}${root ? ", nor is that the root of the log shown" : ""}`);
  }
  if (trust.chain) {
    const id = hex(trust.chain);
    if (equal(trust.chain, b.id) && nodes.length) {
      say(`anchored: signed for the trusted chain ${id} by ${sayNodes(nodes)}`);
      return { by: "chain", id: trust.chain, nodes };
    }
    if (equal(trust.chain, b.id)) reasons.push(`chain ${id} is trusted, but the proof shows no signatures under its genesis`);
    else reasons.push(`the last header is of chain ${hex(b.id)}, not of the trusted chain ${id} (a fork or a parent of it is another chain)`);
  }
  if (!reasons.length) reasons.push("no trusted head or chain was given");
  say(`self-consistent, vouched for by nobody: ${reasons.join("; ")}`);
  return null;
}

