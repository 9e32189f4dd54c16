// The current view as a PNG file.

import { formatNumber } from "./heat.js";
import { drawPicture } from "./stage.js";
import { contextOf, paintColourBar } from "./paint.js";

const IMAGE_WIDTH = 1200, MARGIN = 24, TEXT_LINE = 34, TEXT_FONT = "24px system-ui, sans-serif"; // pixels

/**
 * Return a canvas with the picture, and the title and colours of each map below it.
 * @param {import("./picture.js").Picture} picture
 * @param {import("./types.js").State} state
 * @param {import("./stage.js").Shown[]} shown
 * @param {import("./paint.js").Tables} tables
 */
export function composeImage(picture, state, shown, tables) {
  const height = Math.round((IMAGE_WIDTH * picture.info.height) / picture.info.width);
  const canvas = document.createElement("canvas");
  canvas.width = IMAGE_WIDTH;
  canvas.height = height + shown.length * 2 * TEXT_LINE + 2 * MARGIN;
  const context = contextOf(canvas);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  drawPicture(context, IMAGE_WIDTH, height, picture, state, shown, tables);
  context.font = TEXT_FONT;
  context.textBaseline = "top";
  shown.forEach(({ heat, scale }, index) => {
    const y = height + MARGIN + index * 2 * TEXT_LINE, side = state.compare ? `${"AB"[index]}: ` : "";
    context.fillStyle = "#000";
    context.fillText(`${side}${heat.title}`, MARGIN, y, IMAGE_WIDTH - 2 * MARGIN);
    if (heat.colours) return;
    const bar = document.createElement("canvas"), low = formatNumber(scale.low), start = MARGIN + context.measureText(low).width + 12;
    paintColourBar(bar, scale.signed, state.opacity, tables);
    context.fillText(low, MARGIN, y + TEXT_LINE);
    context.drawImage(bar, start, y + TEXT_LINE, 320, 22);
    context.strokeStyle = "#999";
    context.strokeRect(start, y + TEXT_LINE, 320, 22);
    context.fillText(`${formatNumber(scale.high)} ${heat.unit}`, start + 332, y + TEXT_LINE);
  });
  return canvas;
}

/**
 * Let the browser save a canvas as a file.
 * @param {HTMLCanvasElement} canvas
 * @param {string} name
 */
export function saveCanvas(canvas, name) {
  const link = document.createElement("a");
  link.download = name;
  link.href = canvas.toDataURL("image/png");
  link.click();
}
