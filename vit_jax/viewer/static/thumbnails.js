// Small maps to choose from: heads, layers, or explanations.

import { computeHeat, findScale } from "./heat.js";
import { byId, createElement, setText } from "./elements.js";
import { SMALL_SIDE, contextOf, paintHeat } from "./paint.js";

/** @typedef {import("./types.js").Side} Side */
/** @typedef {import("./types.js").State} State */
/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {{label: string, name: string, side: Side, selected: boolean}} Item */

const SIDE = 96; // pixels of a thumbnail, longer side

/**
 * Return the choices of a side.
 * @param {Picture} picture
 * @param {Side} side
 * @returns {Item[]}
 */
function listItems(picture, side) {
  if (side.mode === "attention") {
    const heads = [-1, ...Array.from({ length: picture.page.heads }, (_, head) => head)];
    return heads.map((head) => {
      const label = head < 0 ? "Mean" : String(head);
      return { label, name: head < 0 ? "Mean over heads" : `Head ${head}`, side: { ...side, head }, selected: head === side.head };
    });
  }
  if (side.mode === "explanation") {
    return picture.info.maps.map((info, map) => {
      const label = info.target ? `${info.method}: ${info.target}` : info.method;
      return { label, name: label, side: { ...side, map }, selected: map === side.map };
    });
  }
  return picture.layerNumbers.map((layer) => {
    return { label: String(layer), name: `Layer ${layer}`, side: { ...side, layer }, selected: layer === side.layer };
  });
}

/** @type {Record<import("./types.js").Mode, string>} */
const TITLES = { attention: "Heads", rollout: "Through layers 0 to", similarity: "After layer", explanation: "Methods and classes" };

/**
 * Draw the choices of the active side.
 * @param {Picture} picture
 * @param {State} state
 * @param {(side: Side) => void} choose
 * @param {import("./paint.js").Tables} tables
 */
export function drawThumbnails(picture, state, choose, tables) {
  const side = state.sides[state.active], items = listItems(picture, side), thumbs = byId("thumbs");
  setText("thumbs-title", TITLES[side.mode]);
  thumbs.className = side.mode === "explanation" ? "labelled" : "";
  const key = `${side.mode} ${items.length} ${items.map(({ label }) => label).join()}`;
  if (thumbs.dataset.key !== key) {
    thumbs.dataset.key = key;
    thumbs.replaceChildren(...items.map(createThumbnail));
  }
  items.forEach((item, index) => {
    const button = /** @type {HTMLButtonElement} */ (thumbs.children[index]);
    button.setAttribute("aria-pressed", String(item.selected));
    button.onclick = () => choose(item.side);
    const heat = computeHeat(picture, item.side, state.token), scale = findScale(picture, item.side, state.token, state.scale);
    paintThumbnail(/** @type {HTMLCanvasElement} */ (button.firstChild), picture, heat, scale, state, tables);
  });
}

/** @param {Item} item */
function createThumbnail(item) {
  const button = createElement("button", "", "thumb");
  button.setAttribute("type", "button");
  button.setAttribute("aria-label", item.name);
  button.append(document.createElement("canvas"), item.label);
  return button;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Picture} picture
 * @param {import("./types.js").Heat} heat
 * @param {import("./types.js").Scale} scale
 * @param {State} state
 * @param {import("./paint.js").Tables} tables
 */
function paintThumbnail(canvas, picture, heat, scale, state, tables) {
  const { width, height } = picture.info, zoom = SIDE / Math.max(width, height);
  const w = Math.max(1, Math.round(width * zoom)), h = Math.max(1, Math.round(height * zoom));
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = contextOf(canvas);
  context.imageSmoothingEnabled = picture.info.width > SMALL_SIDE;
  context.drawImage(picture.image, 0, 0, w, h);
  context.imageSmoothingEnabled = false;
  context.drawImage(paintHeat(heat, scale, state.opacity, false, tables), 0, 0, w, h);
}
