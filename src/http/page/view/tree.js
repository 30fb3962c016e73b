// The tree of chains: who was forked from whom, and at which height; who was split into whom.

import { every, hexOf, listChains } from "../api.js";
import { count, el, glyph, put, svg, trouble } from "../dom.js";

const SHOWN = 1000;
const ROW = 44;
const COLUMN = 250;
const WIDTH = 190;

export async function show(place, _, signal) {
  const told = el("div");
  const drawing = el("div", { class: "tree" });
  const rest = el("p", { class: "quiet" });
  place.append(el("div", { class: "head" }, el("h1", {}, "Tree"), el("p", { class: "legend" }, el("span", { class: "line fork" }), " fork, at the height that both share ", el("span", { class: "line split" }), " split")), told, drawing, rest);
  let before = "";
  const turn = async () => {
    const { chains, more } = await listChains("", SHOWN, signal);
    put(told);
    const now = JSON.stringify(chains.map((chain) => [chain.name, chain.chain_id, chain.height, chain.split?.done]));
    if (now === before) return;
    before = now;
    const { roots, single } = grow(chains);
    put(drawing, roots.length ? draw(roots) : el("p", { class: "empty" }, "No chain was forked or split yet."));
    put(rest, single ? `${count(single)}${more ? " and more" : ""} chains stand alone.` : null);
  };
  every(3000, signal, turn, (error) => put(told, trouble(error)));
}

/** Parents and children; roots are those that have children and no parent. */
export function grow(chains) {
  const nodes = new Map(chains.map((chain) => [chain.name, { chain, name: chain.name, children: [], parent: null, how: "" }]));
  const byId = new Map([...nodes.values()].map((node) => [node.chain.chain_id, node]));
  for (const node of nodes.values()) {
    const from = node.chain.forked_from;
    const above = nodes.get(node.name.replace(/\/[^/]*$/, ""));
    const split = above && above !== node && above.chain.split?.subchains?.some((one) => one.chain_id === node.chain.chain_id);
    const parent = from ? (byId.get(from.chain_id) ?? nodes.get(from.name)) : split ? above : null;
    if (!parent || parent === node) continue;
    node.parent = parent;
    node.how = from ? `at ${from.height ?? 0}` : "";
    node.kind = from ? "fork" : "split";
    parent.children.push(node);
  }
  const tops = [...nodes.values()].filter((node) => !node.parent);
  return { roots: tops.filter((node) => node.children.length), single: tops.filter((node) => !node.children.length).length };
}

function draw(roots) {
  const placed = [];
  let [row, depth] = [0, 0];
  const seat = (node, column) => {
    depth = Math.max(depth, column);
    node.x = column * COLUMN + 1;
    const first = row;
    node.children.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true })).forEach((child) => seat(child, column + 1));
    node.y = node.children.length ? (node.children[0].y + node.children.at(-1).y) / 2 : first * ROW + 2;
    if (!node.children.length) row++;
    placed.push(node);
  };
  for (const root of roots) {
    seat(root, 0);
    row += 0.4;
  }
  const [width, height] = [depth * COLUMN + WIDTH + 4, row * ROW + 4];
  const lines = placed.filter((node) => node.parent).map(edge);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Forks and subchains" }, lines, placed.map(box));
}

function edge(node) {
  const from = { x: node.parent.x + WIDTH, y: node.parent.y + 17 };
  const to = { x: node.x, y: node.y + 17 };
  const middle = (from.x + to.x) / 2;
  const path = svg("path", { class: `edge ${node.kind}`, d: `M${from.x} ${from.y}C${middle} ${from.y} ${middle} ${to.y} ${to.x} ${to.y}` });
  const label = node.how ? svg("text", { class: "edge-label", x: to.x - 6, y: to.y - 5, "text-anchor": "end" }, node.how) : null;
  return [path, label];
}

function box(node) {
  const { chain, name, x, y } = node;
  const last = node.kind === "split" ? `…/${name.split("/").at(-1)}` : name;
  const mark = glyph(hexOf(chain.chain_id), 20);
  mark.setAttribute("x", x + 8);
  mark.setAttribute("y", y + 7);
  return svg(
    "a",
    { href: `#/chain/${encodeURIComponent(name)}`, class: "row-link", "data-chain": name, "aria-label": `${name}, height ${chain.height ?? 0}${node.parent ? `, ${node.kind} of ${node.parent.name} ${node.how}` : ""}` },
    svg("title", {}, name),
    svg("rect", { x, y, width: WIDTH, height: 34, rx: 7 }),
    mark,
    svg("text", { x: x + 36, y: y + 22 }, last.length > 17 ? `${last.slice(0, 16)}…` : last),
    svg("text", { class: "number", x: x + WIDTH - 9, y: y + 22, "text-anchor": "end" }, `${chain.height ?? 0}`),
  );
}
