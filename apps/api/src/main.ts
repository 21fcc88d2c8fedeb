import { StopSignals } from './drain/stop-signals.js';

// Loading all of a replica takes a second, in which a signal would meet nobody; and as process 1 of a container, without a
// handler, it is lost. Imported in the usual way, the rest would be loaded before this line.
const signals = new StopSignals();
const { serve } = await import('./serve.js');
await serve(signals);
