/**
 * The types that the modules share. This file has no code.
 *
 * @typedef {{arrays: [string, string, number[]][], data: string}} Encoded  see vit_jax/viewer/coding.py
 *
 * @typedef {object} MapInfo
 * @property {string} method   title of the method
 * @property {string} target   name of the class that the map explains; "" for a map of no class
 * @property {number} probability  of that class; negative for a map of no class
 * @property {string} unit     what the values are
 * @property {boolean} signed  whether values have both signs
 * @property {boolean} colour  whether a value is an RGB colour
 * @property {number} low      value of level 0, for maps in 8 bits
 * @property {number} high     value of level 255
 * @property {string} note     why the map says nothing; "" if it does
 *
 * @typedef {object} PictureInfo
 * @property {string} name
 * @property {string} image    data: URI
 * @property {number} width    in pixels
 * @property {number} height
 * @property {number} rows         of patches
 * @property {number} columns
 * @property {string[]} prefix     names of the tokens before the patches; of a caption its words
 * @property {[string, number][]} predictions  classes with their probabilities, or captions with their log-probabilities
 * @property {StoredLayer[]} layers
 * @property {MapInfo[]} maps
 * @property {Encoded} mapValues
 * @property {number} error    largest difference of a stored attention weight from the model's
 *
 * A vision transformer's layer has scores and similarities, a caption decoder's the weights of its cross-attention.
 * @typedef {{layer: number, scores?: Encoded, similarities?: Encoded, weights?: Encoded}} StoredLayer
 *
 * @typedef {object} PageInfo
 * @property {"vision" | "caption"} kind  whether patches attend to patches, or words to patches
 * @property {string} title
 * @property {string} description
 * @property {number} depth
 * @property {number} heads
 * @property {Encoded[]} biases    tables of relative position bias: none, one for all layers, or one per layer
 * @property {Encoded} colours     tables `heat` and `signed`, uint8 [256, 3]
 * @property {PictureInfo[]} pictures
 *
 * @typedef {Float32Array | Int8Array | Uint8Array | Uint16Array | Int16Array} Numbers
 * @typedef {{values: Numbers, shape: number[]}} NumberArray
 *
 * @typedef {"attention" | "rollout" | "similarity" | "explanation"} Mode
 *
 * What one side of the picture shows.
 * @typedef {object} Side
 * @property {Mode} mode
 * @property {number} layer
 * @property {number} head  -1 is the mean over heads
 * @property {number} map   index into the picture's maps
 *
 * @typedef {object} State
 * @property {number} picture
 * @property {number} token    whose attention is shown: those of the prefix, and then the patches
 * @property {boolean} pinned  whether the token stays when the pointer moves
 * @property {[Side, Side]} sides  A and B
 * @property {number} active   the side that the controls change
 * @property {boolean} compare whether B is shown too
 * @property {number} split    where B begins, as a share of the width
 * @property {number} opacity  greatest opacity of a map
 * @property {"own" | "robust" | "shared"} scale
 * @property {boolean} smooth  whether maps are interpolated between patches
 *
 * A map ready to draw.
 * @typedef {object} Heat
 * @property {Float32Array} values   [rows * columns]
 * @property {number} rows
 * @property {number} columns
 * @property {boolean} signed
 * @property {Uint8Array | null} colours  [rows * columns * 3], in place of values
 * @property {Float32Array | null} prefix values of the tokens before the patches
 * @property {string} title
 * @property {string} unit
 * @property {string} note
 *
 * @typedef {{low: number, high: number, signed: boolean}} Scale
 */
export {};
