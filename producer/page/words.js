// A caption whose words are buttons: pointing at one, tapping it or reaching it by keyboard shows where
// the model looked.

import { level, make, percent } from "./say.js";

/** The pieces of a text: its words, in order, as [word's number or -1, letters]. Null where the words
 * are not to be found in it. */
export function pieces(text, words) {
  const found = [];
  let at = 0;
  for (const [number, word] of words.entries()) {
    const begin = text.toLowerCase().indexOf(word.text.toLowerCase(), at);
    if (begin < 0) return null;
    if (begin > at) found.push([-1, text.slice(at, begin)]);
    found.push([number, text.slice(begin, begin + word.text.length)]);
    at = begin + word.text.length;
  }
  if (at < text.length) found.push([-1, text.slice(at)]);
  return found;
}

/** A paragraph of the words, in a language if it is known. `show(number)` is called for the one to be
 * shown; what it says is for a live region. */
export function sentence(text, found, lang, show) {
  const parts = pieces(text, found.words) || [[-1, `${text} `], ...found.words.flatMap((word, n) => [[n, word.text], [-1, " "]])];
  const group = make("p", { class: "caption", dir: "auto", lang, role: "group", "aria-label": `Words of: ${text}` });
  const buttons = [];
  let joined = false; // to the word before: some scripts have no spaces
  for (const [number, letters] of parts) {
    if (number < 0) { group.append(letters); joined = false; continue; }
    const word = found.words[number];
    const probability = word.logprob == null ? null : Math.exp(Math.min(0, word.logprob));
    const button = make("button", {
      type: "button", class: "word", "aria-pressed": "false", tabindex: number ? -1 : 0,
      "data-sure": probability == null ? null : level(probability), "data-joined": joined,
    }, make("span", { class: "letters" }, letters));
    if (probability != null) button.append(make("span", { class: "sure", dir: "ltr", "aria-hidden": "true" }, percent(probability)));
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => show(number));
    button.addEventListener("keydown", (event) => step(event, buttons, number));
    joined = true;
    buttons.push(button);
    group.append(button);
  }
  return { group, buttons };
}

function step(event, buttons, number) {
  const back = getComputedStyle(buttons[0].parentElement).direction === "rtl" ? 1 : -1;
  const steps = { ArrowLeft: back, ArrowRight: -back, ArrowUp: -1, ArrowDown: 1,
    Home: -number, End: buttons.length - 1 - number };
  if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  buttons[Math.min(buttons.length - 1, Math.max(0, number + steps[event.key]))].focus();
}

/** Say which button is the shown one; it alone is reached by Tab. */
export function press(buttons, number) {
  buttons.forEach((button, place) => {
    button.setAttribute("aria-pressed", String(place === number));
    button.tabIndex = place === Math.max(0, number) ? 0 : -1;
  });
}
