// The controls next to the picture: they show the state, and change it.

import { formatPercent, nameToken } from "./heat.js";
import { listModes } from "./state.js";
import { byId, createElement, fillShares, inputById, setText } from "./elements.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Side} Side */
/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {(change: Partial<State>) => void} Update */

/**
 * Show the state in the controls.
 * @param {Picture} picture
 * @param {State} state
 * @param {import("./types.js").Heat} heat  of the active side
 */
export function showControls(picture, state, heat) {
  const side = state.sides[state.active], layers = picture.layerNumbers;
  byId("sides").hidden = !state.compare;
  press("#sides button", (button) => button.dataset.side === String(state.active));
  press("#modes button", (button) => button.dataset.mode === side.mode);
  showModes(picture);
  byId("layer-row").hidden = byId("tokens-row").hidden = side.mode === "explanation";
  const slider = inputById("layer");
  slider.min = "0";
  slider.max = String(layers.length - 1);
  slider.value = String(layers.indexOf(side.layer));
  slider.setAttribute("aria-valuetext", `layer ${side.layer}`);
  setText("layer-value", String(side.layer));
  press("#tokens button", (button) => button.dataset.token === String(state.token));
  inputById("opacity").value = String(Math.round(100 * state.opacity));
  setText("opacity-value", `${Math.round(100 * state.opacity)} %`);
  inputById("scale").value = state.scale;
  inputById("smooth").checked = state.smooth;
  inputById("pinned").checked = state.pinned;
  inputById("compare").checked = state.compare;
  inputById("picture").value = String(state.picture);
  showShares(picture, state, heat);
}

/**
 * @param {string} selector
 * @param {(button: HTMLButtonElement) => boolean} isPressed
 */
function press(selector, isPressed) {
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll(selector))) {
    button.setAttribute("aria-pressed", String(isPressed(button)));
  }
}

/** @param {Picture} picture */
function showModes(picture) {
  const modes = listModes(picture.page, picture.info);
  byId("modes").hidden = modes.length < 2;
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("#modes button"))) {
    button.hidden = !modes.some((mode) => mode === button.dataset.mode);
  }
}

/**
 * Show what share of a row goes to [class], to registers and to the patches.
 * @param {Picture} picture
 * @param {State} state
 * @param {import("./types.js").Heat} heat
 */
function showShares(picture, state, heat) {
  const { mode } = state.sides[state.active], isShare = mode === "attention" || mode === "rollout";
  const { prefix } = heat;
  byId("shares-panel").hidden = !isShare || !prefix;
  if (!isShare || !prefix) return;
  const patches = heat.values.reduce((sum, value) => sum + value, 0);
  setText("shares-title", `Where the ${mode} of ${nameToken(picture.info, state.token)} goes`);
  fillShares("shares", [
    ...picture.info.prefix.map((name, i) => /** @type {[string, number, string]} */ ([name, prefix[i], formatPercent(prefix[i])])),
    ["all patches", patches, formatPercent(patches)],
  ]);
}

/**
 * Show what belongs to a picture whatever the state, and connect its tokens.
 * @param {import("./types.js").PageInfo} page
 * @param {import("./types.js").PictureInfo} info
 * @param {() => State} read
 * @param {Update} update
 */
export function showPicture(page, info, read, update) {
  const isVision = page.kind === "vision";
  byId("predictions-panel").hidden = !info.predictions.length;
  setText("predictions-title", isVision ? "Prediction" : "Captions by log-probability");
  fillShares("predictions", info.predictions.map(([name, value]) => {
    return isVision ? [name, value, formatPercent(value)] : [name || "(no words)", Math.exp(value - info.predictions[0][1]), value.toFixed(2)];
  }));
  setText("tokens-label", isVision ? "From" : "Word");
  const hint = `${info.prefix.length ? "or " : ""}any patch of the picture`;
  byId("tokens").replaceChildren(
    ...info.prefix.map((name, token) => createToken(name, token, read, update, !isVision)),
    ...(isVision ? [createElement("span", hint, "hint")] : []),
  );
  const layers = info.layers.length < page.depth ? ` Layers ${info.layers.map(({ layer }) => layer).join(", ")} of ${page.depth} are stored, too few for rollout.` : "";
  setText("footer", `Attention weights differ from the model's by at most ${info.error.toPrecision(2)}, over all stored layers, heads and tokens.${layers} This file loads nothing from the network.`);
}

/**
 * Return the button of a token; a word is shown as soon as the pointer is on it.
 * @param {string} name
 * @param {number} token
 * @param {() => State} read
 * @param {Update} update
 * @param {boolean} isWord
 */
function createToken(name, token, read, update, isWord) {
  const button = createElement("button", name);
  button.setAttribute("type", "button");
  button.dataset.token = String(token);
  button.onclick = () => update({ token, pinned: true });
  if (isWord) button.onpointerenter = () => read().pinned || update({ token });
  return button;
}

/**
 * Fill the controls that depend on the page, and connect all of them.
 * @param {import("./types.js").PageInfo} page
 * @param {() => State} read
 * @param {Update} update
 * @param {() => Picture} picture
 */
export function connectControls(page, read, update, picture) {
  byId("picture").append(...page.pictures.map((info, i) => {
    const option = createElement("option", info.name);
    option.setAttribute("value", String(i));
    return option;
  }));
  byId("picture-choice").hidden = page.pictures.length < 2;
  onInput("picture", (input) => ({ picture: Number(input.value) }));
  onInput("layer", (input) => changeSide(read(), { layer: picture().layerNumbers[Number(input.value)] }));
  onInput("split", (input) => ({ split: Number(input.value) / 100 }));
  onInput("opacity", (input) => ({ opacity: Number(input.value) / 100 }));
  onInput("scale", (input) => ({ scale: /** @type {State["scale"]} */ (input.value) }));
  for (const name of /** @type {const} */ (["smooth", "pinned"])) onInput(name, (input) => ({ [name]: input.checked }));
  onInput("compare", (input) => toggleCompare(input.checked));
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("#modes button"))) {
    button.onclick = () => update(changeSide(read(), { mode: /** @type {Side["mode"]} */ (button.dataset.mode) }));
  }
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("#sides button"))) {
    button.onclick = () => update({ active: Number(button.dataset.side) });
  }

  /**
   * @param {string} id
   * @param {(input: HTMLInputElement) => Partial<State>} change
   */
  function onInput(id, change) {
    const input = inputById(id);
    input.oninput = () => update(change(input));
  }
}

/**
 * Return the change that gives the active side other values.
 * @param {State} state
 * @param {Partial<Side>} change
 * @returns {Partial<State>}
 */
export function changeSide(state, change) {
  const sides = /** @type {[Side, Side]} */ ([...state.sides]);
  sides[state.active] = { ...sides[state.active], ...change };
  return { sides };
}

/**
 * @param {boolean} compare
 * @returns {Partial<State>}
 */
export function toggleCompare(compare) {
  return { compare, active: compare ? 1 : 0 };
}
