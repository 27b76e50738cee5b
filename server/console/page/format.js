// Numbers, times and names as people read them.

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

// Protobuf's JSON has 64-bit numbers as texts, and NaN and Infinity as words.
export function number(value) {
  return value === undefined || value === null || value === '' ? NaN : Number(value);
}

// 3 significant digits with k, M, G, T.
export function compact(value) {
  if (!Number.isFinite(value)) {
    return '–';
  }
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let unit = 0;
  let scaled = Math.abs(value);
  while (scaled >= 999.5 && unit + 1 < units.length) {
    scaled /= 1000;
    ++unit;
  }
  const digits = unit === 0 && Number.isInteger(scaled) ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.max(scaled, 1))));
  return `${value < 0 ? '−' : ''}${scaled.toFixed(digits)}${units[unit] ? `\u00a0${units[unit]}` : ''}`;
}

export function integer(value) {
  return Number.isFinite(value) ? value.toLocaleString('en-US').replace(/,/g, '\u202f') : '–';
}

export function loss(value) {
  return Number.isFinite(value) ? value.toFixed(4) : Number.isNaN(value) ? '–' : String(value);
}

export function seconds(value) {
  if (!Number.isFinite(value)) {
    return '–';
  }
  if (value < 1e-3) {
    return `${(value * 1e6).toFixed(0)}\u00a0µs`;
  }
  if (value < 1) {
    return `${(value * 1e3).toPrecision(3)}\u00a0ms`;
  }
  return `${value.toPrecision(3)}\u00a0s`;
}

// The two largest units.
export function duration(value) {
  if (!Number.isFinite(value)) {
    return '–';
  }
  const total = Math.max(0, Math.round(value));
  if (total < MINUTE) {
    return `${total}\u00a0s`;
  }
  if (total < HOUR) {
    return `${Math.floor(total / MINUTE)}\u00a0min ${total % MINUTE}\u00a0s`;
  }
  if (total < DAY) {
    return `${Math.floor(total / HOUR)}\u00a0h ${Math.floor((total % HOUR) / MINUTE)}\u00a0min`;
  }
  return `${Math.floor(total / DAY)}\u00a0d ${Math.floor((total % DAY) / HOUR)}\u00a0h`;
}

// Of `"12.5s"`, protobuf's form of a duration.
export function durationSeconds(text) {
  return text ? Number(text.replace(/s$/, '')) : NaN;
}

export function ago(time) {
  const age = (Date.now() - Date.parse(time)) / 1000;
  if (!Number.isFinite(age)) {
    return '–';
  }
  return age < 5 ? 'now' : `${duration(age).split(' ')[0]} ago`;
}

// Local date and time.
export function dateTime(time) {
  const date = new Date(time);
  if (!time || Number.isNaN(date.getTime())) {
    return '–';
  }
  const two = (part) => String(part).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
      `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// Of an enum's value: STATE_RUNNING is RUNNING.
export function enumName(value, prefix) {
  return value && value.startsWith(prefix) ? value.slice(prefix.length) : value || '';
}

// An error's message, which begins in lower case.
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// RUNNING is Running, WAITING_FOR_SLOTS is Waiting for slots.
export function words(name) {
  return sentence(name.toLowerCase().replace(/_/g, ' '));
}

// projects/p/trainingJobs/j as {project, job}.
export function jobParts(name) {
  const parts = name.split('/');
  return {project: parts[1] || '', job: parts[3] || ''};
}

export function jobLink(name) {
  const {project, job} = jobParts(name);
  return `#/jobs/${encodeURIComponent(project)}/${encodeURIComponent(job)}`;
}

// {sp, dp, ranks} of a job's spec.
export function parallelism(spec) {
  const part = (spec && spec.parallelism) || {};
  const sp = (part.sequence_parallel && part.sequence_parallel.size) || 1;
  const dp = (part.data_parallel && part.data_parallel.size) || 1;
  return {sp, dp, ranks: sp * dp};
}
