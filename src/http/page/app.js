// The shell: which view the address names, search, keys, and what the node says of itself.

import { every, get, hexOf, onLink } from "./api.js";
import { agree, el, put, say, size, trouble } from "./dom.js";
import * as chain from "./view/chain.js";
import * as chains from "./view/chains.js";
import * as cluster from "./view/cluster.js";
import * as list from "./view/list.js";
import * as quant from "./view/quant.js";
import * as search from "./view/search.js";
import * as transaction from "./view/transaction.js";
import * as tree from "./view/tree.js";

const main = document.getElementById("main");
const query = document.getElementById("query");
let leaving = new AbortController();
/** The chain that is looked at: keys and indexes are searched there. */
let here = null;

/** What `#/...` names: the view, and what it is about. */
function route() {
  const [path, search_] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  const [first, name, kind, which] = parts;
  if (first === "chain" && name && kind === "tx") return { view: transaction, name, which, tab: "chains" };
  if (first === "chain" && name && kind === "quant") return { view: quant, name, which, tab: "chains" };
  if (first === "chain" && name && kind === "from") return { view: list, name, which, tab: "chains" };
  if (first === "chain" && name) return { view: chain, name, tab: "chains" };
  if (first === "tree") return { view: tree, tab: "tree" };
  if (first === "cluster") return { view: cluster, tab: "cluster" };
  if (first === "search") return { view: search, query: new URLSearchParams(search_), tab: "" };
  return { view: chains, tab: "chains" };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const { view, tab, ...about } = route();
  here = about.name ?? null;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = el("div", { class: "view" });
  put(main, place);
  window.scrollTo(0, 0);
  document.title = about.name ? `${about.name} · QBC` : "QBC";
  try {
    await view.show(place, about, signal);
  } catch (error) {
    if (!signal.aborted) place.append(trouble(error));
  }
}

document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = query.value.trim();
  if (!text) return;
  const about = new URLSearchParams({ q: text, ...(here && { in: here }) });
  location.hash = `#/search?${about}`;
  query.blur();
});

/** Keys: / search, g then c t k for the views, j and k through rows. */
const GO = { c: "#/", t: "#/tree", k: "#/cluster" };
let going = 0;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, textarea, select, dialog");
  if (event.key === "Escape" && event.target === query) query.blur();
  if (typing) return;
  if (event.key === "/") {
    event.preventDefault();
    query.focus();
    query.select();
  } else if (event.key === "g") {
    going = Date.now();
  } else if (GO[event.key] && Date.now() - going < 1500) {
    location.hash = GO[event.key];
  } else if (event.key === "j" || event.key === "k") {
    step(event.key === "j" ? 1 : -1);
  } else if (event.key === "?") {
    say("Keys: / search · g c chains · g t tree · g k cluster · j and k through rows");
  }
});

function step(by) {
  const rows = [...main.querySelectorAll("a.row-link")];
  const at = rows.indexOf(document.activeElement);
  rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))]?.focus();
}

const link = document.getElementById("link");
onLink((answers) => {
  link.className = answers ? "good" : "bad";
  put(link, answers ? "connected" : "the node does not answer");
});

every(15000, new AbortController().signal, async () => {
  const info = await get("/v1/info");
  const words = [`node ${info.node_id}`, `QBC ${info.version}`, `cluster ${hexOf(info.cluster_id).slice(0, 8)}`, `${size(info.disk_bytes)} on disk`];
  put(document.getElementById("node"), words.join(" · "));
});
setInterval(() => agree(document), 1000);
window.addEventListener("hashchange", show);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
show();
