// Short forms for the page's elements.

/**
 * Return the element with an id, which the page has.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** @param {string} id */
export function inputById(id) {
  return /** @type {HTMLInputElement} */ (byId(id));
}

/** @param {string} id */
export function canvasById(id) {
  return /** @type {HTMLCanvasElement} */ (byId(id));
}

/**
 * Return a new element with text.
 * @param {string} name
 * @param {string} [text]
 * @param {string} [className]
 */
export function createElement(name, text = "", className = "") {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

/**
 * Set the text of an element where it differs, so that screen readers hear changes alone.
 * @param {string} id
 * @param {string} text
 */
export function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Fill a table with rows of a name, a bar for its share, and the share in words.
 * @param {string} id
 * @param {[string, number, string][]} rows
 */
export function fillShares(id, rows) {
  const body = /** @type {HTMLTableSectionElement} */ (byId(id).querySelector("tbody"));
  body.replaceChildren(...rows.map(([name, share, text]) => {
    const row = document.createElement("tr"), head = createElement("th", name);
    head.setAttribute("scope", "row");
    const meter = createElement("td", "", "meter"), track = createElement("div"), bar = createElement("i");
    bar.style.width = `${100 * share}%`;
    track.append(bar);
    meter.append(track);
    row.append(head, meter, createElement("td", text));
    return row;
  }));
}
