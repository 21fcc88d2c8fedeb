import { ReplicaProcess } from './replica-process.js';

describe('the program', () => {
  it('does not start in a bad environment: exit code 1, one message that says it all, and no stack', async () => {
    const { exitCode, stdout, stderr } = await ReplicaProcess.run({
      NODE_ENV: 'production',
      PORT: 'eighty',
      S3_SECRET_ACCESS_KEY: 'hunter2',
    });
    expect(exitCode).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toBe(
      "Naru can't start: 4 environment variables are wrong:\n" +
        '  PORT holds "eighty"; expected a whole number from 0 to 65535\n' +
        '  S3_BUCKET is not set; expected a bucket name: 3 to 63 lower-case letters, digits, "." or "-"\n' +
        '  API_KEYS is not set; expected name:sha256-hex, parted by commas, or AUTH=none to let anybody upload\n' +
        '  S3_ACCESS_KEY_ID is not set; expected both credentials or none\n' +
        'See .env.example for all of them.\n',
    );
  });

  it('does not start on a port that is taken: exit code 1, one line, and no stack', async () => {
    const environment = {
      AUTH: 'none',
      S3_BUCKET: 'photos',
      // Nobody is there, which keeps a replica from being ready but not from starting.
      S3_ENDPOINT: 'http://127.0.0.1:1',
      S3_ACCESS_KEY_ID: 'id',
      S3_SECRET_ACCESS_KEY: 'secret',
    };
    const first = await ReplicaProcess.start(environment);
    const { exitCode, stderr } = await ReplicaProcess.run({
      ...environment,
      HOST: '127.0.0.1',
      PORT: String(first.port),
    });
    await first.stop();
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^Naru can't start: port \d+ is in use; .*\n$/);
  });
});
