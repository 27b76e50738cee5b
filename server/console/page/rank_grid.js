// The ranks of a job as the grid they form: a row a replica, a column a place in the sequence.

import {get} from '/api.js';
import {el, setAttribute, setText} from '/dom.js';
import {enumName, parallelism, words} from '/format.js';
import {shape, tone} from '/state_badge.js';

// Beyond so many ranks of a job, only what is not well is told.
const MAX_CELLS = 1024;
// Up to so many workers are asked for one by one.
const MAX_SINGLE = 8;
const PAGE = 500;
const RANK_STATES = {
  STATE_STARTING: 'STARTING', STATE_RUNNING: 'TRAINING', STATE_RECOVERING: 'STOPPING',
  STATE_SUSPENDING: 'STOPPING', STATE_CANCELLING: 'STOPPING',
};

async function findWorkers(names, signal) {
  const found = new Map();
  if (names.size <= MAX_SINGLE) {
    for (const name of names) {
      found.set(name, await get(name.split('/'), {}, signal).catch((error) => {
        if (error.code === 404) {
          return null;
        }
        throw error;
      }));
    }
    return found;
  }
  let token = '';
  do {
    const list = await get(['workers'], {page_size: PAGE, page_token: token}, signal);
    for (const worker of list.workers || []) {
      if (names.has(worker.name)) {
        found.set(worker.name, worker);
      }
    }
    token = list.next_page_token || '';
  } while (token && found.size < names.size);
  return found;
}

function rankState(job, placement, worker) {
  if (job.end_time) {
    return 'ENDED';
  }
  if (!worker || worker.state === 'STATE_LOST') {
    return 'LOST';
  }
  const slot = (worker.slots || []).find((candidate) => candidate.index === placement.slot);
  const holds = slot && slot.training_job === job.name && slot.rank === placement.rank &&
      slot.generation === job.generation;
  if (!holds) {
    return 'ENDED';
  }
  return worker.state === 'STATE_DRAINING' ? 'DRAINING' : RANK_STATES[job.state] || enumName(job.state, 'STATE_');
}

function counts(states) {
  const by = new Map();
  for (const state of states) {
    by.set(state, (by.get(state) || 0) + 1);
  }
  return [...by].map(([state, count]) => `${count} ${words(state).toLowerCase()}`).join(', ');
}

export class RankGrid {
  constructor() {
    this.note = el('p', {class: 'hint'});
    this.table = el('table', {class: 'ranks'});
    this.scroll = el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Grid of ranks'}, this.table);
    this.element = el('div', {}, this.note, this.scroll);
    this.shape = '';
    this.cells = [];
  }

  async update(job, signal) {
    const {sp, dp, ranks} = parallelism(job.spec);
    const placements = job.placements || [];
    const drawn = placements.length > 0 && ranks <= MAX_CELLS;
    this.scroll.hidden = !drawn;
    if (placements.length === 0) {
      setText(this.note, job.end_time ? `${ranks} ${ranks === 1 ? 'rank' : 'ranks'}, all ended.`
                                      : `${ranks} ${ranks === 1 ? 'rank has' : 'ranks have'} no slots yet.`);
      return;
    }
    const workers = job.end_time ? new Map()
                                 : await findWorkers(new Set(placements.map((p) => p.worker)), signal);
    const states = placements.map((placement) => rankState(job, placement, workers.get(placement.worker)));
    setText(this.note, `${ranks} ${ranks === 1 ? 'rank' : 'ranks'}: ${counts(states)}.`);
    if (drawn) {
      this.draw(sp, dp);
      placements.forEach((placement, i) => this.fill(placement, states[i]));
    }
  }

  draw(sp, dp) {
    if (this.shape === `${sp}x${dp}`) {
      return;
    }
    this.shape = `${sp}x${dp}`;
    this.cells = [];
    const rows = [];
    for (let replica = 0; replica < dp; ++replica) {
      const cells = [];
      for (let part = 0; part < sp; ++part) {
        const cell = el('td', {}, el('span', {class: 'rank'}), el('span', {class: 'sub'}), el('span', {class: 'sub place'}));
        cells.push(cell);
        this.cells.push(cell);
      }
      rows.push(el('tr', {}, el('th', {scope: 'row'}, `DP\u00a0${replica}`), ...cells));
    }
    const heads = Array.from({length: sp}, (_, part) => el('th', {scope: 'col'}, `SP\u00a0${part}`));
    this.table.replaceChildren(
        el('caption', {class: 'hidden'}, 'Ranks: a row a replica, a column a part of the sequence'),
        el('thead', {}, el('tr', {}, el('td', {}), ...heads)), el('tbody', {}, ...rows));
  }

  fill(placement, state) {
    const cell = this.cells[placement.rank];
    if (!cell) {
      return;
    }
    const [rank, status, place] = cell.children;
    setAttribute(cell, 'data-tone', tone(state));
    setText(rank, `Rank\u00a0${placement.rank}`);
    setText(status, `${shape(state)} ${words(state)}`);
    setText(place, `${placement.worker.replace(/^workers\//, '')}:${placement.slot}`);
    setAttribute(place, 'title', `slot ${placement.slot} of ${placement.worker}`);
  }
}
