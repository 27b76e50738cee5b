// The list of workers.

import {get} from '/api.js';
import {el, setAttribute, setChildren, setText} from '/dom.js';
import * as format from '/format.js';
import {setState, stateBadge} from '/state_badge.js';

const INTERVAL_MS = 4000;
const PAGE = 500;
const HIDDEN_JOB = 'projects/-/trainingJobs/-';
const COLUMNS = ['Worker', 'State', 'Slots in use', 'Kind', 'Jobs', 'Version', 'Heartbeat'];

function createRow() {
  const name = el('span', {class: 'name'});
  const host = el('span', {class: 'sub'});
  const badge = stateBadge();
  const row = el('tr', {role: 'row'},
      el('th', {scope: 'row', role: 'rowheader', 'data-label': 'Worker'}, name, host),
      el('td', {role: 'cell', 'data-label': 'State'}, badge),
      el('td', {role: 'cell', 'data-label': 'Slots in use'}, el('meter', {min: '0', 'aria-label': 'Slots in use'}), el('span', {class: 'sub'})),
      ...COLUMNS.slice(3).map((label) => el('td', {role: 'cell', 'data-label': label})));
  row.parts = {name, host, badge};
  return row;
}

function kindText(slots) {
  const names = slots.map((slot) => (slot.gpu && slot.gpu.name) || format.enumName(slot.kind, 'KIND_'));
  return [...new Set(names)].join(', ') || '–';
}

function createJob(job) {
  if (job === '' || job === HIDDEN_JOB) {
    return el('span', {}, job === '' ? '–' : 'of another project');
  }
  return el('a', {href: format.jobLink(job), class: 'item'}, format.jobParts(job).job);
}

function updateRow(row, worker) {
  const slots = worker.slots || [];
  const used = slots.filter((slot) => slot.training_job);
  const {name, host, badge} = row.parts;
  const id = worker.name.replace(/^workers\//, '');
  const cells = row.cells;
  setText(name, id);
  setText(host, worker.host_name === id ? '' : worker.host_name);
  setState(badge, format.enumName(worker.state, 'STATE_'));
  setAttribute(cells[2].firstChild, 'max', String(Math.max(1, slots.length)));
  setAttribute(cells[2].firstChild, 'value', String(used.length));
  setText(cells[2].lastChild, `${used.length} of ${slots.length}`);
  setText(cells[3], kindText(slots));
  const jobs = [...new Set(used.map((slot) => slot.training_job))];
  setChildren(cells[4], jobs.length > 0 ? jobs : [''], (job) => job, createJob, () => {});
  setText(cells[5], worker.version);
  setText(cells[6], format.ago(worker.last_heartbeat_time));
  setAttribute(cells[6], 'title', format.dateTime(worker.last_heartbeat_time));
}

function summaryText(workers) {
  const slots = workers.flatMap((worker) => worker.slots || []);
  const ready = workers.filter((worker) => worker.state === 'STATE_READY').length;
  const used = slots.filter((slot) => slot.training_job).length;
  return `${ready} of ${workers.length} ${workers.length === 1 ? 'worker' : 'workers'} ready, ` +
      `${used} of ${slots.length} slots in use`;
}

export function workersPage(content, shell) {
  shell.setTitle('Workers');
  const summary = el('p', {class: 'summary'}, 'Loading…');
  const body = el('tbody', {role: 'rowgroup'});
  const table = el('table', {class: 'cards', role: 'table', 'aria-label': 'Workers', hidden: true},
      el('thead', {role: 'rowgroup'}, el('tr', {role: 'row'},
        ...COLUMNS.map((name) => el('th', {scope: 'col', role: 'columnheader'}, name)))),
      body);
  const empty = el('p', {class: 'empty', hidden: true}, 'No worker has connected yet.');
  const rest = el('p', {class: 'hint', hidden: true}, `The first ${PAGE} workers are shown.`);
  content.append(el('h1', {tabindex: '-1'}, 'Workers'), summary, table, empty, rest);
  shell.poll(async (signal) => {
    const list = await get(['workers'], {page_size: PAGE}, signal);
    const workers = list.workers || [];
    setText(summary, workers.length === 0 ? '' : summaryText(workers));
    setChildren(body, workers, (worker) => worker.name, createRow, updateRow);
    table.hidden = workers.length === 0;
    empty.hidden = workers.length > 0;
    rest.hidden = !list.next_page_token;
  }, INTERVAL_MS);
}
