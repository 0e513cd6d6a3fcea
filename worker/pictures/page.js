"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const colours = bytes(data.colours);
  const maps = data.hypotheses.map((one) => bytes(one.maps));
  const { rows, columns } = data;
  const stage = document.querySelector(".stage");
  const canvas = stage.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const said = document.getElementById("said");
  const [width, height] = data.size;
  const [left, top, right, bottom] = data.seen;
  const asked = said.textContent;
  stage.style.setProperty("--aspect", width / height);

  // Where each pixel's middle lies between the middles of two cells, along one axis.
  const places = (length, size, origin, cell, count) =>
    Array.from({ length }, (_, pixel) => {
      const at = (((pixel + 0.5) * size) / length - origin) / cell - 0.5;
      const inside = Math.min(count - 1, Math.max(0, at));
      const low = Math.min(Math.floor(inside), Math.max(0, count - 2));
      return [low, Math.min(count - 1, low + 1), inside - low];
    });
  const across = places(canvas.width, width, data.origin[0], data.cell[0], columns);
  const down = places(canvas.height, height, data.origin[1], data.cell[1], rows);

  const paint = (values) => {
    const picture = pen.createImageData(canvas.width, canvas.height);
    const pixels = picture.data;
    let to = 0;
    for (let y = 0; y < canvas.height; y++) {
      const [upper, lower, share] = down[y];
      const originalY = ((y + 0.5) * height) / canvas.height;
      const rowSeen = top <= originalY && originalY < bottom;
      for (let x = 0; x < canvas.width; x++, to += 4) {
        const originalX = ((x + 0.5) * width) / canvas.width;
        if (!rowSeen || originalX < left || originalX >= right) {
          pixels[to + 3] = 255 * (1 - data.dimmed);
          continue;
        }
        const [before, after, part] = across[x];
        const high = values[upper * columns + before] * (1 - part)
          + values[upper * columns + after] * part;
        const low = values[lower * columns + before] * (1 - part)
          + values[lower * columns + after] * part;
        const value = Math.round(high * (1 - share) + low * share);
        pixels[to] = colours[3 * value];
        pixels[to + 1] = colours[3 * value + 1];
        pixels[to + 2] = colours[3 * value + 2];
        pixels[to + 3] = value * data.opacity;
      }
    }
    pen.putImageData(picture, 0, 0);
  };

  // In white on black, so that they show on any image.
  const mark = (peak, box) => {
    const fine = canvas.width / Math.max(1, canvas.clientWidth);
    const x = (place) => (place * canvas.width) / width;
    const y = (place) => (place * canvas.height) / height;
    for (const [colour, thickness] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thickness * fine;
      pen.strokeRect(x(box[0]), y(box[1]), x(box[2] - box[0]), y(box[3] - box[1]));
      pen.beginPath();
      pen.arc(x(peak[0]), y(peak[1]), 6 * fine, 0, 2 * Math.PI);
      pen.stroke();
    }
  };

  const sections = [...document.querySelectorAll("section")];
  const of = (section, what) => [...section.querySelectorAll(what)];
  let shown = null;

  const clear = () => {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    for (const button of document.querySelectorAll("[aria-pressed=true]"))
      button.setAttribute("aria-pressed", "false");
    for (const bar of document.querySelectorAll("li.shown")) bar.classList.remove("shown");
    shown = null;
  };
  const show = (hypothesis, word) => {
    const name = hypothesis + "." + word;
    if (shown === name) return;
    clear();
    shown = name;
    const { peaks, boxes } = data.hypotheses[hypothesis];
    const cells = rows * columns;
    paint(maps[hypothesis].subarray(word * cells, (word + 1) * cells));
    mark(peaks[word], boxes[word]);
    const button = of(sections[hypothesis], "button")[word];
    button.setAttribute("aria-pressed", "true");
    const bar = of(sections[hypothesis], "li")[word];
    if (bar) bar.classList.add("shown");
    said.textContent = button.dataset.said;
  };
  const alone = () => {
    clear();
    said.textContent = asked;
  };

  sections.forEach((section, hypothesis) => {
    const buttons = of(section, "button");
    buttons.forEach((button, word) => {
      for (const event of ["pointerenter", "focus", "click"])
        button.addEventListener(event, () => show(hypothesis, word));
      button.addEventListener("keydown", (event) => {
        const back = getComputedStyle(button.parentElement).direction === "rtl" ? 1 : -1;
        const steps = { ArrowLeft: back, ArrowRight: -back, ArrowUp: -1, ArrowDown: 1,
          Home: -word, End: buttons.length - 1 - word };
        if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        buttons[Math.min(buttons.length - 1, Math.max(0, word + steps[event.key]))].focus();
      });
    });
    of(section, "li").forEach((bar, word) =>
      bar.addEventListener("pointerenter", () => show(hypothesis, word)));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") alone();
  });
  document.getElementById("alone").addEventListener("click", alone);

  for (const radio of document.querySelectorAll("input[type=radio]"))
    radio.addEventListener("change", () => {
      alone();
      sections.forEach((section, number) => { section.hidden = String(number) !== radio.value; });
    });
})();
