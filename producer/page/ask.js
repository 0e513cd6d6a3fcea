// The form: what is to be done with the image, as a job.

import { size } from "./say.js";

const get = (id) => document.getElementById(id);
const SAID = { caption: "Caption this image", match: "Match these texts", explain: "Explain these words" };
const MOST_TEXTS = 16;

export const task = () => document.querySelector("input[name=task]:checked").value;

export function texts() {
  return get("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
}

/** What a job is told beside its image. */
export function wanted() {
  const what = task();
  const language = get("language").value;
  const job = { task: what, explain: { inline: true }, ...(language ? { language } : {}) };
  if (what !== "caption") return { ...job, texts: texts() };
  return { ...job, options: options() };
}

function options() {
  const number = (id) => Number(get(id).value);
  const style = get("style").value;
  const said = { ...(style ? { style } : {}), num_return_sequences: number("count") };
  switch (get("method").value) {
    case "greedy": return { ...said, num_beams: 1, num_return_sequences: 1 };
    case "sample": return { ...said, do_sample: true, temperature: number("temperature"), top_p: number("top-p") };
    default: return { ...said, num_beams: Math.max(number("beams"), number("count")) };
  }
}

/** Why the form cannot be sent yet, and which field is at fault: [words, id], or null. */
export function fault(source) {
  if (source.file && source.file.size > source.mostBytes)
    return [`The file has ${size(source.file.size)}: at most ${size(source.mostBytes)} are taken. Make it smaller.`, null];
  if (!source.file && !source.uri) return ["Choose an image, or say where it is.", "uri"];
  if (!source.file && !/^(https?|s3|file):\/\//i.test(source.uri))
    return ["An address begins with https://, http:// or s3://.", "uri"];
  if (task() !== "caption") {
    const count = texts().length;
    if (!count) return ["Write at least one text.", "texts"];
    if (count > MOST_TEXTS) return [`There are ${count} texts: at most ${MOST_TEXTS} are explained at a time.`, "texts"];
  }
  for (const input of document.querySelectorAll("#decoding input"))
    if (task() === "caption" && input.offsetParent && !input.checkValidity())
      return [`${input.previousElementSibling.textContent}: from ${input.min} to ${input.max}.`, input.id];
  return null;
}

/** Show the fields that the task and the method have. */
export function arrange() {
  const what = task();
  const method = get("method").value;
  get("texts-field").hidden = what === "caption";
  get("style-field").hidden = get("decoding").hidden = what !== "caption";
  get("texts-label").textContent = what === "match" ? "Texts, one a line" : "Words to look for, a text a line";
  for (const part of document.querySelectorAll("[data-for]"))
    part.hidden = !part.dataset.for.split(" ").includes(method);
  get("submit").textContent = SAID[what];
}

/** Say what is at fault, beside the button, and take the reader there. */
export function refuse(words, id) {
  get("ask-fault").textContent = words;
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  if (!id) return;
  const field = get(id);
  field.closest("details")?.setAttribute("open", "");
  field.setAttribute("aria-invalid", "true");
  field.focus();
}
