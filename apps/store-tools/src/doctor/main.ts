import { runAsProcess } from '../program.js';
import { doctor } from './command.js';

await runAsProcess(doctor);
