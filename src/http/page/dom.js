// Elements from values. Text goes in as text and nothing else: what chains hold may be anybody's.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `el("a", {href, class, on: {click}}, children)`. Children are elements, text, or nothing. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for a drawing. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, { on = {}, ...props }, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    // No address leads out of this page, whatever a name or a payload says.
    if (name === "href" && !/^[#/]/.test(value)) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Adds children, nothing for those that are none. */
export function add(node, ...children) {
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
}

/** Puts these in place of everything that a node has. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
}

/** A number with thin gaps: 12 345. */
export function count(value) {
  return String(value ?? 0).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** A rate per second. */
export function rate(value) {
  if (!(value > 0)) return "0/s";
  return value < 10 ? `${value.toFixed(1)}/s` : `${count(Math.round(value))}/s`;
}

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (bytes = Number(bytes ?? 0); bytes >= 1024 && at < 4; bytes /= 1024) at++;
  return `${at && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

/** How long ago, in words. */
export function ago(ms) {
  const s = Math.max(0, Math.round((Date.now() - Number(ms)) / 1000));
  if (s < 2) return "now";
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} days ago`;
}

/** A moment; how long ago it was follows as time goes by. */
export function when(ms) {
  const date = new Date(Number(ms));
  const good = Number(ms) > 0 && !Number.isNaN(date.getTime());
  return el("time", good ? { datetime: date.toISOString(), title: date.toISOString(), "data-ms": ms } : {}, good ? ago(ms) : "never");
}

/** Brings all moments below a node up to date. */
export function agree(root) {
  for (const time of root.querySelectorAll("time[data-ms]")) time.textContent = ago(time.dataset.ms);
}

/** A hash, shortened in the middle; whole in its title and when it is copied. */
export function short(hex, ends = 6) {
  const whole = hex.length <= 2 * ends + 1;
  return el("code", { class: "hash", title: hex }, whole ? hex : `${hex.slice(0, ends)}…${hex.slice(-ends)}`);
}

/** A button that copies a text. */
export function copy(text, what) {
  const button = el("button", { class: "copy", type: "button", "aria-label": `Copy ${what}`, title: `Copy ${what}` }, twoSheets());
  button.addEventListener("click", async () => {
    const done = await writeClipboard(text);
    say(done ? `Copied ${what}` : `This browser gives no clipboard to pages over plain HTTP; the text is in the title of the value`);
  });
  return button;
}

function twoSheets() {
  const sheet = (x, y) => svg("rect", { x, y, width: 8, height: 8, rx: 1.5 });
  return svg("svg", { viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" }, sheet(1.5, 1.5), sheet(4.5, 4.5));
}

async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** A drawing of a chain's id: five by five squares, mirrored, in a colour of its own. */
export function glyph(hex, pixels = 28) {
  const nibble = (i) => parseInt(hex[i % (hex.length || 1)] ?? "0", 16);
  const hue = (nibble(0) * 16 + nibble(1)) * 1.40625;
  const squares = [];
  for (let i = 0; i < 15; i++) {
    if (nibble(i + 2) < 8) continue;
    const [x, y] = [Math.floor(i / 5), i % 5];
    for (const at of new Set([x, 4 - x])) squares.push(svg("rect", { x: at, y, width: 1.02, height: 1.02 }));
  }
  return svg("svg", { class: "glyph", viewBox: "-.5 -.5 6 6", width: pixels, height: pixels, "aria-hidden": "true", fill: `hsl(${hue} 55% 52%)` }, squares);
}

/** A word in a frame. */
export function badge(text, kind = "") {
  return el("span", { class: `badge ${kind}` }, text);
}

/** What went wrong, in the words of who said it. */
export function trouble(error) {
  const reason = error.reason ? badge(error.reason, "bad") : null;
  return el("div", { class: "trouble", role: "alert" }, el("p", {}, error.message || String(error)), reason);
}

/** Says something for a moment, to eyes and to readers of screens. */
export function say(text, bad = false) {
  const place = document.getElementById("said");
  put(place, el("p", { class: bad ? "bad" : "" }, text));
  clearTimeout(say.timer);
  say.timer = setTimeout(() => put(place), 6000);
}

/** A form in a dialog: fields are `[name, label, element]`; `send` gets their values and may throw. */
export function dialog(title, fields, action, send) {
  const answer = el("div", { "aria-live": "polite" });
  const button = el("button", { class: "main" }, action);
  const cancel = el("button", { type: "button", on: { click: () => box.close() } }, "Cancel");
  const rows = fields.map(([name, label, input, hint]) => {
    input.setAttribute("name", name);
    return el("label", { class: "field" }, el("span", {}, label), input, hint ? el("small", {}, hint) : null);
  });
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    put(answer);
    try {
      await send(Object.fromEntries(new FormData(form)));
      box.close();
    } catch (error) {
      put(answer, trouble(error));
    }
    button.disabled = false;
  };
  const form = el("form", { on: { submit } }, el("h2", {}, title), rows, answer, el("div", { class: "row end" }, cancel, button));
  const box = el("dialog", { on: { close: () => box.remove() } }, form);
  document.body.append(box);
  box.showModal();
  return box;
}
