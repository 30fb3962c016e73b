// Rates of chains as this page saw them, and small lines of them.

import { svg } from "../dom.js";

const KEPT = 60;
const seen = new Map();

/** Notes how many transactions and Quants a chain has now. */
export function note(chain) {
  const now = Date.now();
  const known = seen.get(chain.name) ?? { rates: [], heights: [], last: null };
  const total = Number(chain.transactions ?? 0);
  if (known.last && total >= known.last.total) {
    const seconds = (now - known.last.now) / 1000;
    if (seconds < 0.5) return known;
    known.rates.push((total - known.last.total) / seconds);
    if (known.rates.length > KEPT) known.rates.shift();
  } else if (known.last) {
    known.rates = [];
  }
  known.last = { now, total };
  seen.set(chain.name, known);
  return known;
}

/** Transactions per second over the last samples. */
export function rateOf(name) {
  const rates = seen.get(name)?.rates.slice(-5) ?? [];
  return rates.length ? rates.reduce((sum, rate) => sum + rate, 0) / rates.length : 0;
}

/** A line of the rates, scaled to its own highest. */
export function spark(name, width = 120, height = 26) {
  const rates = seen.get(name)?.rates ?? [];
  const most = Math.max(1e-9, ...rates);
  const step = width / (KEPT - 1);
  const at = (rate, i) => `${(width - (rates.length - 1 - i) * step).toFixed(1)},${(height - 2 - (rate / most) * (height - 5)).toFixed(1)}`;
  const points = rates.map(at).join(" ");
  const begin = (width - (rates.length - 1) * step).toFixed(1);
  const title = svg("title", {}, `transactions per second, the last ${rates.length} readings, at most ${most < 0.05 ? 0 : most.toFixed(1)}`);
  const drawn = rates.length > 1 && most > 1e-6;
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", preserveAspectRatio: "none" },
    title,
    svg("line", { x1: 0, y1: height - 1.5, x2: width, y2: height - 1.5, class: "base" }),
    drawn ? svg("polygon", { points: `${begin},${height - 2} ${points} ${width},${height - 2}` }) : null,
    drawn ? svg("polyline", { points }) : null,
  );
}
