// One job: how far it is, its curves, its ranks, what happened to it and what it says.

import {ApiError, get} from '/api.js';
import {Chart} from '/chart.js';
import {el, setAttribute, setChildren, setText} from '/dom.js';
import * as format from '/format.js';
import {LogView} from '/log_view.js';
import {RankGrid} from '/rank_grid.js';
import {setState, stateBadge} from '/state_badge.js';
import {StepRows} from '/step_rows.js';

const INTERVAL_MS = 2000;
const EVENT_COLUMNS = ['Time', 'From', 'To', 'Reason', 'Message', 'By', 'Generation'];

function charts() {
  return [
    new Chart({
      title: 'Loss',
      series: [{name: 'training', value: (row) => row.loss}, {name: 'held-out', value: (row) => row.evalLoss, sparse: true}],
      format: (value) => String(Number(value.toPrecision(4))),
    }),
    new Chart({
      title: 'Throughput in tokens/s',
      series: [{name: 'tokens/s', value: (row) => row.rate}],
      format: format.compact,
      fromZero: true,
    }),
    new Chart({
      title: 'Time of a step on rank 0',
      series: [
        {name: 'data', value: (row) => row.data}, {name: 'forward', value: (row) => row.forward},
        {name: 'backward', value: (row) => row.backward}, {name: 'SP wait', value: (row) => row.spWait},
        {name: 'gradient sync', value: (row) => row.sync}, {name: 'optimizer', value: (row) => row.optimizer},
        {name: 'other', value: (row) => row.other},
      ],
      format: (value) => value === 0 ? '0' : format.seconds(value),
      stacked: true,
    }),
  ];
}

function createFact(name) {
  const fact = el('div', {class: 'fact'}, el('dt', {}, name), el('dd', {}));
  fact.value = fact.lastChild;
  return fact;
}

function createEvent() {
  const cell = (name, ...children) => el('td', {role: 'cell', 'data-label': name}, ...children);
  const from = stateBadge();
  const to = stateBadge();
  const row = el('tr', {role: 'row'}, cell('Time'), cell('From', from), cell('To', to),
                 ...EVENT_COLUMNS.slice(3).map((name) => cell(name)));
  row.parts = {from, to};
  return row;
}

function updateEvent(row, event) {
  const from = format.enumName(event.from_state, 'STATE_');
  setText(row.cells[0], format.dateTime(event.time));
  row.parts.from.hidden = from === 'UNSPECIFIED';
  setState(row.parts.from, from);
  setState(row.parts.to, format.enumName(event.to_state, 'STATE_'));
  setText(row.cells[3], format.words(event.reason));
  setText(row.cells[4], event.message);
  setText(row.cells[5], event.actor);
  setText(row.cells[6], String(format.number(event.generation) || '–'));
}

class JobView {
  constructor(project, id) {
    this.rows = new StepRows(project, id);
    this.title = el('h1', {tabindex: '-1'}, id);
    this.badge = stateBadge();
    this.name = el('p', {class: 'sub mono'}, `projects/${project}/trainingJobs/${id}`);
    this.labels = el('ul', {class: 'labels'});
    this.message = el('p', {class: 'notice', hidden: true});
    this.bar = el('progress', {max: '1', value: '0', 'aria-label': 'Progress'});
    this.facts = Object.fromEntries(['Step', 'Loss', 'Tokens/s', 'Time left', 'Ran for', 'Generation', 'Ranks', 'Sequence'].map(
        (name) => [name, createFact(name)]));
    this.charts = charts();
    this.grid = new RankGrid();
    this.logs = new LogView(project, id);
    this.events = el('tbody', {role: 'rowgroup'});
    this.spec = el('pre', {tabindex: '0', role: 'region', 'aria-label': 'Specification'});
    const section = (heading, ...children) => {
      const title = el('h2', {id: `section-${heading.toLowerCase()}`}, heading);
      return el('section', {'aria-labelledby': title.id}, title, ...children);
    };
    this.element = el('div', {class: 'job', hidden: true},
        el('nav', {class: 'trail', 'aria-label': 'Where this is'}, el('a', {href: '#/jobs'}, 'Jobs'), ' / ', el('span', {'aria-current': 'page'}, id)),
        el('div', {class: 'heading'}, this.title, this.badge),
        this.name, this.labels, this.message, this.bar,
        el('dl', {class: 'facts'}, ...Object.values(this.facts)),
        section('Curves', el('div', {class: 'charts'}, ...this.charts.map((chart) => chart.figure))),
        section('Ranks', this.grid.element),
        section('Events', el('table', {class: 'cards events', role: 'table', 'aria-label': 'Events'},
            el('thead', {role: 'rowgroup'}, el('tr', {role: 'row'}, ...EVENT_COLUMNS.map((name) =>
              el('th', {scope: 'col', role: 'columnheader'}, name)))),
            this.events)),
        section('Logs', this.logs.element),
        section('Specification', el('details', {}, el('summary', {}, 'Show the specification'), this.spec)));
  }

  update(job) {
    const state = format.enumName(job.state, 'STATE_');
    const progress = job.progress || {};
    const step = format.number(progress.step) || 0;
    const steps = format.number(job.spec.max_steps) || 1;
    const {sp, dp, ranks} = format.parallelism(job.spec);
    setText(this.title, job.display_name || format.jobParts(job.name).job);
    setState(this.badge, state);
    setChildren(this.labels, Object.entries(job.labels || {}).sort(), ([key]) => key, () => el('li', {}),
                (item, [key, value]) => setText(item, `${key}=${value}`));
    this.labels.hidden = this.labels.childElementCount === 0;
    const quiet = ['RUNNING', 'SUCCEEDED'].includes(state) || !job.message;
    this.message.hidden = quiet;
    setText(this.message, quiet ? '' : job.message);
    setAttribute(this.message, 'data-tone', state === 'FAILED' ? 'bad' : 'waiting');
    setAttribute(this.bar, 'value', String(Math.min(1, step / steps)));
    const end = job.end_time ? Date.parse(job.end_time) : Date.now();
    const restarts = job.restart_count || 0;
    const first = format.number(progress.first_loss);
    const values = {
      Step: `${format.integer(step)} of ${format.integer(steps)}`,
      Loss: step > 0 ? `${format.loss(first)} → ${format.loss(format.number(progress.loss))}` : '–',
      'Tokens/s': step > 0 ? format.compact(format.number(progress.tokens_per_second)) : '–',
      'Time left': state === 'RUNNING' ? format.duration(format.durationSeconds(progress.remaining_duration)) : '–',
      'Ran for': job.start_time ? format.duration((end - Date.parse(job.start_time)) / 1000) : '–',
      Generation: `${job.generation}${restarts > 0 ? `, ${restarts} ${restarts === 1 ? 'restart' : 'restarts'}` : ''}`,
      Ranks: `${ranks} (SP ${sp} × DP ${dp}) on ${format.enumName(job.device, 'DEVICE_').replace('UNSPECIFIED', 'any')}`,
      Sequence: `${format.integer(format.number(job.spec.data.sequence_length))} tokens`,
    };
    for (const [name, value] of Object.entries(values)) {
      setText(this.facts[name].value, value);
    }
    const events = (job.transitions || []).map((event, i) => ({event, key: `${event.time} ${event.to_state} ${i}`})).reverse();
    setChildren(this.events, events, ({key}) => key, createEvent, (row, {event}) => updateEvent(row, event));
    setText(this.spec, JSON.stringify(job.spec, null, 2));
    this.logs.setChoices(ranks, format.number(job.generation));
    this.element.hidden = false;
  }
}

export function jobPage(content, shell, project, id) {
  shell.setTitle(id);
  const view = new JobView(project, id);
  const loading = el('p', {class: 'summary'}, 'Loading…');
  content.append(loading, view.element);
  const path = ['projects', project, 'trainingJobs', id];
  let gone = false;

  async function ask(signal) {
    let job;
    try {
      job = await get(path, {}, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || ![400, 403, 404].includes(error.code)) {
        throw error;
      }
      // What may not be seen and what is not there are told as the coordinator tells them.
      gone = true;
      view.element.hidden = true;
      loading.hidden = true;
      const notice = el('div', {class: 'missing'}, el('h1', {tabindex: '-1'}, 'No such job'), el('p', {class: 'notice'}, format.sentence(error.message)),
                        el('a', {href: '#/jobs'}, 'To the list of jobs'));
      content.replaceChildren(notice);
      asking.stop();
      logging.stop();
      return;
    }
    const first = view.element.hidden;
    loading.hidden = true;
    view.update(job);
    if (first) {
      logging.again();
    }
    shell.setTitle(job.display_name || id);
    if (await view.rows.update(format.number(job.generation), format.number(job.restored_step), signal)) {
      for (const chart of view.charts) {
        chart.setRows(view.rows.rows);
      }
    }
    await view.grid.update(job, signal);
  }

  const asking = shell.poll(ask, INTERVAL_MS);
  const logging = shell.poll(async (signal) => {
    if (!gone && !view.element.hidden) {
      await view.logs.update(signal);
    }
  }, INTERVAL_MS);
  view.logs.element.addEventListener('change', () => logging.again());
}
