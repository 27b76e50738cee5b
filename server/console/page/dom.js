// Builds and updates elements. Every text becomes a text node, without characters that steer a
// terminal or turn the order of what follows: names, labels and logs are other people's words.

const ESCAPE_SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|.)/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

export function clean(text) {
  return String(text).replace(ESCAPE_SEQUENCES, '').replace(CONTROLS, '');
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith('on')) {
      node.addEventListener(name.slice(2), value);
    } else if (value === true) {
      node.setAttribute(name, '');
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, clean(value));
    }
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== '') {
      node.append(child instanceof Node ? child : clean(child));
    }
  }
  return node;
}

// el('a', {href: '#/jobs', onclick: f}, 'text', element, …)
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

// Changes only what differs, so that a selection or the focus stays.
export function setText(node, text) {
  const cleaned = clean(text);
  if (node.textContent !== cleaned) {
    node.textContent = cleaned;
  }
}

export function setAttribute(node, name, value) {
  const cleaned = value === null || value === undefined ? null : clean(value);
  if (cleaned === null) {
    node.removeAttribute(name);
  } else if (node.getAttribute(name) !== cleaned) {
    node.setAttribute(name, cleaned);
  }
}

// Makes the children of `parent` those of `items`, in order. A child stays the same element while
// its key does: create(item) makes it, update(element, item) fills it.
export function setChildren(parent, items, key, create, update) {
  const present = parent.itemElements || new Map();
  const next = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    const element = present.get(name) || create(item);
    update(element, item);
    next.set(name, element);
    if (element === at) {
      at = at.nextSibling;
    } else {
      parent.insertBefore(element, at);
    }
  }
  for (const [name, element] of present) {
    if (!next.has(name)) {
      element.remove();
    }
  }
  parent.itemElements = next;
}
