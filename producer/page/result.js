// One job: how far it is, what came of it, and where the model looked.

import { ENDED } from "./api.js";
import { adviceFor } from "./advice.js";
import { clear, fit, paint } from "./heatmap.js";
import { bar, make, named, percent, saying, seconds } from "./say.js";
import { press, sentence } from "./words.js";

const get = (id) => document.getElementById(id);
const STEPS = ["sent", "queued", "running", "done"];
let alone = () => {}; // shows the image without a map

const HINT = "Point at a word, tap it, or reach it with Tab and the arrow keys.";

const SAID = {
  sending: "Sending the image …",
  queued: "In the queue, waiting for a worker.",
  running: "A worker is at it: it fetches, decodes, and looks.",
  cancelled: "Cancelled.",
};

/** What the section is of: the job's id and status, the text to copy, and whether this page can submit
 * it again. */
export const showing = { id: null, status: null, said: "", ours: false };

/** Nothing but the sentence that says what will be here. */
export function empty() {
  Object.assign(showing, { id: null, status: null, said: "" });
  reset();
  get("steps").hidden = get("actions").hidden = true;
  busy(false, true);
  stage(null);
}

function reset() {
  alone = () => {};
  get("answer").replaceChildren();
  for (const id of ["looked", "copied", "about", "state"]) get(id).textContent = "";
  get("state").classList.remove("away");
  get("looking").hidden = get("map").hidden = true;
}

// Whether an answer is waited for; a ghost of one stands where it will be.
function busy(is, ghost = is) {
  get("ghost").hidden = !ghost;
  get("result").setAttribute("aria-busy", String(is));
  get("frame").classList.toggle("waiting", is);
}

/** The image at hand, of these pixels; null for none. */
function stage(src, alt = "", width = 0, height = 0) {
  const [frame, image] = [get("frame"), get("shown")];
  frame.classList.toggle("on", Boolean(src));
  get("stage-empty").hidden = Boolean(src);
  image.hidden = !src;
  if (!src) { image.removeAttribute("src"); return; }
  image.src = src;
  image.alt = alt;
  const shape = (w, h) => frame.style.setProperty("--aspect", String(w / h));
  if (width) shape(width, height);
  else image.addEventListener("load", () => shape(image.naturalWidth, image.naturalHeight), { once: true });
}

/** A job that is on its way: `local` is a URL of the image if this machine has it. */
export function begin(local, name, ours) {
  Object.assign(showing, { id: null, status: null, said: "", ours });
  reset();
  stage(local, name ? `The image ${name}` : "");
  if (!local) get("stage-empty").textContent = "The worker sends a small picture of the image with its answer.";
  busy(true);
  step("sent", SAID.sending);
  get("actions").hidden = true;
}

function step(now, words) {
  get("steps").hidden = false;
  const place = STEPS.indexOf(now);
  [...get("steps").children].forEach((one, number) => {
    one.classList.toggle("past", number < place);
    one.classList.toggle("now", number === place);
    if (number === place) one.setAttribute("aria-current", "step");
    else one.removeAttribute("aria-current");
  });
  get("state").textContent = words;
}

function actions(...shown) {
  for (const button of get("actions").querySelectorAll("button")) button.hidden = !shown.includes(button.id);
  get("actions").hidden = !shown.length;
  get("copied").textContent = "";
}

/** Show where a job stands. */
export function show(status) {
  if (showing.id === status.job_id && showing.status && ENDED.has(showing.status.state)) return;
  Object.assign(showing, { id: status.job_id, status });
  if (!ENDED.has(status.state)) {
    const again = status.attempts > 1 ? ` Attempt ${status.attempts}.` : "";
    step(status.state, SAID[status.state] + again);
    actions("cancel");
    return;
  }
  busy(false);
  reset();
  get("steps").hidden = true;
  const result = status.result || {};
  if (result.preview) {
    const { width, height } = result.image || result.preview;
    stage(`data:image/jpeg;base64,${result.preview.data}`, `The image ${named(result.image_ref)}`, width, height);
  }
  if (status.state === "succeeded") return succeeded(result);
  return failed(status.state, result.error || { code: `job_${status.state}`, message: "" });
}

/** The gateway is away; what is shown stays. */
export function away() {
  get("state").textContent = "The connection is lost. Trying again …";
}

function failed(state, { code, message }) {
  if (!get("shown").getAttribute("src")) get("stage-empty").textContent = "There is no picture of this image.";
  get("answer").replaceChildren(make("div", { class: "failed" },
    make("h3", {}, state === "cancelled" ? "Cancelled" : message || "The job failed."),
    make("p", {}, "Code ", make("code", {}, code)),
    make("p", {}, make("strong", {}, "What to do")),
    make("ul", {}, ...adviceFor(code).map((line) => make("li", {}, line)))));
  actions(...(showing.ours ? ["again"] : []), "copy-json");
}

/** A request that was refused, before there was a job. */
export function refused(problem) {
  busy(false);
  get("steps").hidden = true;
  get("state").textContent = "";
  const faults = problem.errors.map((one) => [one.pointer || one.parameter, one.detail].filter(Boolean).join(": "));
  get("answer").replaceChildren(make("div", { class: "failed" },
    make("h3", {}, problem.title),
    make("p", {}, "Code ", make("code", {}, problem.code)),
    make("p", {}, make("strong", {}, "What to do")),
    make("ul", {}, ...[problem.detail, ...faults].filter(Boolean).map((line) => make("li", {}, line)))));
  actions(...(showing.ours ? ["again"] : []));
}

function succeeded(result) {
  get("about").textContent = about(result);
  const answers = {
    caption: () => captions(result),
    match: () => matches(result),
    explain: () => explanations(result),
  }[result.task];
  if (answers) answers();
  else get("answer").replaceChildren(make("p", { class: "about" }, `This page does not draw ${result.task} jobs: copy the JSON.`));
  get("copy").textContent = result.task === "caption" ? "Copy caption" : "Copy text";
  get("state").classList.add("away"); // what is seen is the answer itself
  get("state").textContent = `Done. ${showing.said}`;
  actions(...(showing.said ? ["copy"] : []), "copy-json", ...(showing.ours ? ["again"] : []));
}

function about({ timings, model, pack, image }) {
  const took = ["fetch_ms", "decode_ms", "infer_ms"].map((name) => timings?.[name] || 0).reduce((a, b) => a + b, 0);
  return [
    took ? `Took ${seconds(took)}` : null,
    model && `model ${model.id.split("/").pop()}`,
    pack && `pack ${pack.name}`,
    image && `${image.width} × ${image.height} ${image.format}`,
  ].filter(Boolean).join(" · ");
}

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
  showing.said = text;
  const image = showing.status.result.image;
  const drawn = explanation?.words.some((word) => word.map) && image;
  if (!drawn) {
    place.append(make("p", { class: "caption", dir: "auto" }, text));
    return;
  }
  const original = [image.width, image.height];
  const { group, buttons } = sentence(text, explanation, original, (number) => look(number));
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
    get("looked").textContent = saying(explanation.words[number], original);
  }
  alone = () => look(-1);
}

function quiet() {
  alone();
  alone = () => {};
  get("looking").hidden = true;
  get("looked").textContent = "";
}

/** Show the image without a map. */
export const imageAlone = () => alone();
