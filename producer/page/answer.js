// What came of a job: its captions, matches or explanations, each with its words over the image.

import { clear, fit, paint } from "./heatmap.js";
import { bar, make, percent, saying } from "./say.js";
import { press, sentence } from "./words.js";

const get = (id) => document.getElementById(id);
const HINT = "Point at a word, tap it, or reach it with Tab and the arrow keys.";

let drawn = null; // the result
let said = ""; // the text that is shown in full
let alone = () => {}; // shows the image without a map

/** Draw the answer of a job that succeeded. */
export function draw(result) {
  drawn = result;
  const answers = { caption: captions, match: matches, explain: explanations };
  if (answers[result.task]) answers[result.task](result);
  else get("answer").replaceChildren(make("p", { class: "about" }, `This page does not draw ${result.task} jobs: copy the JSON.`));
}

/** Nothing is drawn any more. */
export function wipe() {
  quiet();
  said = "";
  get("answer").replaceChildren();
}

/** The text that is shown in full, to be copied; empty for none. */
export const shownText = () => said;

/** Show the image without a map. */
export const imageAlone = () => alone();

// What there is to choose from: one answer is shown in full, the others as a line each.
function choose(legend, rows, detail) {
  const place = make("div", {});
  const pick = (number) => { place.replaceChildren(); quiet(); detail(number, place); };
  if (rows.length === 1 && rows[0] === null) {
    get("answer").replaceChildren(place);
  } else {
    const several = make("div", { class: "several", role: "radiogroup", "aria-label": legend }, ...rows);
    rows.forEach((row, number) => row.querySelector("input").addEventListener("change", () => pick(number)));
    get("answer").replaceChildren(place, several);
  }
  pick(0);
}

function row(number, text, share, value, more) {
  return make("label", { class: "one" },
    make("input", { type: "radio", name: "answer", checked: number === 0 }),
    make("span", { dir: "auto" }, text), make("span", { class: "value" }, value),
    bar(share), more ? make("span", { class: "more" }, more) : null);
}

function captions({ captions: all = [], regions = [], abstained }) {
  const found = all.length ? all : regions.flatMap((region) => region.captions);
  const sure = (one) => Math.exp(Math.min(0, one.mean_logprob));
  const rows = found.length < 2 ? [null] : found.map((one, number) => row(number, one.text, sure(one), percent(sure(one)),
    [one.count > 1 && `drawn ${one.count} times`, one.rejected && "refused by the filter"].filter(Boolean).join(" · ")));
  choose("Captions", rows, (number, place) => {
    const one = found[number];
    tell(one.text, one.explanation, place);
    place.append(make("p", { class: "about" }, [
      `On average ${percent(sure(one))} sure per token.`,
      one.explanation && "Below each word is how sure the model was of it; a thicker line is less sure.",
      abstained && "The filter leaves no caption.",
    ].filter(Boolean).join(" ")));
  });
}

function matches({ matches: found = [] }) {
  const rows = found.map((one, number) => row(number, one.text, one.itm_probability, percent(one.itm_probability),
    [`cosine ${one.itc_cosine.toFixed(3)}`, `score ${one.score.toFixed(2)}`,
      one.calibrated_probability != null && `calibrated ${percent(one.calibrated_probability)}`,
      one.decision && one.decision.replace("_", " ")].filter(Boolean).join(" · ")));
  choose("Texts, the best match first", rows, (number, place) => tell(found[number].text, found[number].explanation, place));
}

function explanations({ explanations: found = [] }) {
  const rows = found.length < 2 ? [null] : found.map((one, number) => {
    const known = one.words.map((word) => word.logprob).filter((value) => value != null);
    const sure = known.length ? Math.exp(known.reduce((a, b) => a + b, 0) / known.length) : 0;
    return row(number, one.text, sure, percent(sure), null);
  });
  choose("Texts", rows, (number, place) => tell(found[number].text, found[number], place));
}

// A caption or text with its words, if these were explained.
function tell(text, explanation, place) {
  said = text;
  const { image, pack } = drawn;
  const lang = pack?.language;
  if (!image || !explanation?.words.some((word) => word.map)) {
    place.append(make("p", { class: "caption", dir: "auto", lang }, text));
    return;
  }
  const original = [image.width, image.height];
  const { group, buttons } = sentence(text, explanation, lang, (number) => look(number));
  const canvas = get("map");
  fit(canvas, ...original);
  place.append(group);
  get("looking").hidden = false;
  get("looked").textContent = HINT;
  let shown = -1;
  function look(number) {
    if (shown === number) return;
    shown = number;
    press(buttons, number);
    canvas.hidden = number < 0;
    if (number < 0) { clear(canvas); get("looked").textContent = HINT; return; }
    paint(canvas, original, explanation, explanation.words[number]);
    const word = explanation.words[number];
    get("looked").replaceChildren(make("bdi", { lang }, word.text), saying(word, original).slice(word.text.length));
  }
  alone = () => look(-1);
}

function quiet() {
  alone();
  alone = () => {};
  get("looking").hidden = get("map").hidden = true;
  get("looked").textContent = "";
}
