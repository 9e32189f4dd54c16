// The state of the view, and its form in the address.

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Side} Side */

export const MODES = /** @type {const} */ (["attention", "rollout", "similarity", "explanation"]);
export const SCALES = /** @type {const} */ (["own", "robust", "shared"]);

/**
 * Return the number of tokens whose attention a picture has: its prefix and its patches, or a caption's words.
 * @param {import("./types.js").PageInfo} page
 * @param {import("./types.js").PictureInfo} info
 */
export function countTokens(page, info) {
  return info.prefix.length + (page.kind === "vision" ? info.rows * info.columns : 0);
}

/**
 * Return the kinds of maps that a picture has.
 * @param {import("./types.js").PageInfo} page
 * @param {import("./types.js").PictureInfo} info
 */
export function listModes(page, info) {
  const isVision = page.kind === "vision";
  /** @type {Record<import("./types.js").Mode, boolean>} */
  const has = {
    attention: true,
    rollout: isVision && info.layers.length === page.depth,
    similarity: isVision,
    explanation: info.maps.length > 0,
  };
  return MODES.filter((mode) => has[mode]);
}

/**
 * Return the state that a page opens with.
 * @param {import("./types.js").PageInfo} page
 * @returns {State}
 */
export function initialState(page) {
  const info = page.pictures[0], { layer } = info.layers[info.layers.length - 1], modes = listModes(page, info);
  const central = Math.floor(info.rows / 2) * info.columns + Math.floor(info.columns / 2);
  return {
    picture: 0,
    token: info.prefix.length ? 0 : central,
    pinned: false,
    sides: [
      { mode: "attention", layer, head: -1, map: 0 },
      { mode: modes[modes.length - 1], layer, head: modes.length > 1 ? -1 : 0, map: 0 },
    ],
    active: 0,
    compare: false,
    split: 0.5,
    opacity: 0.9,
    scale: "own",
    smooth: false,
  };
}

/** @param {Side} side */
function formatSide(side) {
  if (side.mode === "explanation") return `explanation.${side.map}`;
  const head = side.mode === "attention" ? `.${side.head < 0 ? "mean" : side.head}` : "";
  return `${side.mode}.${side.layer}${head}`;
}

/**
 * Return the state as the part of an address after "#".
 * @param {State} state
 */
export function formatHash(state) {
  const fields = {
    picture: state.picture,
    token: state.token,
    pinned: Number(state.pinned),
    a: formatSide(state.sides[0]),
    b: formatSide(state.sides[1]),
    compare: Number(state.compare),
    split: Math.round(100 * state.split),
    opacity: Math.round(100 * state.opacity),
    scale: state.scale,
    smooth: Number(state.smooth),
  };
  return Object.entries(fields).map(([name, value]) => `${name}=${value}`).join("&");
}

/**
 * Return the state that an address stands for; what it does not say, or says wrongly, is as in `state`.
 * @param {string} hash
 * @param {State} state
 * @param {import("./types.js").PageInfo} page
 * @returns {State}
 */
export function parseHash(hash, state, page) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const picture = readNumber(fields.get("picture"), page.pictures.length, state.picture);
  const info = page.pictures[picture], numTokens = countTokens(page, info);
  const flag = (/** @type {string} */ name, /** @type {boolean} */ value) =>
    fields.has(name) ? fields.get(name) === "1" : value;
  const compare = flag("compare", state.compare);
  return {
    ...state,
    picture,
    token: readNumber(fields.get("token"), numTokens, Math.min(state.token, numTokens - 1)),
    pinned: flag("pinned", state.pinned),
    sides: [parseSide(fields.get("a"), state.sides[0], page, info), parseSide(fields.get("b"), state.sides[1], page, info)],
    compare,
    active: compare ? state.active : 0,
    split: readNumber(fields.get("split"), 101, Math.round(100 * state.split)) / 100,
    opacity: readNumber(fields.get("opacity"), 101, Math.round(100 * state.opacity)) / 100,
    scale: SCALES.find((name) => name === fields.get("scale")) ?? state.scale,
    smooth: flag("smooth", state.smooth),
  };
}

/**
 * @param {string | null} text
 * @param {Side} side
 * @param {import("./types.js").PageInfo} page
 * @param {import("./types.js").PictureInfo} info
 * @returns {Side}
 */
function parseSide(text, side, page, info) {
  const [name, first, head] = (text ?? "").split(".");
  const mode = listModes(page, info).find((each) => each === name);
  if (!mode) return side;
  if (mode === "explanation") return { ...side, mode, map: readNumber(first, info.maps.length, side.map) };
  const layer = readNumber(first, page.depth, side.layer);
  if (!info.layers.some((each) => each.layer === layer)) return side;
  const shown = head === "mean" || head === undefined ? -1 : readNumber(head, page.heads, side.head);
  return { ...side, mode, layer, head: shown };
}

/**
 * Return a whole number below a limit, or another value for any other text.
 * @param {string | null | undefined} text
 * @param {number} limit
 * @param {number} otherwise
 */
function readNumber(text, limit, otherwise) {
  return text && /^\d+$/.test(text) && Number(text) < limit ? Number(text) : otherwise;
}
