// One picture's stored values, and what is computed from them: attention, similarity, rollout.

import { addBias } from "./bias.js";
import { decodeArrays } from "./codec.js";
import { FactoredMatrices, softmaxInPlace } from "./factors.js";

const SLICE_MS = 12; // of computing between two frames
const WEIGHT_STEPS = 65535; // a stored weight of 1

/**
 * A layer has factors, or the weights themselves, [heads, words, patches].
 * @typedef {{layer: number, scores?: FactoredMatrices, similarities?: FactoredMatrices, weights?: import("./types.js").NumberArray}} Layer
 */

export class Picture {
  /**
   * @param {import("./types.js").PageInfo} page
   * @param {import("./types.js").PictureInfo} info
   * @param {Layer[]} layers
   * @param {Record<string, import("./types.js").NumberArray>} maps
   * @param {import("./types.js").NumberArray[]} biases
   * @param {HTMLImageElement} image
   */
  constructor(page, info, layers, maps, biases, image) {
    this.page = page;
    this.info = info;
    this.maps = maps;
    this.image = image;
    this.biases = biases;
    this.layers = new Map(layers.map((layer) => [layer.layer, layer]));
    /** The tokens that are attended to: all, or the patches by a caption's words. */
    this.keyPrefix = page.kind === "vision" ? info.prefix.length : 0;
    this.numTokens = this.keyPrefix + info.rows * info.columns;
    /** @type {Map<number, Float32Array>} attention of a layer, its mean over heads, [N * N] */
    this.means = new Map();
    this.cached = { key: "", rows: new Float32Array(0) };
  }

  /**
   * Decode a picture of the page.
   * @param {import("./types.js").PageInfo} page
   * @param {import("./types.js").PictureInfo} info
   */
  static async open(page, info) {
    const image = new Image();
    image.src = info.image;
    const layers = info.layers.map(async ({ layer, scores, similarities, weights }) => ({
      layer,
      scores: scores && new FactoredMatrices(await decodeArrays(scores)),
      similarities: similarities && new FactoredMatrices(await decodeArrays(similarities)),
      weights: weights && (await decodeArrays(weights)).weights,
    }));
    const biases = page.biases.map(async (table) => (await decodeArrays(table)).table);
    const [, maps] = await Promise.all([image.decode(), decodeArrays(info.mapValues)]);
    return new Picture(page, info, await Promise.all(layers), maps, await Promise.all(biases), image);
  }

  /** The layers that the page has, in order. */
  get layerNumbers() {
    return [...this.layers.keys()];
  }

  /** @param {number} layer */
  layer(layer) {
    return /** @type {Layer} */ (this.layers.get(layer));
  }

  /**
   * Write a head's attention row of a token to `out`.
   * @param {number} layer
   * @param {number} head
   * @param {number} token
   * @param {Float32Array} out
   */
  attentionRow(layer, head, token, out) {
    const { scores, weights } = this.layer(layer), n = this.numTokens;
    if (weights) {
      const start = (head * weights.shape[1] + token) * n;
      for (let i = 0; i < n; i++) out[i] = weights.values[start + i] / WEIGHT_STEPS;
      return out;
    }
    /** @type {FactoredMatrices} */ (scores).row(head, token, out);
    const { rows, columns } = this.info;
    const table = this.biases[Math.min(layer, this.biases.length - 1)];
    if (table) addBias(out, table, head, token, rows, columns);
    return softmaxInPlace(out);
  }

  /**
   * Return the attention rows of a token of all heads, [heads * N].
   * @param {number} layer
   * @param {number} token
   */
  attentionRows(layer, token) {
    const key = `${layer} ${token}`;
    if (this.cached.key === key) return this.cached.rows;
    const n = this.numTokens, rows = new Float32Array(this.page.heads * n);
    for (let head = 0; head < this.page.heads; head++) {
      this.attentionRow(layer, head, token, rows.subarray(head * n, (head + 1) * n));
    }
    this.cached = { key, rows };
    return rows;
  }

  /**
   * Return the attention of a token to every token, of a head or the mean over heads (-1).
   * @param {number} layer
   * @param {number} head
   * @param {number} token
   */
  attention(layer, head, token) {
    const n = this.numTokens, rows = this.attentionRows(layer, token);
    return head < 0 ? meanOverHeads(rows, n) : rows.slice(head * n, (head + 1) * n);
  }

  /**
   * Return the cosine similarity of a token to every token after a layer.
   * @param {number} layer
   * @param {number} token
   */
  similarity(layer, token) {
    const matrix = /** @type {FactoredMatrices} */ (this.layer(layer).similarities);
    return matrix.row(0, token, new Float32Array(this.numTokens)).map((value) => Math.max(-1, Math.min(1, value)));
  }

  /** Whether rollout() has what it needs. */
  get hasMeans() {
    return this.means.size === this.page.depth;
  }

  /**
   * Compute every layer's mean over heads for every token, in slices that leave the page responsive.
   * @param {(share: number) => void} report  progress, 0 to 1
   */
  async computeMeans(report) {
    const n = this.numTokens, all = this.page.heads * n;
    const rows = new Float32Array(all);
    let last = performance.now();
    for (let layer = 0; layer < this.page.depth; layer++) {
      if (this.means.has(layer)) continue;
      const mean = new Float32Array(n * n);
      for (let token = 0; token < n; token++) {
        for (let head = 0; head < this.page.heads; head++) {
          this.attentionRow(layer, head, token, rows.subarray(head * n, (head + 1) * n));
        }
        mean.set(meanOverHeads(rows, n), token * n);
        if (performance.now() - last > SLICE_MS) {
          report((layer + token / n) / this.page.depth);
          await new Promise((resolve) => setTimeout(resolve));
          last = performance.now();
        }
      }
      this.means.set(layer, mean);
    }
  }

  /**
   * Return attention rollout of a token through the layers 0 to `layer`; see vit_jax/explain/rollout.py.
   * @param {number} layer
   * @param {number} token
   */
  rollout(layer, token) {
    const n = this.numTokens;
    let row = new Float32Array(n);
    row[token] = 1;
    for (let l = layer; l >= 0; l--) {
      const mean = /** @type {Float32Array} */ (this.means.get(l));
      const next = row.map((value) => value / 2); // a row of norm(A + I): rows of A sum to 1
      for (let m = 0; m < n; m++) {
        const share = row[m] / 2;
        if (share === 0) continue;
        for (let k = 0, start = m * n; k < n; k++) next[k] += share * mean[start + k];
      }
      row = next;
    }
    return row;
  }
}

/**
 * @param {Float32Array} rows  [heads * n]
 * @param {number} n
 */
function meanOverHeads(rows, n) {
  const mean = new Float32Array(n), heads = rows.length / n;
  for (let i = 0; i < rows.length; i++) mean[i % n] += rows[i] / heads;
  return mean;
}
