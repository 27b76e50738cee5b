// The list of jobs.

import {ApiError, get} from '/api.js';
import {el, setAttribute, setChildren, setText} from '/dom.js';
import * as format from '/format.js';
import {setState, stateBadge} from '/state_badge.js';

const STATES = ['QUEUED', 'STARTING', 'RUNNING', 'RECOVERING', 'SUSPENDING', 'SUSPENDED', 'CANCELLING',
                'SUCCEEDED', 'FAILED', 'CANCELLED'];
const INTERVAL_MS = 3000;
const PAGE = 50;
const MAX_SHOWN = 500;
const COLUMNS = ['Job', 'State', 'Progress', 'Loss', 'Tokens/s', 'Ranks', 'Time left', 'Created'];
const NUMERIC = new Set(['Loss', 'Tokens/s', 'Time left', 'Created']);

function filterText(state, expression) {
  // The expression first: what is wrong with it is told by its column.
  return [expression.trim(), state ? `state=${state}` : ''].filter((term) => term).join(' AND ');
}

function createRow() {
  const link = el('a', {});
  const title = el('span', {class: 'sub'});
  const bar = el('progress', {max: '1', value: '0', 'aria-label': 'Progress'});
  const badge = stateBadge();
  const cell = (name, ...children) =>
      el('td', {role: 'cell', 'data-label': name, class: NUMERIC.has(name) ? 'number' : ''}, ...children);
  const row = el('tr', {role: 'row'},
      el('th', {scope: 'row', role: 'rowheader', 'data-label': 'Job'}, link, title),
      cell('State', badge, el('span', {class: 'sub'})),
      cell('Progress', bar, el('span', {class: 'sub'})),
      ...COLUMNS.slice(3).map((name) => cell(name)));
  row.parts = {link, title, bar, badge};
  return row;
}

function updateRow(row, job) {
  const {link, title, bar, badge} = row.parts;
  const {project, job: id} = format.jobParts(job.name);
  const progress = job.progress || {};
  const step = format.number(progress.step) || 0;
  const steps = format.number(job.spec.max_steps) || 1;
  const state = format.enumName(job.state, 'STATE_');
  const {sp, dp} = format.parallelism(job.spec);
  const cells = row.cells;
  setText(link, id);
  setAttribute(link, 'href', format.jobLink(job.name));
  setText(title, [job.display_name === id ? '' : job.display_name, project === 'default' ? '' : `in ${project}`].filter((t) => t).join(' · '));
  setState(badge, state);
  setText(cells[1].lastChild, ['QUEUED', 'RECOVERING', 'FAILED'].includes(state) ? format.words(job.reason) : '');
  setAttribute(bar, 'value', String(Math.min(1, step / steps)));
  setText(cells[2].lastChild, `${format.integer(step)} of ${format.integer(steps)} steps`);
  setText(cells[3], step > 0 ? format.loss(format.number(progress.loss)) : '–');
  setText(cells[4], state === 'RUNNING' && step > 0 ? format.compact(format.number(progress.tokens_per_second)) : '–');
  setText(cells[5], `SP\u00a0${sp} × DP\u00a0${dp}`);
  setText(cells[6], state === 'RUNNING' ? format.duration(format.durationSeconds(progress.remaining_duration)) : '–');
  setText(cells[7], format.ago(job.create_time));
  setAttribute(cells[7], 'title', format.dateTime(job.create_time));
}

function summaryText(jobs, more) {
  const running = jobs.filter((job) => job.state === 'STATE_RUNNING');
  const rate = running.reduce((sum, job) => sum + (format.number(job.progress && job.progress.tokens_per_second) || 0), 0);
  const count = `${jobs.length}${more ? '+' : ''} ${jobs.length === 1 ? 'job' : 'jobs'}`;
  return running.length === 0 ? count : `${count}, ${running.length} running at ${format.compact(rate)} tokens/s`;
}

export function jobsPage(content, shell, parameters) {
  shell.setTitle('Jobs');
  let shown = PAGE;
  const state = el('select', {id: 'state'}, el('option', {value: ''}, 'Any state'),
                   ...STATES.map((name) => el('option', {value: name}, format.words(name))));
  state.value = STATES.includes(parameters.get('state')) ? parameters.get('state') : '';
  const project = el('input', {id: 'project', type: 'text', placeholder: 'all', spellcheck: 'false', autocomplete: 'off'});
  project.value = parameters.get('project') || '';
  const expression = el('input', {
    id: 'filter', type: 'text', placeholder: 'labels.team="nlp"', spellcheck: 'false', autocomplete: 'off',
    'aria-describedby': 'filter-problem',
  });
  expression.value = parameters.get('filter') || '';
  const problem = el('p', {id: 'filter-problem', class: 'problem', role: 'alert', hidden: true});
  const summary = el('p', {class: 'summary'}, 'Loading…');
  const body = el('tbody', {role: 'rowgroup'});
  const table = el('table', {class: 'cards', role: 'table', 'aria-label': 'Jobs', hidden: true},
      el('thead', {role: 'rowgroup'}, el('tr', {role: 'row'}, ...COLUMNS.map((name) =>
        el('th', {scope: 'col', role: 'columnheader', class: NUMERIC.has(name) ? 'number' : ''}, name)))),
      body);
  const empty = el('p', {class: 'empty', hidden: true});
  const more = el('button', {type: 'button', class: 'quiet', hidden: true}, 'Show more');

  async function ask(signal) {
    let list;
    try {
      list = await get(['projects', project.value.trim() || '-', 'trainingJobs'],
                       {filter: filterText(state.value, expression.value), page_size: shown}, signal);
    } catch (error) {
      const mine = error instanceof ApiError && [400, 403].includes(error.code);
      problem.hidden = !mine;
      if (!mine) {
        throw error;
      }
      setText(problem, format.sentence(error.message));
      return;
    }
    problem.hidden = true;
    const jobs = list.training_jobs || [];
    const rest = Boolean(list.next_page_token);
    setText(summary, summaryText(jobs, rest));
    setChildren(body, jobs, (job) => job.uid, createRow, updateRow);
    table.hidden = jobs.length === 0;
    const filtered = state.value || project.value.trim() || expression.value.trim();
    setText(empty, filtered ? 'No job is like this.' : 'There are no jobs yet. Submit one with: lasp submit JOB.yaml');
    empty.hidden = jobs.length > 0;
    more.hidden = !rest;
    more.disabled = shown >= MAX_SHOWN;
    setText(more, shown >= MAX_SHOWN ? `The newest ${MAX_SHOWN} are shown: narrow the filter for others` : 'Show more');
  }

  const form = el('form', {class: 'filters', role: 'search', 'aria-label': 'Jobs'},
      el('div', {}, el('label', {for: 'state'}, 'State'), state),
      el('div', {}, el('label', {for: 'project'}, 'Project'), project),
      el('div', {class: 'wide'}, el('label', {for: 'filter'}, 'Filter'), expression),
      el('button', {type: 'submit'}, 'Apply'));
  content.append(el('h1', {tabindex: '-1'}, 'Jobs'), form, problem, summary, table, empty, more);
  const asking = shell.poll(ask, INTERVAL_MS);

  function apply(event) {
    event.preventDefault();
    const query = new URLSearchParams();
    for (const [name, value] of [['state', state.value], ['project', project.value.trim()], ['filter', expression.value.trim()]]) {
      if (value) {
        query.set(name, value);
      }
    }
    const text = query.toString();
    window.history.replaceState(null, '', `#/jobs${text ? `?${text}` : ''}`);
    shown = PAGE;
    asking.again();
  }

  form.addEventListener('submit', apply);
  state.addEventListener('change', apply);
  more.addEventListener('click', () => {
    shown = Math.min(shown + PAGE, MAX_SHOWN);
    asking.again();
  });
}
