// Arrays from the page's text: base64, inflated by the browser. The other side is vit_jax/viewer/coding.py.

/** @type {Record<string, (buffer: ArrayBuffer, start: number, count: number) => import("./types.js").Numbers>} */
const READERS = {
  float32: (buffer, start, count) => new Float32Array(buffer.slice(start, start + 4 * count)),
  int8: (buffer, start, count) => new Int8Array(buffer, start, count),
  uint8: (buffer, start, count) => new Uint8Array(buffer, start, count),
  uint16: (buffer, start, count) => new Uint16Array(buffer.slice(start, start + 2 * count)),
  split16: readSplit,
};
/** @type {Record<string, number>} */
const BYTES = { float32: 4, int8: 1, uint8: 1, uint16: 2, split16: 2 };

/**
 * Join 16-bit integers whose low bytes come first, and then the high ones.
 * @param {ArrayBuffer} buffer
 * @param {number} start
 * @param {number} count
 */
function readSplit(buffer, start, count) {
  const low = new Int8Array(buffer, start, count), high = new Int8Array(buffer, start + count, count);
  return Int16Array.from(low, (value, i) => value + 256 * high[i]);
}

/**
 * Return the arrays by name.
 * @param {import("./types.js").Encoded} encoded
 * @returns {Promise<Record<string, import("./types.js").NumberArray>>}
 */
export async function decodeArrays(encoded) {
  const packed = Uint8Array.from(atob(encoded.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  /** @type {Record<string, import("./types.js").NumberArray>} */
  const arrays = {};
  let start = 0;
  for (const [name, kind, shape] of encoded.arrays) {
    const count = shape.reduce((product, length) => product * length, 1);
    arrays[name] = { values: READERS[kind](buffer, start, count), shape };
    start += count * BYTES[kind];
  }
  return arrays;
}
