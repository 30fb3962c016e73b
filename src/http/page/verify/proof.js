// The verifier of a proof file: docs/FORMAT.md sections 10 and 13. It takes what `qbc prove -o` writes and says what
// `qbc verify` says. Nothing here asks the server anything.

import { Refused, big, equal, hex, need, sayBytes } from "./bytes.js";
import { envelope, header, meta } from "./forms.js";
import { bytes, bytesIf, fields, hashes, integer, list, parse } from "./json.js";
import { agreement, anchorLink, author, content, extension, historyLink, quantLink, sayQuant, stateValue } from "./links.js";
import { anchored, checkHead, checkpointSigners, enoughWork, logged, nodesOf, sayHead, sayLog } from "./seal.js";

export { Refused };

const SUBJECTS = { inclusion: "transaction", state: "state", extension: "old", agreement: "parent", parting: "parent" };

/**
 * Checks a proof file. `trust` may have `chain` or `head` (32 bytes each) and `require` (names of algorithms).
 * Gives `{claim, anchored, head, transaction, state, steps}`; throws `Refused` with the name of the check that failed.
 */
export function verifyProof(source, trust = {}) {
  const proof = parse(source);
  const walk = new Walk();
  const read = readProof(proof);
  const last = CLAIMS[read.claim](walk, read);
  if (read.log) logged(last, read.log);
  const facts = checkHead(last, read.head, trust.require ?? []);
  const signers = read.log ? checkpointSigners(read.log, facts) : [];
  walk.work(last, facts);
  if (read.state) stateKept(walk, last, facts);
  const by = walk.transaction ? author(walk.transaction.envelope, walk.transaction.attributes, facts, walk.say) : null;
  sayHead(last, facts, walk.say);
  if (read.log) sayLog(last, read.log, signers, walk.say);
  const vouching = facts && facts.constitution.signers <= 1 ? nodesOf(signers) : [];
  const nodes = facts?.nodes.length ? facts.nodes : vouching;
  return {
    claim: read.claim,
    anchored: anchored(trust, last, nodes, read.log?.checkpoint.root, walk.say),
    head: last,
    nodes,
    authoritySeq: facts?.seq ?? 0,
    constitution: facts?.constitution ?? null,
    transaction: walk.transaction && { ...walk.transaction, author: by },
    state: walk.state ?? null,
    steps: walk.steps,
  };
}

/** The headers met so far, and what was said. */
class Walk {
  constructor() {
    this.shown = [];
    this.steps = [];
    this.say = (sentence) => this.steps.push(sentence);
  }

  show(raw) {
    const h = header(raw);
    this.shown.push(h);
    return h;
  }

  history(from, step) {
    const to = this.show(step.header);
    historyLink(from, to, step.path, step.borders.map((raw) => this.show(raw)));
    this.say(`${sayQuant(from)} lies in the history of ${sayQuant(to)}`);
    if (!equal(from.id, to.id)) {
      this.say(`that history crosses a fork border: it is what the sealers of fork ${hex(to.id)} vouch for, not what those of ${hex(from.id)} do`);
    }
    return to;
  }

  anchor(child, step) {
    const parent = this.show(step.header);
    anchorLink(child, parent, step.index, step.path);
    this.say(`subchain ${hex(child.id)}: its ${sayQuant(child)} is anchor ${step.index} of ${parent.anchorCount} in its parent's ${sayQuant(parent)}`);
    return parent;
  }

  /** Every header of the chain whose constitution is shown has the work that it asks for; the work of all is told. */
  work(last, facts) {
    for (const h of this.shown) {
      const own = equal(h.id, last.id);
      if (own) enoughWork(h, facts);
      const minimum = own && facts?.constitution.workMinimum;
      const by = minimum ? `the constitution's minimum is ${minimum}` : "only its own word asks for them, no constitution is shown";
      if (h.powBits) this.say(`work of Quant ${h.height}: ${h.powBits} zero bits asked for, ${h.zeroBits} found (${by})`);
    }
  }
}

const CLAIMS = {
  inclusion: (walk, read) => included(walk, read.transaction, read.steps),
  state: stated,
  extension(walk, read) {
    const [step] = read.steps;
    need(read.steps.length === 1 && step.link === "history", "grammar", "an extension is one history link");
    need(!step.borders.length, "grammar", "an extension crosses no fork border");
    const old = walk.show(read.old);
    const next = walk.show(step.header);
    extension(old, next, step.path);
    walk.say(`${sayQuant(next)} extends ${sayQuant(old)} and rewrites nothing before or at it`);
    return next;
  },
  agreement: agreed,
  parting(walk, read) {
    const last = agreed(walk, read);
    const g = header(read.parent.forkGenesis);
    const next = walk.show(read.next);
    need(next.height === g.height, "parting-height", `the fork begins at height ${g.height}, the header shown is ${next.height}`);
    need(equal(next.id, g.chainId), "parting-chain", `the header shown is of chain ${hex(next.id)}, not of ${hex(g.chainId)}`);
    if (equal(next.raw, last.raw)) need(!read.nextPath.length, "path-length", "the parting header is the head and needs no path");
    else historyLink(next, last, read.nextPath);
    walk.say(`the parent goes its own way from there: ${sayQuant(next)} is its own`);
    return last;
  },
};

function included(walk, shown, steps) {
  const [first, ...rest] = steps;
  need(first?.link === "quant", "grammar", "an inclusion begins with the link from the transaction to its Quant");
  const e = envelope(shown.envelope);
  const sealing = walk.show(first.header);
  quantLink(e, sealing, first.path);
  const alg = sealing.alg === 1 ? "sha3" : "sha2";
  walk.say(`transaction ${e.index} (${alg} payload hash ${hex(e.payloadHash)}) is leaf ${e.index - sealing.txStart} of ${sayQuant(sealing)}`);
  const attributes = content(e, sealing.alg, shown, walk.say);
  walk.transaction = { envelope: e, height: sealing.height, attributes, payload: shown.payload ?? null };
  let [current, allowed] = [sealing, true];
  for (const step of rest) {
    need(step.link !== "quant", "grammar", "only the transaction itself is linked to a Quant");
    need(step.link === "anchor" || allowed, "grammar", "a second history link in one chain");
    current = step.link === "history" ? walk.history(current, step) : walk.anchor(current, step);
    allowed = step.link === "anchor";
  }
  return current;
}

function stated(walk, read) {
  const { header: raw, meta: rawMeta, key, proof } = read.state;
  const h = walk.show(raw);
  const record = meta(h, rawMeta).get(4);
  need(record && record[0] === h.alg, "state-missing", "the Quant commits to no state of the chain's hash");
  const value = stateValue(h.alg, record.subarray(1), key, proof);
  need(key[0] === 1 || key[0] === 2, "state-key", "the state key begins with neither 1 (latest) nor 2 (balance)");
  need(!value || value.length === (key[0] === 1 ? 8 : 16), "state-value", `a value of ${value?.length} bytes`);
  walk.state = { kind: key[0] === 1 ? "key" : "account", name: key.subarray(1), value: value && big(value) };
  if (!read.transaction) {
    need(!read.steps.length, "grammar", "steps lead to a transaction of the key, and none is shown");
    return h;
  }
  const last = included(walk, read.transaction, read.steps);
  need(equal(last.raw, h.raw), "grammar", "the key's transaction is proved into another header than the state");
  const { envelope: e, attributes } = walk.transaction;
  const latest = key[0] === 1 && attributes.key && equal(attributes.key, key.subarray(1)) && value && big(value) === e.index;
  need(latest, "state-latest", `transaction ${e.index} is shown, which is not the latest one that the state names for this key`);
  return last;
}

function stateKept(walk, last, facts) {
  const { kind, name, value } = walk.state;
  const rules = facts?.constitution;
  need(!rules || (kind === "key" ? rules.keyed : rules.ledger), "state-missing", "the chain's constitution has it keep no state of this kind");
  const at = `after ${sayQuant(last)}`;
  const said = sayBytes(name);
  if (value === null && rules?.part) {
    const here = rules.familyId ? "subchain" : "fork of a subchain";
    walk.say(`${at}, this ${here} had not taken over ${said} from the chain above it, whose state at its split Quant holds`);
  } else if (kind === "key") {
    walk.say(value === null ? `${at}, no transaction has the key ${said}` : `${at}, the latest transaction of the key ${said} is ${value}`);
  } else if (value !== null) {
    walk.say(`${at}, account ${said} has ${value}`);
  } else if (rules?.mint) {
    const first = equal(rules.mint.account, name) ? rules.mint.limit : 0n;
    walk.say(`${at}, no transfer had touched account ${said}: it has ${first}`);
  } else {
    walk.say(`${at}, no transfer had touched account ${said}: it has nothing, unless it is the mint, which the constitution would tell`);
  }
}

function agreed(walk, read) {
  const g = walk.show(read.parent.forkGenesis);
  const parent = walk.show(read.parent.header);
  agreement(parent, g, read.parent.path);
  walk.say(`fork ${hex(g.id)} has the history of its parent ${hex(parent.id)} up to Quant ${parent.height}`);
  if (!read.steps.length) return parent;
  const [step] = read.steps;
  const one = read.steps.length === 1 && step.link === "history" && !step.borders.length;
  need(one, "grammar", "the parent is linked to its head by one history link without borders");
  return walk.history(parent, step);
}

// --- section 13: the JSON

function readProof(proof) {
  need(proof instanceof Map, "field", "the proof is not an object");
  need(proof.get("qbc_proof") === 1n, "version", "qbc_proof is not 1");
  const claim = proof.get("claim");
  need(typeof claim === "string" && Object.hasOwn(SUBJECTS, claim), "field", "claim is none that is known");
  const parting = claim === "parting";
  const names = ["qbc_proof", "claim", SUBJECTS[claim], "steps", "head", ...(parting ? ["next", "next_path"] : [])];
  fields(proof, "the proof", names, claim === "state" ? ["log", "transaction"] : ["log"]);
  const subject = (name, read) => (proof.has(name) ? read(proof.get(name)) : undefined);
  return {
    claim,
    transaction: subject("transaction", readTransaction),
    state: subject("state", readState),
    old: subject("old", (raw) => bytes(raw, "old")),
    parent: subject("parent", readParent),
    next: subject("next", (raw) => bytes(raw, "next")),
    nextPath: subject("next_path", (raw) => hashes(raw, "next_path")),
    steps: list(proof.get("steps"), "steps").map(readStep),
    head: readHead(proof.get("head")),
    log: subject("log", readLog),
  };
}

function readTransaction(raw) {
  const [e, payload, salt, attributes] = fields(raw, "transaction", ["envelope"], ["payload", "salt", "attributes"]);
  return {
    envelope: bytes(e, "envelope"),
    payload: bytesIf(payload, "payload"),
    salt: bytesIf(salt, "salt", 32),
    attributes: bytesIf(attributes, "attributes"),
  };
}

function readState(raw) {
  const names = ["header", "meta", "key", "proof"];
  const values = fields(raw, "state", names).map((value, i) => bytes(value, `state.${names[i]}`));
  return Object.fromEntries(names.map((name, i) => [name, values[i]]));
}

function readParent(raw) {
  const [g, h, path] = fields(raw, "parent", ["fork_genesis", "header", "path"]);
  return { forkGenesis: bytes(g, "fork_genesis"), header: bytes(h, "parent.header"), path: hashes(path, "parent.path") };
}

const LINKS = { quant: [], history: ["borders"], anchor: ["index"] };

function readStep(raw, at) {
  const place = `step ${at}`;
  const link = raw instanceof Map ? raw.get("link") : undefined;
  need(typeof link === "string" && Object.hasOwn(LINKS, link), "field", `${place} is no link`);
  const [, h, path, extra] = fields(raw, place, ["link", "header", "path", ...LINKS[link]]);
  const step = { link, header: bytes(h, `${place}.header`), path: hashes(path, `${place}.path`) };
  if (link === "history") step.borders = list(extra, `${place}.borders`).map((border) => bytes(border, `${place}.borders`));
  if (link === "anchor") step.index = integer(extra, `${place}.index`);
  return step;
}

function readHead(raw) {
  const [signatures, changes, genesis] = fields(raw, "head", ["signatures", "authority_changes"], ["genesis"]);
  return {
    signatures: list(signatures, "signatures").map(readSignature),
    changes: list(changes, "authority_changes").map((change) => {
      const [h, m, path] = fields(change, "authority change", ["header", "meta", "path"]);
      return { header: bytes(h, "header"), meta: bytes(m, "meta"), path: hashes(path, "path") };
    }),
    genesis: raw.has("genesis") ? fields(genesis, "genesis", ["header", "meta"]).map((value) => bytes(value, "genesis")) : null,
  };
}

function readSignature(raw) {
  const [alg, keyId, timeS, signature, certificate] = fields(raw, "signature", ["alg", "key_id", "time_s", "signature", "certificate"]);
  return {
    alg: Number(integer(alg, "alg", 255n)),
    keyId: bytes(keyId, "key_id", 32),
    timeS: integer(timeS, "time_s"),
    signature: bytes(signature, "signature"),
    certificate: bytes(certificate, "certificate"),
  };
}

function readLog(raw) {
  const names = ["group", "size", "root", "index", "path", "super_index", "super_path", "checkpoint"];
  const [group, size, root, index, path, superIndex, superPath, checkpoint] = fields(raw, "log", names);
  const [clusterId, logSize, logRoot, signatures] = fields(checkpoint, "checkpoint", ["cluster_id", "size", "root", "signatures"]);
  return {
    group: integer(group, "group", 0xffffffffn),
    size: integer(size, "size"),
    root: bytes(root, "root", 32),
    index: integer(index, "index"),
    path: hashes(path, "path"),
    superIndex: integer(superIndex, "super_index"),
    superPath: hashes(superPath, "super_path"),
    checkpoint: {
      clusterId: bytes(clusterId, "cluster_id", 16),
      size: integer(logSize, "checkpoint.size"),
      root: bytes(logRoot, "checkpoint.root", 32),
      signatures: list(signatures, "signatures").map(readSignature),
    },
  };
}
