// Asks the coordinator. The token lives in this tab's session storage: closing the tab forgets it.

const TOKEN_KEY = 'lasp.token';
const PREFIX = '/api/v1/';
const TIMEOUT_MS = 15000;
// Answers that are kept to be asked for by their ETag.
const MAX_KEPT = 24;

const kept = new Map();

export class ApiError extends Error {
  constructor(code, reason, message) {
    super(message);
    // The HTTP code; 0 where there was no answer.
    this.code = code;
    this.reason = reason;
  }
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

export function setToken(token) {
  kept.clear();
  if (token === null) {
    sessionStorage.removeItem(TOKEN_KEY);
  } else {
    sessionStorage.setItem(TOKEN_KEY, token);
  }
}

async function readError(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // Not from the coordinator itself: the code has to do.
  }
  const info = (body.details || []).find((detail) => detail.reason);
  return new ApiError(response.status, info ? info.reason : '',
                      body.message || `the coordinator answered ${response.status}`);
}

// The answer to `path`, a list of its parts, with the query `parameters` (empty ones are left out).
export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== '' && value !== null && value !== undefined) {
      query.set(name, value);
    }
  }
  const text = query.toString();
  const url = PREFIX + path.map(encodeURIComponent).join('/') + (text ? `?${text}` : '');
  const headers = {};
  if (hasToken()) {
    headers.Authorization = `Bearer ${sessionStorage.getItem(TOKEN_KEY)}`;
  }
  const known = kept.get(url);
  if (known) {
    headers['If-None-Match'] = known.etag;
  }
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(url, {
      headers,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (error) {
    if (signal && signal.aborted) {
      throw error;
    }
    throw new ApiError(0, 'UNREACHABLE', 'the coordinator does not answer');
  }
  if (response.status === 304 && known) {
    return known.body;
  }
  if (!response.ok) {
    throw await readError(response);
  }
  const body = await response.json();
  kept.delete(url);
  kept.set(url, {etag: response.headers.get('ETag'), body});
  if (kept.size > MAX_KEPT) {
    kept.delete(kept.keys().next().value);
  }
  return body;
}
