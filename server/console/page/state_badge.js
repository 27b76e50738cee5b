// The state of a job, a worker or a rank: a shape and a word, coloured by what it means.

import {el, setAttribute, setText} from '/dom.js';
import {words} from '/format.js';

const TONES = {
  QUEUED: 'waiting', STARTING: 'busy', RUNNING: 'good', RECOVERING: 'warn', SUSPENDING: 'waiting',
  SUSPENDED: 'waiting', CANCELLING: 'waiting', SUCCEEDED: 'done', FAILED: 'bad', CANCELLED: 'waiting',
  READY: 'good', DRAINING: 'warn', DRAINED: 'waiting', LOST: 'bad',
  TRAINING: 'good', STOPPING: 'waiting', ENDED: 'waiting',
};
const SHAPES = {good: '●', busy: '◐', waiting: '○', warn: '▲', bad: '✕', done: '✓'};

export function tone(state) {
  return TONES[state] || 'waiting';
}

export function shape(state) {
  return SHAPES[tone(state)];
}

export function stateBadge() {
  return el('span', {class: 'badge'}, el('span', {'aria-hidden': 'true', class: 'shape'}), el('span', {}));
}

export function setState(badge, state) {
  setAttribute(badge, 'data-tone', tone(state));
  setText(badge.firstChild, shape(state));
  setText(badge.lastChild, words(state));
}
