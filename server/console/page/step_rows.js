// The steps of one job, kept up to date by asking only for new ones.

import {get} from '/api.js';
import {number} from '/format.js';

const MAX_ROWS = 2000;
const POINTS = 1000;

function toRow(step) {
  const row = {
    step: number(step.step),
    generation: number(step.generation),
    loss: number(step.loss),
    evalLoss: number(step.eval_loss),
    rate: number(step.tokens_per_second),
    total: number(step.step_seconds),
    data: number(step.data_seconds),
    forward: number(step.forward_seconds),
    backward: number(step.backward_seconds),
    spWait: number(step.sp_wait_seconds),
    sync: number(step.gradient_sync_wait_seconds),
    optimizer: number(step.optimizer_seconds),
  };
  row.other = Math.max(0, row.total - row.data - row.forward - row.backward - row.spWait - row.sync - row.optimizer);
  return row;
}

export class StepRows {
  constructor(project, job) {
    this.path = ['projects', project, 'trainingJobs', job, 'metrics'];
    this.rows = [];
    this.generation = 0;
  }

  // Whether there was something new. A new generation goes on after the step that it was restored at,
  // 0 for from the start, and its rows take the place of the old ones behind that: all are read until
  // the last of these is gone.
  async update(generation, restored, signal) {
    const last = this.rows[this.rows.length - 1];
    const whole = !last || this.rows.length > MAX_ROWS ||
      this.rows.some((row) => row.generation !== generation && row.step > restored);
    const answer = await get(this.path, whole ? {max_points: POINTS} : {from_step: last.step + 1, max_points: POINTS}, signal);
    const fresh = (answer.steps || []).map(toRow);
    if (whole) {
      const same = fresh.length === this.rows.length && fresh.every((row, i) =>
        row.step === this.rows[i].step && row.generation === this.rows[i].generation);
      this.rows = fresh;
      return !same;
    }
    this.rows.push(...fresh);
    return fresh.length > 0;
  }
}
