// A word's map over the image: the bytes of a result, painted onto a canvas.

// matplotlib's inferno (Smith and van der Walt, CC0), every 1/8; what lies between is mixed.
const STOPS = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51],
  [249, 140, 10], [249, 201, 50], [252, 255, 164]];
const OPACITY = [0.5, 0.82]; // of a map's least and its largest share: what was looked at glows, the rest is dim
const DIMMED = 0.8; // what the model was not shown
const LONGEST = 640; // of the canvas: marks are drawn on it

// A colour for each value of a map's bytes, as RGBA.
const COLOURS = Array.from({ length: 256 }, (_, value) => {
  const at = (value / 255) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(at));
  const mixed = STOPS[low].map((part, band) => part + (STOPS[low + 1][band] - part) * (at - low));
  return [...mixed, 255 * OPACITY[0] + value * (OPACITY[1] - OPACITY[0])];
});
// The same as a canvas has them: four bytes each.
const PIXELS = new Uint32Array(Uint8ClampedArray.from(COLOURS.flat()).buffer);
const DARK = new Uint32Array(Uint8ClampedArray.of(0, 0, 0, 255 * DIMMED).buffer)[0];

export const decode = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

// Where each pixel's middle lies between the middles of two cells, along one axis; null outside.
function places(length, size, from, to, count) {
  return Array.from({ length }, (_, pixel) => {
    const original = ((pixel + 0.5) * size) / length;
    if (original < from || original >= to) return null;
    const at = ((original - from) / (to - from)) * count - 0.5;
    const inside = Math.min(count - 1, Math.max(0, at));
    const low = Math.min(Math.floor(inside), Math.max(0, count - 2));
    return [low, Math.min(count - 1, low + 1), inside - low];
  });
}

/** Make a canvas ready for maps on an image of these pixels. */
export function fit(canvas, width, height) {
  const scale = LONGEST / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
}

export function clear(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

/** Paint the map of a word. `size` is the original's [width, height]; `found` is the explanation. */
export function paint(canvas, size, found, word) {
  const [rows, columns] = found.map_grid;
  const [left, top, right, bottom] = found.map_box;
  const values = decode(word.map);
  const across = places(canvas.width, size[0], left, right, columns);
  const down = places(canvas.height, size[1], top, bottom, rows);
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer);
  let to = 0;
  for (const row of down) {
    if (!row) { pixels.fill(DARK, to, to += across.length); continue; }
    const [upper, lower, share] = [row[0] * columns, row[1] * columns, row[2]];
    for (const column of across) {
      if (!column) { pixels[to++] = DARK; continue; }
      const before = column[0], after = column[1], part = column[2];
      const high = values[upper + before] * (1 - part) + values[upper + after] * part;
      const low = values[lower + before] * (1 - part) + values[lower + after] * part;
      pixels[to++] = PIXELS[Math.round(high * (1 - share) + low * share)];
    }
  }
  pen.putImageData(picture, 0, 0);
  mark(pen, canvas, size, word);
}

// In white on black, so that they show on any image.
function mark(pen, canvas, [width, height], { peak, box }) {
  const fine = canvas.width / Math.max(1, canvas.clientWidth);
  const x = (place) => (place * canvas.width) / width;
  const y = (place) => (place * canvas.height) / height;
  const inside = (place, side) => Math.min(side - 2 * fine, Math.max(2 * fine, place));
  const [left, right] = [box[0], box[2]].map((place) => inside(x(place), canvas.width));
  const [top, bottom] = [box[1], box[3]].map((place) => inside(y(place), canvas.height));
  for (const [colour, thickness] of [["#000", 4], ["#fff", 2]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = thickness * fine;
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.beginPath();
    pen.arc(x(peak[0]), y(peak[1]), 6 * fine, 0, 2 * Math.PI);
    pen.stroke();
  }
}
