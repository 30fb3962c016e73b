// The cluster as the node that answers knows it: nodes, and groups with their leaders and replicas.

import { every, get, getText, hexOf } from "../api.js";
import { badge, copy, count, el, put, short, trouble, when } from "../dom.js";

const STATES = { NODE_STATE_ALIVE: ["alive", "good"], NODE_STATE_UNREACHABLE: ["unreachable", "bad"], NODE_STATE_JOINING: ["joining", "mark"], NODE_STATE_LEAVING: ["leaving", "mark"], NODE_STATE_LEFT: ["left", ""] };

export async function show(place, _, signal) {
  const told = el("div");
  const nodes = el("div", { class: "nodes", role: "list" });
  const groups = el("div", { class: "matrix" });
  const about = el("p", { class: "quiet" });
  place.append(el("div", { class: "head" }, el("h1", {}, "Cluster"), about), told, el("h2", {}, "Nodes"), nodes, el("h2", {}, "Groups"), el("p", { class: "legend" }, el("span", { class: "seat leader" }), " leads ", el("span", { class: "seat voter" }), " votes ", el("span", { class: "seat learner" }), " follows ", el("span", { class: "seat repaired" }), " being made whole"), groups);
  const turn = async () => {
    const [cluster, lag] = await Promise.all([get("/v1/cluster", signal), lags(signal)]);
    put(told);
    const list = (cluster.nodes ?? []).sort((a, b) => Number(a.node_id ?? 0) - Number(b.node_id ?? 0));
    put(about, "Cluster ", short(hexOf(cluster.cluster_id), 8), copy(hexOf(cluster.cluster_id), "the cluster's id"), ` as node ${cluster.node_id} sees it`);
    put(nodes, list.map((node) => card(node, cluster)));
    put(groups, matrix(cluster.groups ?? [], list.filter((node) => node.state !== "NODE_STATE_LEFT"), lag));
  };
  every(1500, signal, turn, (error) => put(told, trouble(error)));
}

/** Entries that the slowest replica of a group lacks, by its leader's word; else those that wait here. */
async function lags(signal) {
  let text = "";
  try {
    text = await getText("/metrics", signal);
  } catch (error) {
    if (!error.status) throw error;
  }
  const found = new Map();
  for (const [, what, group, entries] of text.matchAll(/^qbc_group_(unapplied|replication_lag)_entries\{group="(\d+)"\} (\d+)/gm)) {
    if (what === "replication_lag") found.set(Number(group), `${count(entries)} at the slowest`);
    else if (!found.has(Number(group))) found.set(Number(group), `${count(entries)} here`);
  }
  return (group) => found.get(group) ?? "–";
}

function card(node, cluster) {
  const [word, kind] = STATES[node.state] ?? ["unknown", ""];
  const led = (cluster.groups ?? []).filter((group) => group.leader_node_id === node.node_id).length;
  const held = node.groups_held?.length ?? 0;
  const repaired = node.groups_repaired?.length ?? 0;
  const own = node.node_id === cluster.node_id;
  const seen = word === "alive" ? null : [" · heard of ", when(node.last_seen_ms)];
  return el(
    "div",
    { class: `card node ${kind}`, role: "listitem", "data-node": node.node_id, "data-state": word },
    el("div", { class: "row between" }, el("strong", {}, `Node ${node.node_id}`), badge(word, kind)),
    el("p", {}, el("code", {}, node.address ?? ""), own ? " · answers here" : null),
    el("p", { class: "quiet" }, `leads ${led} of ${held} groups that it holds`, repaired ? `, ${repaired} being made whole` : null, node.version ? ` · ${node.version}` : null, seen),
  );
}

/** A row per group, a column per node. */
function matrix(groups, nodes, lag) {
  const head = el("tr", {}, el("th", { scope: "col" }, "group"), nodes.map((node) => el("th", { scope: "col" }, `${node.node_id}`)), el("th", { scope: "col" }, "leader"), el("th", { scope: "col" }, "applied here"), el("th", { scope: "col" }, "lag"), el("th", { scope: "col" }, "settled"));
  const rows = groups
    .sort((a, b) => (a.group_id ?? 0) - (b.group_id ?? 0))
    .map((group) => {
      const leader = group.leader_node_id && group.leader_node_id !== "0" ? `node ${group.leader_node_id}` : "none known";
      return el("tr", { "data-group": group.group_id ?? 0 }, el("th", { scope: "row" }, group.group_id ? `${group.group_id}` : "0 meta"), nodes.map((node) => el("td", {}, seat(group, node))), el("td", {}, leader), el("td", { class: "number" }, Number(group.applied ?? 0) ? count(group.applied) : "–"), el("td", { class: "number", "data-lag": "" }, lag(group.group_id ?? 0)), el("td", {}, group.settled ? "yes" : badge("no", "mark")));
    });
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows)));
}

function seat(group, node) {
  const id = node.node_id;
  const repaired = node.groups_repaired?.includes(group.group_id ?? 0);
  const what = group.leader_node_id === id ? ["leader", "leads"] : group.voters?.includes(id) ? ["voter", "votes"] : group.learners?.includes(id) ? ["learner", "follows"] : null;
  if (!what) return null;
  const gone = node.state === "NODE_STATE_UNREACHABLE";
  return el("span", { class: `seat ${what[0]} ${repaired ? "repaired" : ""} ${gone ? "gone" : ""}`, role: "img", "aria-label": `${what[1]}${gone ? ", does not answer" : ""}`, title: what[1] });
}
