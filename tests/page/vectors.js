// Holds the verifier of the page against the vectors: everything that they prove must hold, everything corrupted must be
// refused by a named check. Runs in the browser (tests/page) and in node; `load` gives a file of tests/vectors or
// docs/FORMAT.md as text, `modules` the verifier's modules by name.

export async function run(modules, load) {
  const { bytes: b, forms: f, links: l, seal: s, proof: p, ed25519, hash } = modules;
  const failures = [];
  let passed = 0;
  const raw = (text) => b.fromHex(text);
  const path = (list) => list.map(raw);
  const note = (holds, what) => (holds ? passed++ : failures.push(what));
  const accepts = (what, call) => {
    try {
      const value = call();
      passed++;
      return value;
    } catch (error) {
      failures.push(`${what}: ${error.check ?? error.stack}: ${error.message}`);
      return undefined;
    }
  };
  const refuses = (what, names, call) => {
    try {
      call();
      failures.push(`${what}: accepted`);
    } catch (error) {
      const named = error instanceof b.Refused && (!names.length || names.includes(error.check));
      note(named, `${what}: refused by ${error.check ?? error.stack}, not by ${names}`);
    }
  };
  const flip = (data, bit) => {
    const out = Uint8Array.from(data);
    out[bit >> 3] ^= 1 << (bit & 7);
    return out;
  };
  const badPaths = (good) => {
    const out = [["extended", [...good, new Uint8Array(32)]]];
    if (good.length) {
      out.push(["cut at the end", good.slice(0, -1)], ["cut at the start", good.slice(1)]);
      out.push(["a bit", [flip(good[0], 77), ...good.slice(1)]], ["the last bit", [...good.slice(0, -1), flip(good.at(-1), 255)]]);
    }
    if (good.length > 1) out.push(["swapped", [good[1], good[0], ...good.slice(2)]]);
    return out;
  };
  const json = async (name) => JSON.parse(await load(`tests/vectors/${name}`));

  function trees(all) {
    for (const tree of all) {
      const root = raw(tree.root);
      for (const one of tree.inclusion) {
        const [leaf, good, what] = [raw(one.leaf), path(one.path), `leaf ${one.index} of ${tree.size}`];
        accepts(what, () => f.inclusion(tree.alg, leaf, one.index, tree.size, good, root));
        for (const [name, bad] of badPaths(good)) refuses(`${what}: ${name}`, [], () => f.inclusion(tree.alg, leaf, one.index, tree.size, bad, root));
        refuses(`${what}: a bit of the leaf`, ["inclusion-root"], () => f.inclusion(tree.alg, flip(leaf, 9), one.index, tree.size, good, root));
        refuses(`${what}: index is size`, ["inclusion-index"], () => f.inclusion(tree.alg, leaf, tree.size, tree.size, good, root));
      }
    }
  }

  function transaction(t, h, genesis) {
    const what = `transaction ${t.index} of ${b.hex(h.id).slice(0, 8)}`;
    const [rawEnvelope, good] = [raw(t.envelope), path(t.path)];
    const shown = { payload: raw(t.payload), attributes: raw(t.attributes ?? ""), salt: t.salt ? raw(t.salt) : undefined };
    const e = f.envelope(rawEnvelope);
    const whole = (changed, by = genesis) => l.author(e, l.content(e, h.alg, { ...shown, ...changed }, () => {}), by, () => {});
    accepts(what, () => l.quantLink(e, h, good));
    const signer = accepts(what, () => whole({}));
    note((signer ? b.hex(signer) : null) === (t.author ?? null), `${what}: its author`);
    const found = accepts(what, () => f.attributes(shown.attributes)) ?? {};
    for (const name of ["key", "id", "author", "signature"]) note((found[name] ? b.hex(found[name]) : null) === (t[name] ?? null), `${what}: ${name}`);
    for (const [name, bad] of badPaths(good)) refuses(`${what}: path ${name}`, [], () => l.quantLink(e, h, bad));
    for (let bit = 64; bit < 1024; bit += 101) refuses(`${what}: envelope bit ${bit}`, [], () => l.quantLink(f.envelope(flip(rawEnvelope, bit)), h, good));
    refuses(`${what}: payload`, ["payload-length"], () => whole({ payload: b.concat(shown.payload, "x") }));
    if (shown.payload.length) refuses(`${what}: a bit of the payload`, ["payload-hash"], () => whole({ payload: flip(shown.payload, 3) }));
    refuses(`${what}: attributes`, ["attributes-hash"], () => whole({ attributes: b.concat(shown.attributes, Uint8Array.of(128, 0, 0, 0, 0)) }));
    refuses(`${what}: salt`, ["salt"], () => whole({ salt: t.salt ? undefined : new Uint8Array(32) }));
    if (t.author) {
      const other = { ...genesis, constitution: { ...genesis.constitution, familyId: new Uint8Array(32) } };
      refuses(`${what}: another family`, ["author-signature"], () => whole({}, other));
    }
  }

  function chain(vector) {
    const first = vector.quants[0];
    const genesis = accepts("the first Quant", () => f.firstQuant(raw(first.header), raw(first.meta)));
    if (!genesis) return new Map();
    note(b.hex(genesis.header.hash) === vector.chain_id, "the chain's id is the hash of its first Quant");
    const headers = new Map();
    for (const quant of vector.quants) {
      const [rawHeader, meta] = [raw(quant.header), raw(quant.meta)];
      const h = f.header(rawHeader);
      headers.set(Number(h.height), h);
      note(b.hex(h.hash) === quant.quant_hash, "quant_hash");
      accepts("meta", () => f.meta(h, meta));
      if (meta.length) refuses("meta with a flipped bit", ["meta-hash"], () => f.meta(h, flip(meta, 0)));
      refuses("header with a bit in its zero bytes", ["header-zero"], () => f.header(flip(rawHeader, 640)));
      refuses("a cut header", ["header-length"], () => f.header(rawHeader.subarray(1)));
      for (const t of quant.transactions) transaction(t, h, genesis);
    }
    return headers;
  }

  function extensions(vector, headers) {
    for (const one of vector.extensions) {
      const [old, next, good] = [headers.get(one.old), headers.get(one.new), path(one.path)];
      const what = `extension ${old.height} to ${next.height}`;
      accepts(what, () => l.extension(old, next, good));
      for (const [name, bad] of badPaths(good)) refuses(`${what}: ${name}`, [], () => l.extension(old, next, bad));
      refuses(`${what}: another past`, ["extension-old-root"], () => l.extension({ ...old, histRoot: new Uint8Array(32) }, next, good));
      refuses(`${what}: backwards`, ["height-order"], () => l.extension(next, old, good));
      refuses(`${what}: final`, ["final"], () => l.extension({ ...old, final: true }, next, good));
    }
  }

  function forks(vectors, main) {
    const [fork, second] = [chain(vectors.fork), chain(vectors.fork_of_fork)];
    extensions(vectors.fork, new Map([...main, ...fork]));
    const genesis = fork.get(Math.min(...fork.keys()));
    const { parent_height: height, path: good } = vectors.fork.agreement;
    accepts("agreement", () => l.agreement(main.get(height), genesis, path(good)));
    refuses("agreement read as extension", ["extension-chain"], () => l.extension(main.get(height), genesis, path(good)));
    refuses("a fork-genesis that is none", ["fork-genesis"], () => l.agreement(main.get(height), { ...genesis, fork: false }, path(good)));
    const lower = [...fork].filter(([at]) => at <= 20);
    const lineages = { fork: new Map([...main, ...fork]), fork_of_fork: new Map([...main, ...lower, ...second]) };
    for (const one of vectors.across) {
      const headers = lineages[one.chain];
      const [a, z, way] = [headers.get(one.old), headers.get(one.new), path(one.path)];
      const borders = one.borders.map((border) => f.header(raw(border)));
      const what = `across ${one.chain} ${a.height} to ${z.height}`;
      accepts(what, () => l.historyLink(a, z, way, borders));
      for (const [name, bad] of badPaths(way)) refuses(`${what}: ${name}`, [], () => l.historyLink(a, z, bad, borders));
      refuses(`${what}: swapped borders`, [], () => l.historyLink(a, z, way, [...borders.slice(1), z]));
      if (!b.equal(a.id, z.id)) refuses(`${what}: no borders`, ["lineage"], () => l.historyLink(a, z, way));
    }
  }

  function anchors(vectors) {
    const parent = chain(vectors.parent);
    const children = vectors.children.map(chain);
    for (const one of vectors.anchors) {
      const [h, c, way] = [parent.get(one.parent_height), children[one.child].get(one.child_height), path(one.path)];
      accepts("anchor", () => l.anchorLink(c, h, one.index, way));
      for (const [name, bad] of badPaths(way)) refuses(`anchor: ${name}`, [], () => l.anchorLink(c, h, one.index, bad));
      refuses("anchor: index", ["inclusion-index"], () => l.anchorLink(c, h, h.anchorCount, way));
      refuses("anchor: another child", ["inclusion-root"], () => l.anchorLink({ ...c, id: new Uint8Array(32) }, h, one.index, way));
    }
  }

  function signatures(vectors) {
    const key = raw(vectors.public_key);
    for (const one of vectors.heads) {
      const [message, signature] = [raw(one.message), raw(one.signature)];
      note(ed25519.verify(key, message, signature), "head signature");
      for (const bit of [0, 100, 255, 256, 400, 511]) {
        note(!ed25519.verify(key, message, flip(signature, bit)), "head signature with a flipped bit");
        note(!ed25519.verify(key, flip(message, bit), signature), "head message with a flipped bit");
      }
    }
    const small = Uint8Array.from({ length: 32 }, (_, i) => (i ? 0 : 1));
    note(!ed25519.verify(small, new Uint8Array(0), b.concat(small, new Uint8Array(32))), "a key of small order");
  }

  const record = (data) => ({ alg: data[0], keyId: data.subarray(1, 33), timeS: b.big(data, 33, 8), signature: data.subarray(41, 105), certificate: data.subarray(105) });

  function sealers(all) {
    for (const vector of all) {
      const headers = chain(vector);
      const quant = (height) => [raw(vector.quants[height].header), raw(vector.quants[height].meta)];
      for (const one of vector.heads) {
        const h = headers.get(one.height);
        const what = `signed head ${one.height} of ${b.hex(h.id).slice(0, 8)}`;
        const signed = one.signatures.map((signature) => record(raw(signature.record)));
        const changes = one.authority_changes.map((change) => ({ header: quant(change.height)[0], meta: quant(change.height)[1], path: path(change.path) }));
        const check = (list, by = changes) => s.checkHead(h, { genesis: quant(0), signatures: list, changes: by });
        const facts = accepts(what, () => check(signed));
        note(String(facts?.nodes) === String(one.signatures.map((signature) => signature.node_id)), `${what}: its nodes`);
        refuses(`${what}: one twice`, ["quorum-node"], () => check([...signed, signed[0]]));
        if (signed.length > 1) refuses(`${what}: one signature less`, ["quorum-count"], () => check(signed.slice(1)));
        if (changes.length) {
          refuses(`${what}: without its changes`, [], () => check(signed, []));
          refuses(`${what}: without the first change`, [], () => check(signed, changes.slice(1)));
        }
        const data = raw(one.signatures[0].record);
        for (let bit = 0; bit < 8 * data.length; bit += 131) refuses(`${what}: bit ${bit}`, [], () => check([record(flip(data, bit)), ...signed.slice(1)]));
      }
    }
  }

  function states(all) {
    for (const vector of all) {
      const root = raw(vector.root);
      for (const one of vector.proofs) {
        const [key, proof, what] = [raw(one.state_key), raw(one.proof), `state: ${one.state_key}`];
        const value = accepts(what, () => l.stateValue(vector.alg, root, key, proof));
        note((value ? b.hex(value) : null) === one.value, `${what}: its value`);
        for (let bit = 0; bit < 8 * proof.length; bit += 61) refuses(`${what}: bit ${bit}`, [], () => l.stateValue(vector.alg, root, key, flip(proof, bit)));
        refuses(`${what}: another root`, ["state-root"], () => l.stateValue(vector.alg, new Uint8Array(32), key, proof));
      }
      for (const one of vector.refused) refuses(`state: ${one.what}`, [one.check], () => l.stateValue(vector.alg, raw(one.root), raw(one.state_key), raw(one.proof)));
    }
  }

  function superLog(vectors) {
    const chain = raw(vectors.chain_id);
    for (const one of vectors.good) {
      const [text, root] = [JSON.stringify(one.proof), raw(one.proof.log.checkpoint.root)];
      const verdict = accepts(one.name, () => p.verifyProof(text, { chain }));
      note(!!verdict?.anchored === one.by_chain, `${one.name}: anchored by the chain`);
      note(p.verifyProof(text, { head: root }).anchored?.by === "root", `${one.name}: anchored by the root`);
      note(!p.verifyProof(text, { head: new Uint8Array(32) }).anchored, `${one.name}: anchored by another root`);
    }
    for (const one of vectors.bad) refuses(one.name, [one.check], () => p.verifyProof(JSON.stringify(one.proof), { chain }));
    const quorum = accepts("a quorum", () => p.verifyProof(JSON.stringify(vectors.quorum.proof), { chain: raw(vectors.quorum.chain_id) }));
    note(quorum && !quorum.anchored, "a checkpoint alone is not the word of a quorum");
  }

  function postQuantum(vectors) {
    for (const one of vectors.signatures) {
      const [key, message, signature] = [raw(one.public), raw(one.message), raw(one.signature)];
      note(s.holds(2, key, message, signature), "an ML-DSA-44 signature");
      note(!s.holds(2, key, b.concat(message, "x"), signature), "an ML-DSA-44 signature over another message");
    }
    for (const one of vectors.malformed) refuses(`ML-DSA-44: ${one.what}`, [one.check], () => s.holds(2, raw(one.public), raw(one.message), raw(one.signature)));
    for (const one of vectors.proofs) {
      for (const [algorithms, name] of Object.entries(one.policies)) {
        const trust = { chain: raw(one.chain_id), require: algorithms ? algorithms.split(",") : [] };
        const [what, text] = [`${one.what}, ${algorithms}`, JSON.stringify(one.proof)];
        if (name) refuses(what, [name], () => p.verifyProof(text, trust));
        else note(accepts(what, () => p.verifyProof(text, trust))?.anchored, `${what}: anchored`);
      }
    }
  }

  function example(format) {
    const text = format.split("<!-- example-proof -->\n```json\n")[1].split("```")[0];
    const id = raw("1cb500b5ce4b063c059290530d3d883541c73fff59200da016b80c724613333b");
    const verdict = accepts("the example", () => p.verifyProof(text, { chain: id }));
    note(verdict?.anchored?.by === "chain" && b.text(verdict.transaction.payload) === "second", "what the example shows");
    const trusted = (changed) => b.need(p.verifyProof(changed, { chain: id }).anchored, "not-anchored", "vouched for by nobody");
    refuses("another chain's trust", ["not-anchored"], () => b.need(p.verifyProof(text, { chain: new Uint8Array(32) }).anchored, "not-anchored"));
    for (let at = 0; at < text.length; at++) {
      const digit = /[0-9a-f]/.test(text[at]) && /[0-9a-f]/.test(text[at - 1] ?? "");
      if (digit && at % 19 === 0) refuses(`byte ${at} changed`, [], () => trusted(text.slice(0, at) + (text[at] === "0" ? "1" : "0") + text.slice(at + 1)));
    }
    for (let cut = 1; cut < text.length - 2; cut += 499) refuses(`cut at ${cut}`, ["json"], () => trusted(text.slice(0, cut)));
    for (const [name, change] of strictness()) {
      const bad = JSON.parse(text);
      change(bad);
      refuses(`strictness: ${name}`, [name.split(":")[0]], () => trusted(JSON.stringify(bad)));
    }
    refuses("a name twice", ["duplicate-name"], () => trusted(text.replace('"qbc_proof"', '"qbc_proof": 1, "qbc_proof"')));
    for (const number of ["1.0", "1e0", "-1"]) refuses(number, ["integer"], () => trusted(text.replace('"alg": 1', `"alg": ${number}`)));
    for (const no of ["", `${text}x`, "[".repeat(100000), Uint8Array.of(255), '{"a":01}', '{"a"}', "nul"]) refuses("no JSON", ["json"], () => trusted(no));
  }

  function strictness() {
    const big = 2 ** 53 + 2;
    return [
      ["unknown-field: at the top", (x) => (x.note = "x")],
      ["unknown-field: in a step", (x) => (x.steps[0].index = 1)],
      ["unknown-field: old in an inclusion", (x) => (x.old = "00")],
      ["field: steps missing", (x) => delete x.steps],
      ["field: payload null", (x) => (x.transaction.payload = null)],
      ["field: number for bytes", (x) => (x.transaction.payload = 7)],
      ["field: log null", (x) => (x.log = null)],
      ["field: genesis null", (x) => (x.head.genesis = null)],
      ["field: a claim of an object's own", (x) => (x.claim = "constructor")],
      ["hex: upper case", (x) => (x.transaction.payload = x.transaction.payload.toUpperCase())],
      ["hex: odd", (x) => (x.transaction.payload = "0")],
      ["hex: short hash", (x) => (x.steps[0].path = ["00"])],
      ["integer: above 2^53", (x) => (x.head.signatures[0].time_s = big)],
      ["integer: leading zero", (x) => (x.head.signatures[0].time_s = "01")],
      ["version: 2", (x) => (x.qbc_proof = 2)],
      ["grammar: none", (x) => (x.steps = [])],
      ["grammar: history first", (x) => x.steps.shift()],
      ["grammar: history twice", (x) => x.steps.push(x.steps[1])],
      ["field: a payload as a link", (x) => x.steps.unshift({ link: "payload", header: "", path: [] })],
      ["payload-hash: another payload", (x) => (x.transaction.payload = "000000000000")],
      ["payload-length: a longer payload", (x) => (x.transaction.payload = "00".repeat(7))],
      ["salt: an unsalted payload with salt", (x) => (x.transaction.salt = "00".repeat(32))],
      ["not-anchored: no signature", (x) => (x.head.signatures = [])],
      ["quorum-node: one node twice", (x) => x.head.signatures.push(x.head.signatures[0])],
      ["genesis-missing: signatures alone", (x) => delete x.head.genesis],
    ];
  }

  const one = await json("format-v1.json");
  note(b.hex(hash.sha3("abc")) === "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532", "SHA3-256 of abc");
  note(b.hex(hash.sha256("abc")) === "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "SHA-256 of abc");
  trees(one.trees);
  const mains = one.chains.map(chain);
  one.chains.forEach((vector, i) => extensions(vector, mains[i]));
  [one.signed, one.work].forEach(chain);
  forks(one, mains[0]);
  anchors(one.anchors);
  signatures(one.signatures);
  sealers((await json("format-v1-more.json")).chains);
  states((await json("format-v1-state.json")).states);
  postQuantum(await json("format-v1-mldsa.json"));
  superLog(await json("format-v1-super.json"));
  example(await load("docs/FORMAT.md"));
  return { passed, failed: failures.length, failures: failures.slice(0, 20) };
}
