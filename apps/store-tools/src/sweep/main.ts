import { runAsProcess } from '../program.js';
import { sweep } from './command.js';

await runAsProcess(sweep);
