// The keys of the page; page.html lists them.

import { changeSide, toggleCompare } from "./controls.js";
import { MODES, listModes } from "./state.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./picture.js").Picture} Picture */

/** @type {Record<string, [number, number]>} rows and columns to move by */
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * Return what a key changes, or null for a key that means nothing here.
 * @param {string} key
 * @param {State} state
 * @param {Picture} picture
 * @param {boolean} onStage  whether the picture has the focus
 * @returns {Partial<State> | null}
 */
export function changeByKey(key, state, picture, onStage) {
  const side = state.sides[state.active];
  if (onStage && key in ARROWS) return moveToken(state, picture, ...ARROWS[key]);
  if (onStage && (key === " " || key === "Enter")) return { pinned: !state.pinned };
  if (key === "[" || key === "]") {
    const layers = picture.layerNumbers, place = layers.indexOf(side.layer) + (key === "]" ? 1 : -1);
    return changeSide(state, { layer: layers[clamp(place, layers.length)] });
  }
  if (key === "," || key === ".") {
    const head = side.head + (key === "." ? 1 : -1);
    return changeSide(state, { head: clamp(head + 1, picture.page.heads + 1) - 1 });
  }
  const mode = MODES[Number(key) - 1];
  if (mode) return listModes(picture.page, picture.info).includes(mode) ? changeSide(state, { mode }) : null;
  if (key === "s") return { smooth: !state.smooth };
  if (key === "c") return toggleCompare(!state.compare);
  if (key === "x" && state.compare) return { active: 1 - state.active };
  if (key === "Escape") return { pinned: false };
  return null;
}

/**
 * @param {State} state
 * @param {Picture} picture
 * @param {number} down
 * @param {number} right
 * @returns {Partial<State>}
 */
function moveToken(state, picture, down, right) {
  const { prefix, rows, columns } = picture.info, patch = state.token - prefix.length;
  if (picture.page.kind === "caption") return { token: clamp(state.token + down + right, prefix.length), pinned: true };
  if (patch < 0) return { token: prefix.length, pinned: true };
  const row = clamp(Math.floor(patch / columns) + down, rows), column = clamp((patch % columns) + right, columns);
  return { token: prefix.length + row * columns + column, pinned: true };
}

/**
 * @param {number} value
 * @param {number} count
 */
function clamp(value, count) {
  return Math.max(0, Math.min(count - 1, value));
}
