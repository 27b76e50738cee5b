// Curves over steps, as SVG: lines, or areas that lie on each other. Read with the pointer, with the
// arrow keys, or as a table.

import {el, setAttribute, setText, svg} from '/dom.js';

const HEIGHT = 200;
const MARGIN = {top: 10, right: 12, bottom: 24, left: 56};
const TABLE_ROWS = 40;
// Steps that fall on so few pixels are drawn as one, by their mean: noise would hide the rest.
const PIXELS_A_POINT = 3;
const MAX_DOTS = 40;

// At most `count` round values within [low, high].
export function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) {
    return [low];
  }
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw) || 10);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) {
    found.push(i * step);
  }
  return found;
}

// 40.0 k as 40 k.
function shortened(text) {
  return text.replace(/\.0+(?!\d)/, '');
}

// The range that is worth showing: all of it, a hair wider.
function rangeOf(values, fromZero) {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) {
    return [0, 1];
  }
  let low = finite.reduce((a, b) => Math.min(a, b));
  let high = finite.reduce((a, b) => Math.max(a, b));
  if (fromZero) {
    low = Math.min(0, low);
  }
  const pad = (high - low) * 0.05 || Math.abs(high) * 0.1 || 1;
  return [fromZero && low === 0 ? 0 : low - pad, high + pad];
}

function mean(values) {
  const finite = values.filter(Number.isFinite);
  return finite.length === 0 ? NaN : finite.reduce((a, b) => a + b) / finite.length;
}

function path(points) {
  let text = '';
  let pen = false;
  for (const [x, y] of points) {
    if (Number.isFinite(y)) {
      text += `${pen ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = true;
    } else {
      pen = false;
    }
  }
  return text;
}

// options: {title, series: [{name, value(row)}], format(value), stacked, fromZero}. A row has `step`.
// A series with `sparse` has values at some rows only.
export class Chart {
  constructor(options) {
    this.options = options;
    this.rows = [];
    this.picked = -1;
    this.plot = svg('svg', {class: 'plot', tabindex: '0', role: 'img', height: HEIGHT});
    this.reading = el('p', {class: 'reading', 'aria-live': 'polite'});
    this.legend = el('ul', {class: 'legend'}, ...options.series.map((series, i) =>
      el('li', {}, el('span', {class: `key series-${i}`, 'aria-hidden': 'true'}), series.name)));
    this.tableBody = el('tbody');
    const table = el('details', {class: 'data'}, el('summary', {}, 'Show as a table'),
        el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `${options.title}, table`},
           el('table', {},
              el('caption', {class: 'hidden'}, options.title),
              el('thead', {}, el('tr', {}, ...['Step', ...options.series.map((s) => s.name)].map((name) =>
                el('th', {scope: 'col', class: 'number'}, name)))),
              this.tableBody)));
    this.table = table;
    this.figure = el('figure', {class: 'chart'},
        el('figcaption', {}, el('h3', {}, options.title), options.series.length > 1 ? this.legend : null),
        this.plot, this.reading, table);
    this.plot.addEventListener('pointermove', (event) => this.pickAt(event.offsetX));
    this.plot.addEventListener('pointerleave', () => this.pick(-1));
    this.plot.addEventListener('blur', () => this.pick(-1));
    this.plot.addEventListener('keydown', (event) => this.onKey(event));
    table.addEventListener('toggle', () => this.fillTable());
    // Its size is the page's to say.
    new ResizeObserver(() => this.draw()).observe(this.figure);
  }

  setRows(rows) {
    this.rows = rows;
    this.draw();
    this.fillTable();
  }

  onKey(event) {
    const last = this.rows.length - 1;
    const from = this.picked < 0 ? last : this.picked;
    const page = Math.max(1, Math.round(last / 10));
    const to = {
      ArrowLeft: from - 1, ArrowRight: from + 1, PageUp: from - page, PageDown: from + page, Home: 0, End: last,
    }[event.key];
    if (to !== undefined && last >= 0) {
      event.preventDefault();
      this.pick(Math.max(0, Math.min(last, to)));
    }
  }

  pickAt(x) {
    if (this.rows.length === 0 || !this.x) {
      return;
    }
    let best = 0;
    this.rows.forEach((row, i) => {
      if (Math.abs(this.x(row.step) - x) < Math.abs(this.x(this.rows[best].step) - x)) {
        best = i;
      }
    });
    this.pick(best);
  }

  pick(index) {
    this.picked = index;
    this.drawReading();
  }

  readingOf(row) {
    const values = this.options.series
        .map((series) => [series.name, series.value(row)])
        .filter(([, value]) => Number.isFinite(value))
        .map(([name, value]) => `${this.options.series.length > 1 ? `${name} ` : ''}${this.options.format(value)}`);
    return `Step ${row.step}: ${values.join(', ')}`;
  }

  drawReading() {
    const row = this.rows[this.picked];
    setText(this.reading, row ? this.readingOf(row) : '');
    if (this.cursor) {
      setAttribute(this.cursor, 'visibility', row ? 'visible' : 'hidden');
      if (row) {
        setAttribute(this.cursor, 'transform', `translate(${this.x(row.step).toFixed(1)} 0)`);
      }
    }
  }

  // What is drawn: at most `count` points of {step, values}.
  points(count) {
    const stride = Math.max(1, Math.ceil(this.rows.length / count));
    const points = [];
    for (let at = 0; at < this.rows.length; at += stride) {
      const group = this.rows.slice(at, at + stride);
      points.push({
        step: mean(group.map((row) => row.step)),
        values: this.options.series.map((series) => mean(group.map((row) => series.value(row)))),
      });
    }
    return points;
  }

  // For each series [low, high] at each point.
  bands(points) {
    const floor = points.map(() => 0);
    return this.options.series.map((_, series) => points.map(({values}, i) => {
      const value = values[series];
      if (!this.options.stacked) {
        return [value, value];
      }
      const low = floor[i];
      floor[i] += Number.isFinite(value) ? value : 0;
      return [low, floor[i]];
    }));
  }

  draw() {
    const width = Math.max(240, Math.floor(this.figure.clientWidth));
    setAttribute(this.plot, 'width', String(width));
    setAttribute(this.plot, 'viewBox', `0 0 ${width} ${HEIGHT}`);
    setAttribute(this.plot, 'aria-label', this.describe());
    if (this.rows.length === 0) {
      this.x = null;
      this.cursor = null;
      this.plot.replaceChildren(svg('text', {x: width / 2, y: HEIGHT / 2, class: 'none'}, 'No steps yet'));
      return;
    }
    const points = this.points(Math.floor(width / PIXELS_A_POINT));
    const bands = this.bands(points);
    const [low, high] = rangeOf(bands.flat(2), this.options.stacked || this.options.fromZero);
    const first = this.rows[0].step;
    const last = Math.max(this.rows[this.rows.length - 1].step, first + 1);
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    this.x = (step) => MARGIN.left + ((step - first) / (last - first)) * (right - MARGIN.left);
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top);
    const grid = svg('g', {class: 'grid'});
    for (const value of ticks(low, high, 6)) {
      grid.append(svg('line', {x1: MARGIN.left, x2: right, y1: y(value), y2: y(value)}),
                  svg('text', {x: MARGIN.left - 8, y: y(value) + 4, class: 'y'}, shortened(this.options.format(value))));
    }
    for (const step of ticks(first, last, Math.max(4, Math.floor(width / 110))).filter(Number.isInteger)) {
      grid.append(svg('text', {x: this.x(step), y: HEIGHT - 6, class: 'x'}, String(step)));
    }
    const marks = svg('g', {});
    this.options.series.forEach((series, i) => {
      const upper = points.map(({step}, at) => [this.x(step), y(bands[i][at][1])]);
      if (this.options.stacked) {
        const lower = points.map(({step}, at) => [this.x(step), y(bands[i][at][0])]).reverse();
        marks.append(svg('path', {class: `area series-${i}`, d: `${path(upper.concat(lower))}Z`}));
        return;
      }
      const there = upper.filter((point) => Number.isFinite(point[1]));
      marks.append(svg('path', {class: `line series-${i}${series.sparse ? ' sparse' : ''}`, d: path(series.sparse ? there : upper)}));
      if (there.length === 1 || (series.sparse && there.length <= MAX_DOTS)) {
        for (const [cx, cy] of there) {
          marks.append(svg('circle', {class: `dot series-${i}`, cx: cx.toFixed(1), cy: cy.toFixed(1), r: 3}));
        }
      }
    });
    this.cursor = svg('line', {class: 'cursor', y1: MARGIN.top, y2: bottom, visibility: 'hidden'});
    this.plot.replaceChildren(grid, marks, this.cursor);
    this.drawReading();
  }

  describe() {
    if (this.rows.length === 0) {
      return `${this.options.title}: no steps yet`;
    }
    return `${this.options.title}, steps ${this.rows[0].step} to ${this.rows[this.rows.length - 1].step}. ` +
        `${this.readingOf(this.rows[this.rows.length - 1])}. Arrow keys read other steps.`;
  }

  // Evenly chosen rows, the newest first.
  fillTable() {
    if (!this.table.open) {
      return;
    }
    const stride = Math.max(1, Math.ceil(this.rows.length / TABLE_ROWS));
    const chosen = this.rows.filter((_, i) => (this.rows.length - 1 - i) % stride === 0).reverse();
    this.tableBody.replaceChildren(...chosen.map((row) => el('tr', {}, el('td', {class: 'number'}, String(row.step)),
      ...this.options.series.map((series) => {
        const value = series.value(row);
        return el('td', {class: 'number'}, Number.isFinite(value) ? this.options.format(value) : '–');
      }))));
  }
}
