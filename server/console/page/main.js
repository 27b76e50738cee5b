// The console: which page is shown, and whether the coordinator answers.

import {ApiError, get, hasToken, setToken} from '/api.js';
import {el, setAttribute, setText} from '/dom.js';
import {sentence} from '/format.js';
import {jobPage} from '/job_page.js';
import {jobsPage} from '/jobs_page.js';
import {poll} from '/poll.js';
import {signInPage} from '/sign_in_page.js';
import {workersPage} from '/workers_page.js';

const content = document.getElementById('content');
const pages = document.querySelector('header nav');
const connection = document.getElementById('connection');
const signOut = document.getElementById('sign-out');

// Of the page that is shown; each is to be stopped when another takes its place.
let polls = [];

function report(error) {
  if (error instanceof ApiError && error.code === 401) {
    showSignIn(hasToken() ? sentence(error.message) : '');
    return;
  }
  setAttribute(connection, 'data-tone', error ? 'bad' : 'good');
  const trouble = error instanceof ApiError && error.code !== 0
      ? `The coordinator answered: ${error.message}`
      : 'The coordinator does not answer. Trying again…';
  setText(connection, error ? trouble : 'Live');
  if (error && !(error instanceof ApiError)) {
    console.error(error);
  }
}

// What pages are given.
const shell = {
  // Asks again and again until the page is left.
  poll(ask, interval) {
    const started = poll(ask, interval, report);
    polls.push(started);
    return started;
  },
  setTitle(title) {
    document.title = `${title} · lasp`;
  },
};

function show(build) {
  for (const started of polls) {
    started.stop();
  }
  polls = [];
  content.replaceChildren();
  build();
  window.scrollTo(0, 0);
}

function markCurrent(hash) {
  for (const link of document.querySelectorAll('header nav a')) {
    setAttribute(link, 'aria-current', hash.startsWith(link.getAttribute('href')) ? 'page' : null);
  }
}

// `#/jobs/p/j?x=y` as {parts: ['jobs', 'p', 'j'], parameters}.
function readLocation() {
  const [path, query] = window.location.hash.replace(/^#\/?/, '').split('?');
  let parts = [];
  try {
    parts = path.split('/').filter((part) => part).map(decodeURIComponent);
  } catch {
    // Not of our making.
  }
  return {parts, parameters: new URLSearchParams(query || '')};
}

function showCurrent() {
  const {parts, parameters} = readLocation();
  const [page, project, job] = parts;
  signOut.hidden = !hasToken();
  pages.hidden = false;
  if (page === 'jobs' && parts.length === 3) {
    show(() => jobPage(content, shell, project, job));
  } else if (page === 'jobs' && parts.length === 1) {
    show(() => jobsPage(content, shell, parameters));
  } else if (page === 'workers' && parts.length === 1) {
    show(() => workersPage(content, shell));
  } else {
    window.history.replaceState(null, '', '#/jobs');
    showCurrent();
    return;
  }
  markCurrent(`#/${page}`);
}

function showSignIn(problem) {
  setToken(null);
  signOut.hidden = true;
  setText(connection, '');
  setAttribute(connection, 'data-tone', null);
  shell.setTitle('Sign in');
  pages.hidden = true;
  show(() => signInPage(content, problem, (token) => {
    setToken(token);
    start();
  }));
}

function showAbout(info) {
  const revision = info.revision && info.revision !== 'unknown' ? ` (${info.revision})` : '';
  document.getElementById('about').replaceChildren(
      el('span', {}, `lasp-server ${info.version}${revision}`), el('span', {}, 'read-only'));
}

// Whether this tab may look at all is asked once; what it then finds out is asked by the pages.
async function start() {
  try {
    showAbout(await get(['server']));
  } catch (error) {
    report(error);
    if (error instanceof ApiError && error.code === 401) {
      return;
    }
  }
  showCurrent();
}

signOut.addEventListener('click', () => showSignIn(''));
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  content.focus();
});
window.addEventListener('hashchange', () => {
  if (!pages.hidden) {
    showCurrent();
    const heading = content.querySelector('h1');
    if (heading) {
      heading.focus();
    }
  }
});
start();
