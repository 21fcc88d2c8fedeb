/**
 * What a script writes to the file named by `-e RESULT=path`, as JSON. Everything is about the measured load alone: what
 * setup() asked, the warm-up and the reads that check stored bytes are left out.
 *
 * @typedef {object} Result
 * @property {1} version of this shape; another number means that something here is named or counted otherwise
 * @property {string} script its name without folder and ending: `one-vs-many`
 * @property {string} question that the script answers
 * @property {string} startedAt RFC 3339, UTC: when the measured load began, the warm-up being over
 * @property {number} durationSeconds of the measured load; what began in it was waited for and counts, so
 *   `uploads / durationSeconds` is the throughput
 * @property {string} target BASE_URL, without a user or password that may stand in it
 * @property {Record<string, string | number>} settings by the name of their variable, as they were in force; no API_KEY
 * @property {number} requests sent, whatever became of them
 * @property {number} uploads requests answered with 201
 * @property {number} images acknowledged by those
 * @property {number} bytes of images, acknowledged or read: what went over the line one way or the other, without HTTP
 * @property {number} errors requests that were not answered as they should be
 * @property {Record<string, number>} errorsByStatus adds up to `errors`; '0': no answer at all, '200' and '201': answered,
 *   but not with what was asked for, 'other': a status that nobody thought of
 * @property {Latency | null} latencyMs of what was answered as it should be; null: nothing was
 * @property {Record<string, {requests: number, errors: number, latencyMs: Latency | null}>} byKind the same by what was
 *   asked: `upload`, `read`, `list`, `delete`, as far as the script asks it
 * @property {Record<string, number>} byReplica requests answered as they should be, by X-Served-By; those that setup()
 *   found, even if they answered none; '(late)': all that turned up afterwards
 * @property {number} connections opened for the load
 * @property {{verified: number, altered: number}} stored images read back and compared with what was sent, and those of them
 *   that were not the same or not there
 * @property {number} droppedIterations what the open model should have sent and k6 didn't
 * @property {number} vusMax VUs that were there
 * @property {boolean} vusExhausted all of them were busy at once, in an open model
 * @property {boolean} throttled the generator held the load back: this is not a result about the service
 * @property {boolean} aborted the run ended before its time: by a threshold that aborts, or by a person
 * @property {{metric: string, threshold: string, ok: boolean}[]} thresholds
 * @property {Moment[]} [series] the measured load, piece by piece, 60 pieces at most
 * @property {{rate: number, asked: number, answered: number, p95Ms: number | null,
 *   verdict: 'held' | 'MISSED' | 'cut short' | 'not tried'}[]} [steps] of breaking-point
 * @property {number | null} [held] of breaking-point: uploads a second of the last step that held
 * @property {{ratio: number, byStatus: Record<string, number>}} [cache] of cached-reads: share of reads that nginx answered
 *   from a copy without asking anybody, and all of them by X-Cache
 * @property {number} [brokenReads] of fault: reads that broke off in mid-answer and were right at the second try
 */

/** @typedef {{p50: number, p95: number, p99: number, max: number}} Latency k6's http_req_duration, ms */

/**
 * @typedef {object} Moment what began in [second, second + seconds)
 * @property {number} second since startedAt
 * @property {number} seconds
 * @property {number} answered requests answered as they should be
 * @property {number} errors
 * @property {number | null} p95Ms
 */
