export { type Entry, formatReplica, parseReplicas } from './replica-list.js';
export { ReplicaWatch } from './replica-watch.js';
export { type Status } from './watched-replica.js';
