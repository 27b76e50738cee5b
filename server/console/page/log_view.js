// The end of a job's logs, and what is added to it.

import {get} from '/api.js';
import {el} from '/dom.js';

const TAIL_LINES = 200;
const MAX_LINES = 2000;
// With more ranks one is shown at a time.
const MAX_TOGETHER = 16;

// Of a rank's own lines, what stands beside the text or is the same in all.
const KNOWN = new Set(['ts', 'level', 'component', 'msg', 'training_job', 'generation', 'rank', 'source']);

// A rank writes {"level": …, "msg": …, more} for machines; what it runs may write anything.
function readLine(text) {
  let line = null;
  try {
    line = text.startsWith('{') ? JSON.parse(text) : null;
  } catch {
    // As it stands.
  }
  if (!line || typeof line.msg !== 'string') {
    return {level: null, text};
  }
  const fields = Object.entries(line).filter(([name]) => !KNOWN.has(name))
      .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const level = typeof line.level === 'string' ? line.level : '';
  const mark = level && level !== 'info' ? `${level.toUpperCase()} ` : '';
  return {level, text: [mark + line.msg, ...fields].join('  ')};
}

export class LogView {
  constructor(project, job) {
    this.path = ['projects', project, 'trainingJobs', job, 'logs'];
    this.rank = el('select', {id: 'log-rank'});
    this.generation = el('select', {id: 'log-generation'}, el('option', {value: ''}, 'Latest'));
    this.older = el('div', {hidden: true}, el('label', {for: 'log-generation'}, 'Generation'), this.generation);
    this.follow = el('input', {id: 'log-follow', type: 'checkbox', checked: true});
    this.lines = el('div', {class: 'log', tabindex: '0', role: 'region', 'aria-label': 'Log lines'});
    this.note = el('p', {class: 'hint'}, 'No lines yet.');
    this.element = el('div', {},
        el('div', {class: 'filters'},
           el('div', {}, el('label', {for: 'log-rank'}, 'Rank'), this.rank),
           this.older,
           el('div', {class: 'check'}, this.follow, el('label', {for: 'log-follow'}, 'Keep the newest in view'))),
        this.note, this.lines);
    this.token = '';
    for (const choice of [this.rank, this.generation]) {
      choice.addEventListener('change', () => this.clear());
    }
  }

  setChoices(ranks, generation) {
    for (let older = this.generation.childElementCount; older <= generation; ++older) {
      this.generation.append(el('option', {value: String(older)}, String(older)));
    }
    this.older.hidden = generation < 2;
    if (this.rank.childElementCount > 0) {
      return;
    }
    const all = ranks > 1 && ranks <= MAX_TOGETHER ? [el('option', {value: ''}, 'All')] : [];
    this.rank.append(...all, ...Array.from({length: ranks}, (_, rank) => el('option', {value: String(rank)}, String(rank))));
  }

  clear() {
    this.token = '';
    this.lines.replaceChildren();
    this.note.hidden = false;
    this.asking = (this.asking || 0) + 1;
  }

  async update(signal) {
    const asking = this.asking;
    const answer = await get(this.path, {
      rank: this.rank.value,
      generation: this.generation.value,
      resume_token: this.token,
      tail_lines: this.token ? '' : TAIL_LINES,
    }, signal);
    if (asking !== this.asking || !answer.lines || answer.lines.length === 0) {
      return;  // of a rank that is no longer chosen, or nothing new
    }
    this.token = answer.resume_token;
    this.note.hidden = true;
    // They come rank by rank.
    const lines = answer.lines.sort((a, b) => a.generation - b.generation || (a.time < b.time ? -1 : a.time > b.time ? 1 : 0));
    this.lines.append(...lines.slice(-MAX_LINES).map((line) => this.lineOf(line)));
    while (this.lines.childElementCount > MAX_LINES) {
      this.lines.firstElementChild.remove();
    }
    if (this.follow.checked) {
      this.lines.scrollTop = this.lines.scrollHeight;
    }
  }

  lineOf(line) {
    const time = line.time ? line.time.slice(11, 23).replace('Z', '') : '';
    const {level, text} = readLine(line.text);
    return el('div', {'data-level': level},
              el('span', {class: 'when', title: line.time}, time),
              el('span', {class: 'who', title: `generation ${line.generation}, rank ${line.rank}`}, `${line.generation}.${line.rank}`),
              el('span', {class: 'what', title: line.text}, text));
  }
}
