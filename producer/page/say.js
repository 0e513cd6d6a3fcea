// Numbers, places and times in words; and elements of text, never of markup.

const ROWS = ["upper", "middle", "lower"];
const COLUMNS = ["left", "middle", "right"];

/** Which ninth of an image of [width, height] a point lies in. */
export function where([x, y], [width, height]) {
  const ninth = (at, side) => Math.min(2, Math.max(0, Math.floor((3 * at) / side)));
  const row = ROWS[ninth(y, height)];
  const column = COLUMNS[ninth(x, width)];
  if (row === column) return "in the middle";
  return row === "middle" ? `at the middle ${column}` : `at the ${row} ${column}`;
}

export function percent(share) {
  if (share > 0 && share < 0.005) return "<1%";
  return share < 1 && share >= 0.995 ? ">99%" : `${Math.round(100 * share)}%`;
}

/** A word and what is known of it, for those who hear it and those who read it. */
export function saying(word, size) {
  const sure = word.logprob == null ? "" : `${percent(Math.exp(Math.min(0, word.logprob)))} sure, `;
  return `${word.text}: ${sure}looked ${where(word.peak, size)}`;
}

/** How sure of a word, from 1 (hardly) to 4: what its underline shows. */
export function level(probability) {
  if (probability >= 0.9) return 4;
  if (probability >= 0.6) return 3;
  return probability >= 0.3 ? 2 : 1;
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

export function ago(moment) {
  const seconds = (Date.parse(moment) - Date.now()) / 1000;
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) || UNITS[3];
  return Math.abs(seconds) < 5 ? "just now" : AGO.format(Math.round(seconds / length), unit);
}

export const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** The last part of where an image lies, which people know it by. */
export function named(uri) {
  if (!uri) return "texts";
  const path = uri.replace(/[?#].*$/, "").replace(/\/+$/, "");
  const last = path.slice(path.lastIndexOf("/") + 1);
  return last.replace(/^([0-9a-f]{8})[0-9a-f]{24}(?=\.\w+$)/, "upload $1") || uri;
}

/** An element with attributes and children; strings become text. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value != null && value !== false) made.setAttribute(name, value === true ? "" : value);
  made.append(...children.filter((child) => child != null));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A bar, filled to a share of its length. */
export function bar(share) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "bar");
  svg.setAttribute("aria-hidden", "true");
  const filled = document.createElementNS(SVG, "rect");
  filled.setAttribute("width", `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%`);
  filled.setAttribute("height", "100%");
  svg.append(filled);
  return svg;
}
