// Whom a script asks: BASE_URL, and API_KEY where one is needed.
import exec from 'k6/execution';
import http from 'k6/http';

export const BASE_URL = (__ENV.BASE_URL || 'http://localhost:8080').trim().replace(/\/+$/, '');
if (!/^https?:\/\/[^/?#\s]+[^?#\s]*$/.test(BASE_URL)) {
  throw new Error('BASE_URL has to be an address such as http://localhost:8080. Nothing was sent.');
}
/** To be shown: without the user and password that an address may hold. */
export const TARGET = BASE_URL.replace(/^(https?:\/\/)[^/]*@/, '$1');
export const HEADERS = __ENV.API_KEY ? { Authorization: `Bearer ${__ENV.API_KEY}` } : {};

/** So many replicas are told apart; those beyond it are counted together. */
export const MAX_REPLICAS = 32;
// Long enough for a busy service, short enough to say soon that nobody answers.
const TIMEOUT = '5s';

/** The ids of the replicas that answer, sorted. Ends the run, naming why, if the target is dead, not Naru, not ready or closed to us. */
export function findReplicas() {
  const ask = (path) => http.get(`${BASE_URL}${path}`, { headers: HEADERS, timeout: TIMEOUT, redirects: 0 });
  const ready = ask('/health/ready');
  if (ready.status === 0) refuse(`nothing answers at ${TARGET} (${ready.error}). Is it started?`);
  if (ready.status >= 300 && ready.status < 400) {
    refuse(
      `${TARGET} answers with a redirection to ${ready.headers.Location}; name that address in BASE_URL.`,
    );
  }
  if (ready.status === 403) refuse(`${TARGET} refuses requests from this address: it answers 403.`);
  // nginx shows /health to private addresses only, so a 404 of its own isn't the end yet.
  const isInside = ready.status !== 404;
  if (isInside && !ready.headers['X-Served-By']) refuse(notNaru('no X-Served-By'));
  if (isInside && ready.status !== 200)
    refuse(`${TARGET} is not ready: /health/ready answers ${ready.status}.`);

  const list = ask('/images?limit=1');
  if (!list.headers['X-Served-By'] && list.status !== 0) refuse(notNaru('no X-Served-By'));
  if (list.status === 401) {
    refuse(
      `${TARGET} wants an API key: ${HEADERS.Authorization ? 'that of API_KEY is unknown to it' : '-e API_KEY=…'}.`,
    );
  }
  if (list.status !== 200) {
    refuse(`${TARGET} is not ready: the list of images answers ${list.status || list.error}.`);
  }
  if (!isList(list)) refuse(notNaru('/images is no list of images'));

  // Each on a connection of its own: some balancers place connections, not requests.
  const probe = [
    'GET',
    `${BASE_URL}${isInside ? '/health/live' : '/openapi.json'}`,
    null,
    { headers: { Connection: 'close' }, timeout: TIMEOUT, responseType: 'none' },
  ];
  const answers = http.batch(Array.from({ length: 2 * MAX_REPLICAS }, () => probe));
  const replicas = new Set(answers.map(({ headers }) => headers['X-Served-By']).filter(Boolean));
  return [...replicas].sort().slice(0, MAX_REPLICAS);
}

/** Ends the run, saying why; k6 exits with 108. */
export function refuse(why) {
  exec.test.abort(why);
}

function notNaru(why) {
  return `what answers at ${TARGET} is not Naru: ${why}.`;
}

function isList({ body }) {
  try {
    return Array.isArray(JSON.parse(body).images);
  } catch {
    return false;
  }
}
