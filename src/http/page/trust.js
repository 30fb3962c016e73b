// Which chain a name is: the id that this browser saw first. A name proves nothing, an id does.

const PREFIX = "qbc.chain.";

function store() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

/** `{id, since}` of a name; noted as `id` now where nothing was. */
export function trusted(name, id) {
  const known = recall(name);
  if (known || !id) return known;
  const fresh = { id, since: Date.now() };
  try {
    store()?.setItem(PREFIX + name, JSON.stringify(fresh));
  } catch {
    // Full or forbidden: what is shown is then what this visit saw.
  }
  return { ...fresh, first: true };
}

function recall(name) {
  try {
    const known = JSON.parse(store()?.getItem(PREFIX + name) ?? "null");
    return known && /^[0-9a-f]{64}$/.test(known.id) ? known : null;
  } catch {
    return null;
  }
}

/** Takes the new id for the name. */
export function forget(name) {
  store()?.removeItem(PREFIX + name);
}
