// The page: one state, from which everything is drawn. Events change the state.

import { decodeArrays } from "./codec.js";
import { changeSide, connectControls, showControls, showPicture } from "./controls.js";
import { byId, setText } from "./elements.js";
import { composeImage, saveCanvas } from "./export.js";
import { nameToken } from "./heat.js";
import { changeByKey } from "./keys.js";
import { Picture } from "./picture.js";
import { describeValue, drawStage, listShown, patchAt } from "./stage.js";
import { formatHash, initialState, parseHash } from "./state.js";
import { drawThumbnails } from "./thumbnails.js";

/** @typedef {import("./types.js").State} State */

const HASH_DELAY = 200; // ms: browsers limit how often an address may change

const page = /** @type {import("./types.js").PageInfo} */ (JSON.parse(byId("data").textContent ?? ""));
const tables = await decodeTables();
/** @type {Map<number, Picture>} */
const opened = new Map();
let state = parseHash(location.hash, initialState(page), page);
let picture = await openPicture(state.picture);
/** @type {import("./stage.js").Shown[]} */
let shown = [];
/** @type {number | null} */
let pointed = null; // the patch under the pointer
let frame = 0, hashTimer = 0;

byId("main").hidden = false;
setText("description", page.description);
showPicture(page, picture.info, () => state, update);
connectControls(page, () => state, update, () => picture);
connectEvents();
draw();
// For scripts and tests: what is shown, and how to change it.
Object.assign(globalThis, { viewer: { read: () => ({ state, shown, picture }), update, draw } });

async function decodeTables() {
  const { heat, signed } = await decodeArrays(page.colours);
  return { heat: /** @type {Uint8Array} */ (heat.values), signed: /** @type {Uint8Array} */ (signed.values) };
}

/** @param {number} index */
async function openPicture(index) {
  const found = opened.get(index) ?? (await Picture.open(page, page.pictures[index]));
  opened.set(index, found);
  return found;
}

/**
 * Change the state, and draw it in the next frame.
 * @param {Partial<State>} change
 */
function update(change) {
  const before = state;
  state = { ...state, ...change };
  if (state.picture !== before.picture) void changePicture();
  else if (!frame) frame = requestAnimationFrame(draw);
  clearTimeout(hashTimer);
  hashTimer = setTimeout(writeHash, HASH_DELAY);
}

async function changePicture() {
  const index = state.picture, next = await openPicture(index);
  if (index !== state.picture) return; // another one was chosen while this one was decoded
  picture = next;
  state = parseHash(formatHash(state), initialState(page), page); // layers and maps may differ
  showPicture(page, picture.info, () => state, update);
  draw();
}

function writeHash() {
  try {
    history.replaceState(null, "", `#${formatHash(state)}`);
  } catch {
    // A frame without an address of its own, as in a notebook, has no links.
  }
}

function draw() {
  frame = 0;
  const needsMeans = state.sides.some((side, i) => side.mode === "rollout" && (state.compare || i === 0));
  if (needsMeans && !picture.hasMeans) {
    void prepareRollout();
    return;
  }
  shown = listShown(picture, state);
  drawStage(picture, state, shown, tables);
  showControls(picture, state, shown[state.active].heat);
  drawThumbnails(picture, state, (side) => update(changeSide(state, side)), tables);
  showPointer();
}

let isPreparing = false;

/** Compute what rollout needs, once for each picture, and draw. */
async function prepareRollout() {
  if (isPreparing) return;
  isPreparing = true;
  const current = picture;
  await current.computeMeans((share) => setText("note", `Computing rollout: ${Math.round(100 * share)} %`));
  isPreparing = false;
  draw();
}

/** Say what the maps have under the pointer, where it is not the patch whose map is shown. */
function showPointer() {
  if (pointed === null) {
    const thing = page.kind === "vision" ? "patch" : "word";
    setText("pointer", state.pinned ? "It is kept: press space on the picture, or untick “Keep”, to follow the pointer." : `Point at a ${thing}; click to keep it.`);
    return;
  }
  const values = shown.map(({ heat }, i) => {
    const value = describeValue(heat, picture.info, /** @type {number} */ (pointed));
    return value && `${state.compare ? `${"AB"[i]} ` : ""}${value} ${heat.unit}`;
  });
  setText("pointer", `At ${nameToken(picture.info, picture.info.prefix.length + pointed)}: ${values.filter(Boolean).join(", ")}`);
}

function connectEvents() {
  const stage = byId("stage");
  stage.addEventListener("pointermove", (event) => point(patchAt(event, picture.info)));
  stage.addEventListener("pointerleave", () => point(null));
  stage.addEventListener("click", (event) => {
    const patch = patchAt(event, picture.info);
    if (patch === null || page.kind === "caption") return;
    const token = picture.info.prefix.length + patch;
    update({ token, pinned: !(state.pinned && token === state.token) });
  });
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches("select, input")) return;
    const change = changeByKey(event.key, state, picture, target === stage);
    if (!change) return;
    event.preventDefault();
    update(change);
    requestAnimationFrame(() => setText("announcement", shown.map(({ heat }) => heat.title).join(". ")));
  });
  byId("save").onclick = () => saveCanvas(composeImage(picture, state, shown, tables), `${page.title}.png`);
  byId("link").onclick = copyLink;
  addEventListener("hashchange", () => update(parseHash(location.hash, state, page)));
  new ResizeObserver(() => update({})).observe(stage);
}

/** @param {number | null} patch */
function point(patch) {
  pointed = patch;
  const follows = patch !== null && !state.pinned && page.kind === "vision";
  update(follows ? { token: picture.info.prefix.length + patch } : {});
}

async function copyLink() {
  writeHash();
  try {
    await navigator.clipboard.writeText(location.href);
    setText("note", "The link is copied.");
  } catch {
    setText("note", "The link is in the address bar: the browser does not let this page copy it.");
  }
}
