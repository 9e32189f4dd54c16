// The maps that a state asks for: their values, titles and colour scales.

/** @typedef {import("./types.js").Heat} Heat */
/** @typedef {import("./types.js").Side} Side */
/** @typedef {import("./picture.js").Picture} Picture */

export const ROBUST_SHARE = 0.98; // of the patches: those above are outliers

/**
 * Return the name of a token: "[class]", or "patch 3, 5" by row and column.
 * @param {import("./types.js").PictureInfo} info
 * @param {number} token
 */
export function nameToken(info, token) {
  const patch = token - info.prefix.length;
  if (patch < 0) return info.prefix[token];
  return `patch ${Math.floor(patch / info.columns)}, ${patch % info.columns}`;
}

/**
 * Return what a side shows of a picture.
 * @param {Picture} picture
 * @param {Side} side
 * @param {number} token
 * @returns {Heat}
 */
export function computeHeat(picture, side, token) {
  if (side.mode === "explanation") return readMap(picture, side.map);
  const from = nameToken(picture.info, token), layer = `layer ${side.layer}`;
  if (side.mode === "similarity") {
    const values = picture.similarity(side.layer, token);
    return ofTokens(picture, values, `Similarity to ${from} after ${layer}`, "cosine");
  }
  if (side.mode === "rollout") {
    const values = picture.rollout(side.layer, token);
    return ofTokens(picture, values, `Rollout from ${from} through layers 0 to ${side.layer}`, "share");
  }
  const head = side.head < 0 ? "mean over heads" : `head ${side.head}`;
  const values = picture.attention(side.layer, side.head, token);
  return ofTokens(picture, values, `Attention of ${from}, ${layer}, ${head}`, "weight");
}

/**
 * @param {Picture} picture
 * @param {Float32Array} values  [N]
 * @param {string} title
 * @param {string} unit
 * @returns {Heat}
 */
function ofTokens(picture, values, title, unit) {
  const { rows, columns } = picture.info, first = picture.keyPrefix;
  const prefix = first ? values.subarray(0, first) : null;
  return { values: values.subarray(first), rows, columns, signed: false, colours: null, prefix, title, unit, note: "" };
}

/**
 * @param {Picture} picture
 * @param {number} index
 * @returns {Heat}
 */
function readMap(picture, index) {
  const info = picture.info.maps[index], { values, shape } = picture.maps[`map${index}`];
  const [rows, columns] = shape, span = (info.high - info.low) / 255;
  const target = info.target ? ` for ${info.target} (p = ${formatNumber(info.probability)})` : "";
  const colours = info.colour ? /** @type {Uint8Array} */ (values) : null;
  const isExact = values instanceof Float32Array;
  const levels = isExact ? values : Float32Array.from(values, (level) => info.low + span * level);
  return {
    values: colours ? new Float32Array(rows * columns) : levels, rows, columns, signed: info.signed, colours,
    prefix: null, title: `${info.method}${target}`, unit: info.unit, note: info.note,
  };
}

/**
 * Return the maps that share a scale with what a side shows: all heads, or all classes of a method.
 * @param {Picture} picture
 * @param {Side} side
 * @param {number} token
 * @returns {Heat[]}
 */
function listFamily(picture, side, token) {
  if (side.mode === "attention") {
    const heads = Array.from({ length: picture.page.heads }, (_, head) => head);
    return heads.map((head) => computeHeat(picture, { ...side, head }, token));
  }
  if (side.mode === "explanation") {
    const { maps } = picture.info, { method } = maps[side.map];
    const same = maps.flatMap((info, map) => (info.method === method ? [map] : []));
    return same.map((map) => computeHeat(picture, { ...side, map }, token));
  }
  return picture.layerNumbers.map((layer) => computeHeat(picture, { ...side, layer }, token));
}

/**
 * Return the scale of a side's colours.
 * @param {Picture} picture
 * @param {Side} side
 * @param {number} token
 * @param {import("./types.js").State["scale"]} kind
 */
export function findScale(picture, side, token, kind) {
  if (kind === "shared") return fitScale(listFamily(picture, side, token), 1);
  return fitScale([computeHeat(picture, side, token)], kind === "robust" ? ROBUST_SHARE : 1);
}

/**
 * Return the narrowest scale that holds a share of the values, from the lowest.
 * @param {Heat[]} heats
 * @param {number} share
 * @returns {import("./types.js").Scale}
 */
export function fitScale(heats, share) {
  const signed = heats.some((heat) => heat.signed);
  const values = heats.flatMap((heat) => Array.from(heat.values)).filter(Number.isFinite);
  if (!values.length) return { low: 0, high: 0, signed };
  const sorted = Float64Array.from(signed ? values.map(Math.abs) : values).sort();
  const high = sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
  return { low: signed ? -high : sorted[0], high, signed };
}

/**
 * Return a number with three significant digits.
 * @param {number} value
 */
export function formatNumber(value) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  return Math.abs(value) < 1e-4 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

/**
 * Return a share in percent; one that is not 0 is not rounded to 0.
 * @param {number} share
 */
export function formatPercent(share) {
  const percent = 100 * share;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  return `${percent.toFixed(1)} %`;
}
