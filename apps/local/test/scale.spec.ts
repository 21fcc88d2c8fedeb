import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Npm } from './npm-start.js';

describe('npm run scale', () => {
  let data: string;

  beforeAll(() => {
    data = mkdtempSync(join(tmpdir(), 'naru-scale-'));
  });
  afterAll(() => {
    rmSync(data, { recursive: true });
  });

  it('says that nothing is running', async () => {
    const scale = Npm.run('scale', ['3', '--data', data]);
    expect(await scale.exited).toEqual([1, null]);
    expect(scale.output).toContain(`Nothing is running with ${data}`);
  });

  it.each([[['0']], [['x']], [['65']], [['2.5']], [[]]])('refuses %j with one message', async (words) => {
    const scale = Npm.run('scale', [...words, '--data', data]);
    expect(await scale.exited).toEqual([1, null]);
    expect(scale.output).toContain("argument 'count'");
    expect(scale.output).not.toContain('    at ');
  });

  it('says that the path of its socket is too long', async () => {
    const scale = Npm.run('scale', ['3', '--data', data], { TMPDIR: `${data}/${'long/'.repeat(20)}` });
    expect(await scale.exited).toEqual([1, null]);
    expect(scale.output).toContain('TMPDIR');
  });
});
