// Colours and canvases. The opacity of a map follows its heat, as in vit_jax/plot/colours.py.

/** @typedef {import("./types.js").Heat} Heat */
/** @typedef {import("./types.js").Scale} Scale */
/** @typedef {{heat: Uint8Array, signed: Uint8Array}} Tables */

export const SMALL_SIDE = 128; // pixels of a picture that is shown pixel by pixel, at most
const SMOOTH_SIDE = 384; // pixels of an interpolated map, longer side

/**
 * Return values scaled to [0, 1], or [-1, 1] if signed. A scale of no width, and NaN, give 0.
 * @param {number} value
 * @param {Scale} scale
 */
export function levelOf(value, scale) {
  const span = scale.high - scale.low;
  if (!(span > 0) || Number.isNaN(value)) return 0;
  const level = scale.signed ? value / scale.high : (value - scale.low) / span;
  return Math.max(scale.signed ? -1 : 0, Math.min(1, level));
}

/**
 * Write the colour and opacity of a level.
 * @param {Uint8ClampedArray} pixels
 * @param {number} at
 * @param {number} level
 * @param {boolean} signed
 * @param {number} opacity
 * @param {Tables} tables
 */
function writeColour(pixels, at, level, signed, opacity, tables) {
  const table = signed ? tables.signed : tables.heat;
  const entry = 3 * Math.round(255 * (signed ? 0.5 + (Math.sign(level) * (1 + Math.abs(level))) / 4 : level));
  pixels[at] = table[entry];
  pixels[at + 1] = table[entry + 1];
  pixels[at + 2] = table[entry + 2];
  pixels[at + 3] = 255 * opacity * Math.abs(level);
}

/**
 * Interpolate bilinearly, with values at pixel centres.
 * @param {Heat} heat
 * @param {number} height
 * @param {number} width
 */
function upsample(heat, height, width) {
  const { values, rows, columns } = heat, out = new Float32Array(height * width);
  const x0 = new Int32Array(width), x1 = new Int32Array(width), fx = new Float32Array(width);
  for (let x = 0; x < width; x++) {
    const place = Math.max(0, Math.min(columns - 1, ((x + 0.5) * columns) / width - 0.5));
    x0[x] = Math.floor(place);
    x1[x] = Math.min(columns - 1, x0[x] + 1);
    fx[x] = place - x0[x];
  }
  for (let y = 0; y < height; y++) {
    const place = Math.max(0, Math.min(rows - 1, ((y + 0.5) * rows) / height - 0.5));
    const top = Math.floor(place), fy = place - top;
    const a = top * columns, b = Math.min(rows - 1, top + 1) * columns;
    for (let x = 0; x < width; x++) {
      const upper = values[a + x0[x]] * (1 - fx[x]) + values[a + x1[x]] * fx[x];
      const lower = values[b + x0[x]] * (1 - fx[x]) + values[b + x1[x]] * fx[x];
      out[y * width + x] = upper * (1 - fy) + lower * fy;
    }
  }
  return { ...heat, values: out, rows: height, columns: width };
}

/**
 * Return a map as a canvas of one pixel per value, or of more if it is smooth.
 * @param {Heat} heat
 * @param {Scale} scale
 * @param {number} opacity
 * @param {boolean} smooth
 * @param {Tables} tables
 */
export function paintHeat(heat, scale, opacity, smooth, tables) {
  const zoom = SMOOTH_SIDE / Math.max(heat.rows, heat.columns);
  const isEnlarged = smooth && !heat.colours && zoom > 1;
  const shown = isEnlarged ? upsample(heat, Math.round(heat.rows * zoom), Math.round(heat.columns * zoom)) : heat;
  const canvas = document.createElement("canvas");
  canvas.width = shown.columns;
  canvas.height = shown.rows;
  const context = contextOf(canvas), image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < shown.rows * shown.columns; i++) {
    if (shown.colours) {
      image.data.set(shown.colours.subarray(3 * i, 3 * i + 3), 4 * i);
      image.data[4 * i + 3] = 255 * opacity;
    } else {
      writeColour(image.data, 4 * i, levelOf(shown.values[i], scale), scale.signed, opacity, tables);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/**
 * Paint the colours of a scale from its low to its high end, on white.
 * @param {HTMLCanvasElement} canvas
 * @param {boolean} signed
 * @param {number} opacity
 * @param {Tables} tables
 */
export function paintColourBar(canvas, signed, opacity, tables) {
  canvas.width = 256;
  canvas.height = 1;
  const context = contextOf(canvas), image = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) {
    writeColour(image.data, 4 * i, signed ? (2 * i) / 255 - 1 : i / 255, signed, opacity, tables);
  }
  context.putImageData(image, 0, 0);
}

/** @param {HTMLCanvasElement} canvas */
export function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}
