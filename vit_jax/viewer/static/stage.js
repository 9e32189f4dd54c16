// The large picture with its map, or two maps side by side, and the marks of patches.

import { computeHeat, findScale, formatNumber } from "./heat.js";
import { byId, canvasById, inputById, setText } from "./elements.js";
import { SMALL_SIDE, contextOf, paintColourBar, paintHeat } from "./paint.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Heat} Heat */
/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {{heat: Heat, scale: import("./types.js").Scale}} Shown */

const MAX_WIDTH = 1600, LINE = 2; // pixels

/**
 * Return the maps of the shown sides with their scales: A, or A and B.
 * @param {Picture} picture
 * @param {State} state
 * @returns {Shown[]}
 */
export function listShown(picture, state) {
  const sides = state.compare ? state.sides : [state.sides[0]];
  return sides.map((side) => ({
    heat: computeHeat(picture, side, state.token),
    scale: findScale(picture, side, state.token, state.scale),
  }));
}

/**
 * Draw the picture and its maps to a canvas of any size.
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {Picture} picture
 * @param {State} state
 * @param {Shown[]} shown
 * @param {import("./paint.js").Tables} tables
 */
export function drawPicture(context, width, height, picture, state, shown, tables) {
  context.imageSmoothingEnabled = picture.info.width > SMALL_SIDE;
  context.drawImage(picture.image, 0, 0, width, height);
  const edge = state.compare ? state.split * width : width;
  shown.forEach(({ heat, scale }, index) => {
    const [from, to] = index ? [edge, width] : [0, edge];
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, height);
    context.clip();
    context.imageSmoothingEnabled = state.smooth;
    context.drawImage(paintHeat(heat, scale, state.opacity, state.smooth, tables), 0, 0, width, height);
    context.restore();
  });
  if (state.compare) {
    context.fillStyle = "#fff";
    context.fillRect(edge - LINE / 2, 0, LINE, height);
  }
  const isOfToken = state.sides.some(({ mode }, i) => mode !== "explanation" && i < shown.length);
  if (isOfToken) markPatch(context, width, height, picture.info, state);
}

/**
 * Outline the patch whose map is shown.
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {import("./types.js").PictureInfo} info
 * @param {State} state
 */
function markPatch(context, width, height, info, state) {
  const patch = state.token - info.prefix.length;
  if (patch < 0) return;
  const w = width / info.columns, h = height / info.rows;
  const x = (patch % info.columns) * w, y = Math.floor(patch / info.columns) * h;
  for (const [colour, line] of /** @type {[string, number][]} */ ([["#000", 2 * LINE], ["#fff", LINE]])) {
    context.strokeStyle = colour;
    context.lineWidth = line * (width / Math.max(width / devicePixelRatio, 1));
    context.strokeRect(x, y, w, h);
  }
}

/**
 * Draw the stage and the legends below it.
 * @param {Picture} picture
 * @param {State} state
 * @param {Shown[]} shown
 * @param {import("./paint.js").Tables} tables
 */
export function drawStage(picture, state, shown, tables) {
  const canvas = canvasById("stage"), { width, height } = picture.info;
  byId("frame").style.setProperty("--aspect", String(width / height));
  const pixels = Math.min(MAX_WIDTH, Math.round(canvas.clientWidth * devicePixelRatio)) || width;
  const size = [pixels, Math.round((pixels * height) / width)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  drawPicture(contextOf(canvas), canvas.width, canvas.height, picture, state, shown, tables);
  for (const id of ["badge-a", "badge-b", "split-row", "legend-b"]) byId(id).hidden = !state.compare;
  inputById("split").value = String(Math.round(100 * state.split));
  ["", "-b"].forEach((suffix, index) => shown[index] && drawLegend(suffix, shown[index], state, tables));
  const notes = shown.map(({ heat }) => (heat.note ? `${heat.title}: the map says nothing, it is ${heat.note}.` : ""));
  setText("note", notes.filter(Boolean).join(" "));
}

/**
 * @param {string} suffix  of the elements' ids
 * @param {Shown} shown
 * @param {State} state
 * @param {import("./paint.js").Tables} tables
 */
function drawLegend(suffix, { heat, scale }, state, tables) {
  const side = suffix ? "B" : "A";
  setText(`caption${suffix}`, state.compare ? `${side}: ${heat.title}` : heat.title);
  const bar = canvasById(`bar${suffix}`);
  /** @type {HTMLElement} */ (bar.parentElement).hidden = heat.colours !== null;
  setText(`low${suffix}`, formatNumber(scale.low));
  setText(`high${suffix}`, `${state.scale === "robust" ? "≥ " : ""}${formatNumber(scale.high)}`);
  setText(`unit${suffix}`, heat.unit);
  paintColourBar(bar, scale.signed, state.opacity, tables);
}

/**
 * Return the patch under a pointer, as its index in the grid; null outside.
 * @param {PointerEvent | MouseEvent} event
 * @param {import("./types.js").PictureInfo} info
 */
export function patchAt(event, info) {
  const box = canvasById("stage").getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * info.columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * info.rows);
  if (row < 0 || column < 0 || row >= info.rows || column >= info.columns) return null;
  return row * info.columns + column;
}

/**
 * Return the value of a map in a patch, in words.
 * @param {Heat} heat
 * @param {import("./types.js").PictureInfo} info
 * @param {number} patch
 */
export function describeValue(heat, info, patch) {
  if (heat.colours) return "";
  const row = Math.floor(patch / info.columns), column = patch % info.columns;
  const y = Math.floor(((row + 0.5) * heat.rows) / info.rows), x = Math.floor(((column + 0.5) * heat.columns) / info.columns);
  return formatNumber(heat.values[y * heat.columns + x]);
}
