// Relative position bias (BEiT): a number for every distance between patches, added to the attention scores.
// See vit_jax/position/relative_bias.py for the order of a table's entries.

/**
 * Add the bias of one head to the scores of a query.
 * @param {Float32Array} scores  [N], [class] first
 * @param {import("./types.js").NumberArray} table  [entries, heads]
 * @param {number} head
 * @param {number} query
 * @param {number} rows
 * @param {number} columns
 */
export function addBias(scores, table, head, query, rows, columns) {
  const [entries, heads] = table.shape;
  const read = (/** @type {number} */ entry) => table.values[entry * heads + head];
  if (query === 0) {
    scores[0] += read(entries - 1);
    for (let n = 1; n < scores.length; n++) scores[n] += read(entries - 3);
    return;
  }
  scores[0] += read(entries - 2);
  const y = Math.floor((query - 1) / columns), x = (query - 1) % columns;
  for (let row = 0; row < rows; row++) {
    const start = (y - row + rows - 1) * (2 * columns - 1) + x + columns - 1;
    for (let column = 0; column < columns; column++) {
      scores[1 + row * columns + column] += read(start - column);
    }
  }
}
