// Rows of large matrices from their quantized factors; see vit_jax/viewer/factors.py.

/** H matrices S[m, n] = sum over j of left[j, m] * right[j, n] * weights[j]. */
export class FactoredMatrices {
  /** @param {Record<string, import("./types.js").NumberArray>} arrays */
  constructor(arrays) {
    const { left, right, weights } = arrays;
    const [components, heads, tokens] = left.shape;
    this.components = components;
    this.heads = heads;
    this.tokens = tokens;
    this.left = left.values;
    this.right = (right ?? left).values;
    this.weights = weights.values;
  }

  /**
   * Write row m of the matrix of one head to `out`.
   * @param {number} head
   * @param {number} m
   * @param {Float32Array} out
   */
  row(head, m, out) {
    const { components, heads, tokens, left, right, weights } = this;
    out.fill(0);
    for (let j = 0; j < components; j++) {
      const start = (j * heads + head) * tokens;
      const factor = left[start + m] * weights[head * components + j];
      if (factor === 0) continue;
      for (let n = 0; n < tokens; n++) out[n] += factor * right[start + n];
    }
    return out;
  }
}

/**
 * Replace scores by their softmax.
 * @param {Float32Array} scores
 */
export function softmaxInPlace(scores) {
  let largest = -Infinity, total = 0;
  for (const score of scores) largest = Math.max(largest, score);
  for (let n = 0; n < scores.length; n++) total += scores[n] = Math.exp(scores[n] - largest);
  for (let n = 0; n < scores.length; n++) scores[n] /= total;
  return scores;
}
